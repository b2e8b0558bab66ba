"""The notebooks run from top to bottom, on small data, with public names only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


@pytest.mark.slow
def test_the_notebooks_run() -> None:
    """In one process of their own, since the kernels have theirs; one thread, as everywhere in the tests. The plugin is
    off elsewhere, where it would take each process seconds to load."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "nbmake",
        "--nbmake",
        "-n",
        "0",
        "-q",
        "-p",
        "no:cacheprovider",
        *NOTEBOOKS,
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FOLDER.parent)}
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"{len(NOTEBOOKS)} passed" in done.stdout


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_uses_public_names_only(name: str) -> None:
    import nbformat

    import biggan
    import interventions
    import spectra

    public = {"biggan": biggan.__all__, "interventions": interventions.__all__, "spectra": spectra.__all__}
    used = 0
    for cell in nbformat.read(FOLDER / name, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in public
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in public:
                assert node.attr in public[node.value.id]
                used += 1
    assert used


def test_there_are_notebooks() -> None:
    assert {"01_training_run.ipynb", "02_spectra.ipynb", "03_interventions.ipynb"} <= set(NOTEBOOKS)
    assert "04_your_own_model.ipynb" in NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_shows_its_outputs(name: str) -> None:
    """Those of one execution from top to bottom (`notebooks/execute.py`), without an error."""
    import nbformat

    cells = [cell for cell in nbformat.read(FOLDER / name, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "image/png" in {kind for output in outputs for kind in output.get("data", {})}
    assert "error" not in {output.output_type for output in outputs}

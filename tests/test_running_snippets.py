"""The commands and the code of the documents run, page by page, in an empty directory.

Only trainings are shorter than on the page (`SHORTER`). What a page takes for granted, such as files of the reader's
own, is made first (`GIVEN`, `IMAGINED`). What needs something else says so on the page, and is parsed in
`test_snippets.py`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from snippets import ROOT, Command, Snippet, commands, snippets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DONE_BY_CI = ("python3 -m venv", ". .venv", "pip install", "pre-commit", "pytest", "ruff", "mypy", "mkdocs")
"""How commands begin that `.ci/run` does in an environment of its own."""

SHORTER = {
    "biggan-train digits-collapse --train.on_alarm stop": "--steps 20 --out runs/stopping",
    "biggan-train --resume runs/digits-collapse --train.on_alarm continue": "--steps 45",
    "biggan-train digits-collapse --notify": "--steps 20 --out runs/telling",
    "biggan-train --resume runs/digits --steps 8000": "--steps 2010",
    "biggan-train digits --out runs/mine": "--steps 20",
    "biggan-train --data.path photos": "--steps 5",
    "biggan-train --data.path PATH": "--steps 2 --eval.every 0",
    "biggan-train --steps 4000": "--steps 5",
    "biggan-train": "--steps 20 --out runs/again",
    "biggan-intervene --ckpt RUN --before-collapse": "--steps 5",
    "biggan-intervene --ckpt runs/digits --at 1000 --lr": "--steps 320",
    "biggan-intervene --ckpt runs/digits --at 1000": "--steps 5",
    "biggan-eval": "--samples 1000 --standing-passes 4",
    "python -m biggan.bench.evaluation": "--samples 1000",
}
"""How a command begins -> options put behind it: the first that fits. Of an option given twice the last one counts."""

GIVEN = {
    "README.md": """
        import numpy, PIL.Image, pathlib
        for i in range(60):
            path = pathlib.Path(f"photos/{'cats' if i % 2 else 'dogs'}/{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(numpy.random.default_rng(i).integers(0, 256, (40, 50, 3), numpy.uint8)).save(path)
        """,
    "data.md": """
        import io, numpy, PIL.Image, pathlib, pyarrow, pyarrow.parquet
        photos, species = [], []
        for i in range(20):
            path = pathlib.Path(f"PATH/{'cats' if i % 2 else 'dogs'}/{i}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(numpy.full((40, 50, 3), i, numpy.uint8)).save(path)
            photos.append(path.read_bytes())
            species.append(path.parent.name)
        pathlib.Path("photos").mkdir()
        pyarrow.parquet.write_table(pyarrow.table({"photo": photos, "species": species}), "photos/train.parquet")
        """,
    "acting.md": "open('tell.py', 'w').write('import sys; sys.stdin.read()')",
    "scanning.md": """
        import torch, safetensors.torch
        net = torch.nn.Sequential(torch.nn.Linear(8, 9), torch.nn.Linear(9, 7))
        safetensors.torch.save_file(net.state_dict(), "model.safetensors")
        for name in ("checkpoint.ckpt", "before.pt", "after.pt"):
            torch.save(net.state_dict(), name)
        """,
    "spectra.md": "import torch; torch.save(torch.nn.Conv2d(3, 8, 3).state_dict(), 'generator.pt')",
}
"""Code that makes what a page takes for granted."""

IMAGINED = {
    "watching.md": """
        import types
        import torch
        import spectra
        G, D = torch.nn.Linear(4, 5), torch.nn.Linear(5, 1)
        model = G
        opt_G, opt_D = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters())
        batches = range(3)
        loss_G = loss_D = torch.tensor(1.0)
        wandb = types.SimpleNamespace(log=lambda numbers, step: None)
        mlflow = types.SimpleNamespace(log_metrics=lambda numbers, step: None)
        """,
    "estimators.md": "import torch\nimport spectra\nmodel = torch.nn.Linear(4, 5)",
    "reading-a-report.md": "draw_inception_score = print",
}
"""Code in front of a page's own, in the same process."""

RUN_ELSEWHERE = {"extending.md": "tests/recipes/test_page.py"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of the default, as the README's command leaves it, and one that has collapsed."""
    folder = tmp_path_factory.mktemp("world")
    shell("biggan-train", folder)
    shell("biggan-train digits-collapse --steps 40 --checkpoint.ring_every 10 --checkpoint.every 10", folder)
    collapse = {"event": "collapse", "step": 40, "time": 0.0, "onset": 30, "details": {"rule": "quality_lost"}}
    with open(folder / "runs/digits-collapse/events.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(collapse) + "\n")
    shutil.copytree(ROOT / "notebooks/data/example-plan", folder / "runs/study")
    shutil.copytree(ROOT / "notebooks/data/small-study", folder / "runs/claims")
    return folder


def shell(command: str, folder: Path) -> str:
    """The output of a command, which must end with 0."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "100"}
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def python(code: str, folder: Path) -> None:
    """Run code in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{code}\n{done.stderr[-4000:]}"


def parts(command: Command) -> list[str]:
    """What of a command is run here, with its shorter length."""
    found = []
    for part in command.text.split(" && "):
        if part.startswith(DONE_BY_CI):
            continue
        shorter = next((more for begin, more in SHORTER.items() if part.startswith(begin)), "")
        found.append(f"{part} {shorter}".replace("--before-collapse 500", "--before-collapse 10"))
    return found


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page.name not in RUN_ELSEWHERE]
CODE = ("python", "bash", "console")
PAGES = [page for page in PAGES if any(one.language in CODE and not one.needs for one in snippets(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page: Path, world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    shutil.copytree(world, folder)
    python(textwrap.dedent(GIVEN.get(page.name, "")), folder)
    for snippet in snippets(page):
        if snippet.language == "python" and not snippet.needs:
            imagined = textwrap.dedent(IMAGINED.get(page.name, ""))
            python(f"{imagined}\n{snippet.text}", place_of_its_own(folder) if imagined else folder)
        for command in commands(snippet):
            if not command.needs:
                for part in parts(command):
                    run_part(part, folder)


def place_of_its_own(folder: Path) -> Path:
    """Several blocks of a page may be about one name of a run."""
    place = folder / f"block-{len(list(folder.glob('block-*')))}"
    place.mkdir()
    return place


def run_part(part: str, folder: Path) -> None:
    text = part.replace(" RUN", " runs/digits-collapse" if "--before-collapse" in part else " runs/digits")
    shell(text, folder)


def test_no_list_names_what_is_not_there() -> None:
    found: list[Snippet] = [snippet for page in PAGES for snippet in snippets(page)]
    whole = [part for snippet in found for command in commands(snippet) for part in command.text.split(" && ")]
    assert [begin for begin in SHORTER if not any(part.startswith(begin) for part in whole)] == []
    assert {*GIVEN, *IMAGINED} <= {page.name for page in PAGES}

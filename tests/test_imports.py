"""spectra <- biggan <- interventions: an import against the arrows is an error."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"spectra": {"biggan", "interventions"}, "biggan": {"interventions"}, "interventions": set()}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_follow_the_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): bad for path in files if (bad := imports(path) & FORBIDDEN[package])}
    assert not wrong


def test_only_the_command_line_puts_a_monitor_on_a_trainer() -> None:
    users = {
        path.name
        for path in (ROOT / "biggan").rglob("*.py")
        if "spectra.monitor.monitor" in path.read_text() and path.name != "tree.py"
    }
    assert users == {"train.py"}

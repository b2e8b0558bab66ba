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


WRITERS = {"spectra/record/files.py", "biggan/run/files.py"}
"""Where files are renamed, linked, locked, and asked for to be on the disk."""

OWN_WAYS = {"fsync", "fdatasync", "flock", "lockf", "link"}


def renames(path: Path) -> set[str]:
    """The calls in a file that belong into one of `WRITERS`."""
    tree = ast.parse(path.read_text())
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    attributes = [function for function in called if isinstance(function, ast.Attribute)]
    names = {one.attr for one in attributes if one.attr in OWN_WAYS}
    of_os = [one for one in attributes if isinstance(one.value, ast.Name) and one.value.id in ("os", "shutil")]
    names |= {one.attr for one in of_os if one.attr in ("replace", "rename", "renames", "move")}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in ("os", "fcntl")]
    return names | {alias.name for node in imported for alias in node.names} & {*OWN_WAYS, "replace", "rename"}


def test_files_are_renamed_and_locked_in_one_place() -> None:
    files = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): names for path in files if (names := renames(path))}
    assert set(found) == WRITERS, found

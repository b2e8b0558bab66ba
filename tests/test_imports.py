"""spectra <- biggan <- interventions: an import against the arrows is an error."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {"spectra": {"biggan", "interventions"}, "biggan": {"interventions"}, "interventions": set()}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Constant) and (entry := re.fullmatch(r"(\w+)(\.\w+)+:\w+", str(node.value))):
            found.add(entry[1])  # an entry of a registry
    return found


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_follow_the_arrows(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(path.relative_to(ROOT)): bad for path in files if (bad := imports(path) & FORBIDDEN[package])}
    assert not wrong


def test_a_monitor_is_put_on_a_trainer_in_one_place() -> None:
    users = {
        path.name
        for path in (ROOT / "biggan").rglob("*.py")
        if "spectra.monitor.monitor" in path.read_text() and path.name != "tree.py"
    }
    assert users == {"assemble.py"}


WRITERS = {"spectra/record/files.py", "biggan/run/files.py"}
"""Where files are renamed, linked, locked, and asked for to be on the disk."""

OWN_WAYS = {"fsync", "fdatasync", "flock", "lockf", "link"}


def renames(path: Path) -> set[str]:
    """The calls in a file that belong into one of `WRITERS`."""
    tree = parsed(path)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = [call.func for call in calls]
    attributes = [function for function in called if isinstance(function, ast.Attribute)]
    names = {one.attr for one in attributes if one.attr in OWN_WAYS}
    # Path's own: one argument and no keyword, unlike those of strings and frames.
    single = [call.func for call in calls if len(call.args) == 1 and not call.keywords]
    paths = ("replace", "rename", "hardlink_to", "symlink_to")
    names |= {one.attr for one in single if isinstance(one, ast.Attribute) and one.attr in paths}
    of_os = [one for one in attributes if isinstance(one.value, ast.Name) and one.value.id in ("os", "shutil")]
    names |= {one.attr for one in of_os if one.attr in ("replace", "rename", "renames", "move")}
    imported = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in ("os", "fcntl")]
    return names | {alias.name for node in imported for alias in node.names} & {*OWN_WAYS, "replace", "rename"}


def test_files_are_renamed_and_locked_in_one_place() -> None:
    files = [path for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]
    found = {str(path.relative_to(ROOT)): names for path in files if (names := renames(path))}
    assert set(found) == WRITERS, found


def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name; a package's own file by the package's name."""
    files = [path.relative_to(ROOT) for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported_modules(name: str, known: dict[str, Path]) -> set[str]:
    """The modules that `name` imports by a statement anywhere in it, but for types alone.

    `from package import submodule` imports the submodule; `from package import something` the package's own file.
    """
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.expr):  # no import is inside one
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found.update(inside & known.keys() or {node.module or ""})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(parsed(ROOT / known[name]))
    return found & known.keys()


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules of which each imports, directly or not, every other one."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = edges[waiting.pop()] - seen
            seen |= new
            waiting += new
        return seen

    reach = {name: reached(name) for name in edges}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in edges}
    return [list(group) for group in sorted(groups) if group]


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    edges = {name: imported_modules(name, known) for name in known}
    own = {name: used for name in known if (used := {one for one in edges[name] if name.startswith(f"{one}.")})}
    assert own == {}, "a module imports its own package's __init__"
    assert cycles(edges) == []


def test_the_cycle_finder_finds_cycles() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": set()}
    assert cycles(edges) == [["b", "c"], ["d"]]


def public_names(path: Path) -> set[str]:
    """The classes, functions and constants that a file defines at its top level."""
    found: set[str] = set()
    for node in parsed(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return {name for name in found if not name.startswith("_")} - {"main"}  # what `python -m` and a command begin with


def test_no_public_name_is_defined_twice() -> None:
    homes: dict[str, list[str]] = {}
    for module, path in modules().items():
        for name in public_names(ROOT / path):
            homes.setdefault(name, []).append(module)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_a_file_is_read_in_one_sitting() -> None:
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_every_data_file_of_a_package_is_in_the_wheel() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for package, several in patterns.items() for one in several for path in (ROOT / package).glob(one)}
    present = {path for package in patterns for path in (ROOT / package).rglob("*") if path.is_file()}
    code = {path for path in present if path.suffix == ".py" or "__pycache__" in path.parts}
    assert present - code - packed == set()

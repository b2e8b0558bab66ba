"""The documents tell the truth: docs/tree.md lists every file, pages are short, links and quoted paths exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def listed() -> dict[str, set[str]]:
    """Folder -> the modules that docs/tree.md lists in it."""
    rows = re.findall(
        r"^\| `([\w/]+/)` \| ([^|]*) \|", (ROOT / "docs/tree.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {folder: set(re.findall(r"`(\w+)`", files)) for folder, files in rows}


def present() -> dict[str, set[str]]:
    """Folder -> the modules that are there."""
    found: dict[str, set[str]] = {}
    for package in ("spectra", "biggan", "interventions"):
        for path in (ROOT / package).rglob("*.py"):
            modules = found.setdefault(f"{path.parent.relative_to(ROOT).as_posix()}/", set())
            modules |= {path.stem} - {"__init__", "__main__"}
    return found


def test_the_tree_is_the_tree() -> None:
    assert listed() == present()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_read_in_one_sitting(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= 1200


def test_the_readme_is_walked_through_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("package", ["spectra", "biggan", "interventions"])
def test_the_reference_has_every_public_name(package: str) -> None:
    listed = re.findall(r"^::: ([\w.]+)$", (ROOT / f"docs/api/{package}.md").read_text(encoding="utf-8"), re.MULTILINE)
    module = importlib.import_module(package)
    homes = dict(module._HOMES) | (importlib.import_module("biggan.data")._HOMES if package == "biggan" else {})
    names = {f"{home}.{name}" for home, held in homes.items() for name in held}
    assert sorted(listed) == sorted(names | set(getattr(module, "_MODULES", {}).values()))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in link]
    paths = re.findall(r"`((?:biggan|spectra|interventions|tests|docs|notebooks)/[\w/.-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    missing += [path for path in paths if not (ROOT / path).exists()]
    assert not missing

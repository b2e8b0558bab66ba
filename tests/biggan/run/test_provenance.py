"""What run.json says of the code: the version always, a commit only of the checkout that the code comes from."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import biggan
from biggan.run.provenance import DECISIVE, checkout, run_facts
from spectra.version import package_version

ROOT = Path(biggan.__file__).resolve().parent.parent


def git(folder: Path, *arguments: str) -> str:
    line = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(line, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project under git that is laid out as this one is."""
    folder = tmp_path / "project"
    for name in ("biggan", "spectra"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / ".gitignore").write_text("__pycache__/\n.venv/\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


def test_a_checkout_gives_its_commit_and_says_whether_it_is_dirty(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert checkout(repository / "biggan") == {"commit": commit, "dirty": False}
    (repository / "notes.txt").write_text("no code")
    (repository / "biggan/__pycache__").mkdir()
    (repository / "biggan/__pycache__/x.pyc").write_text("")
    assert checkout(repository / "biggan") == {"commit": commit, "dirty": False}
    new = repository / "spectra/new.py"
    new.write_text("a = 1")
    assert checkout(repository / "biggan") == {"commit": commit, "dirty": True}  # a file that git does not know yet
    new.unlink()
    (repository / "biggan/__init__.py").write_text("a = 1")
    assert checkout(repository / "biggan") == {"commit": commit, "dirty": True}


@pytest.mark.parametrize(
    ("place", "tracked"),
    [(".venv/lib/python3.11/site-packages", False), ("lib/site-packages", True), ("untracked", False)],
)
def test_an_installed_copy_is_not_of_the_repository_around_it(repository: Path, place: str, tracked: bool) -> None:
    shutil.rmtree(repository / "biggan")
    installed = repository / place / "biggan"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    if tracked:
        git(repository, "add", "-f", place)
        git(repository, "commit", "-q", "-m", "with its environment")
    assert checkout(installed) == {"commit": None, "dirty": None}


def test_the_environment_of_git_does_not_decide(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a git hook GIT_DIR names another repository."""
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    outside = repository.parent / "outside/biggan"
    outside.mkdir(parents=True)
    (outside / "__init__.py").write_text("")
    assert checkout(outside) == {"commit": None, "dirty": None}


def test_the_code_that_runs_says_so_of_itself(repository: Path) -> None:
    """The real package, copied into the environment of another project under git."""
    site = repository / ".venv/lib/site-packages"
    for package in ("biggan", "spectra"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    info = site / "biggan_stability-7.8.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: biggan-stability\nVersion: 7.8.9\n")
    (info / "top_level.txt").write_text("biggan\nspectra\n")
    code = f"""
import sys, json
from pathlib import Path
sys.path.insert(0, {str(site)!r})
from biggan.run import provenance as p
print(json.dumps([p.__file__, p.package_version(), p.checkout(Path(p.__file__).resolve().parent)]))
"""
    line = [sys.executable, "-c", code]
    said = json.loads(subprocess.run(line, cwd=repository, check=True, capture_output=True, text=True).stdout)
    assert said == [str(site / "biggan/run/provenance.py"), "7.8.9", {"commit": None, "dirty": None}]


def test_a_run_says_all_of_it(finished: Path) -> None:
    from biggan.run.directory import RunDirectory

    facts = json.loads((finished / "run.json").read_text())
    assert set(DECISIVE) <= set(facts)
    assert facts["version"] == package_version()
    assert facts["version"][0].isdigit()
    config = RunDirectory(finished).read_config()
    assert set(DECISIVE) <= set(run_facts(config))
    assert RunDirectory(finished).changed_facts(config) == {}
    (finished / "run.json").write_text(json.dumps(facts | {"version": "0.0.0", "torch": "1.0"}))
    changed = RunDirectory(finished).changed_facts(config)
    assert changed == {"version": ["0.0.0", facts["version"]], "torch": ["1.0", facts["torch"]]}

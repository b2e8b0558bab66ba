"""Packages that extend spectra: biggan does, and one that fails is named and left out."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import spectra
from spectra import extensions
from spectra.detect.registry import find_detectors


def calls() -> None:
    """An extension that registers nothing and counts."""
    COUNTED.append(1)


def fails() -> None:
    """An extension that fails."""
    raise RuntimeError("no luck")


COUNTED: list[int] = []


def test_an_installed_extension_is_loaded_when_it_is_needed() -> None:
    code = (
        "import spectra, sys\n"
        "assert 'biggan' not in sys.modules\n"
        "from spectra.detect.registry import find_detectors\n"
        "assert 'the collapse of the samples' in [detector.what for detector in find_detectors()]\n"
        "assert 'torch' not in sys.modules\n"
    )
    root = Path(spectra.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr


def test_each_is_called_once_and_a_failing_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["extension_of_a_test"] = sys.modules[__name__]
    found = [
        EntryPoint("counts", "extension_of_a_test:calls", extensions.GROUP),
        EntryPoint("bad", "extension_of_a_test:fails", extensions.GROUP),
        EntryPoint("gone", "no_such_package:register", extensions.GROUP),
    ]
    monkeypatch.setattr(extensions, "_installed", lambda path: found)
    monkeypatch.setattr(extensions, "_called", set())
    with pytest.warns(RuntimeWarning) as warned:
        names = [detector.what for detector in find_detectors()]
    said = [str(one.message) for one in warned]
    assert len(said) == 2
    assert "skips the extension 'bad'" in said[0]
    assert "no luck" in said[0]
    assert "'gone' (no_such_package:register)" in said[1]
    assert "spikes of sigma_0" in names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_detectors()
    assert COUNTED == [1]

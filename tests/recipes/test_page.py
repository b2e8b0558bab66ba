"""The code on docs/extending.md runs as it stands, and does what the page says."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded import recorded
from tiny import TINY

import spectra
from biggan import SCORES
from biggan.cli.train import train_main
from biggan.data.sources.registry import SOURCES
from biggan.networks import FAMILIES
from biggan.objective import GRADIENT_PENALTIES, LATENTS, LOSSES, WEIGHT_PENALTIES
from interventions import CHANGES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
ADDED = {
    "least_squares": LOSSES,
    "l1": WEIGHT_PENALTIES,
    "r2": GRADIENT_PENALTIES,
    "laplace": LATENTS,
    "dcgan": FAMILIES,
    "archive": SOURCES,
    "mean_distance": SCORES,
    "largest_entry": spectra.PROBES,
    "high_loss": spectra.DETECTORS,
    "shrink": CHANGES,
}


@pytest.fixture
def _page(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every block of the page but the first, which is a whole program, run on its own."""
    _, *blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == len(ADDED)
    page = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", page)
    try:
        for block in blocks:
            exec(compile(block, "docs/extending.md", "exec"), vars(page))
        yield
    finally:
        for name, registry in ADDED.items():
            registry.pop(name, None)


@pytest.mark.usefixtures("_page")
def test_the_page_adds_what_it_says_and_it_trains(tmp_path: Path) -> None:
    assert all(name in registry for name, registry in ADDED.items())
    options = ["--loss.name=least_squares", "--latents.distribution=laplace", "--spectra.every=1"]
    options += ["--regularizers.weight_penalties_D={l1: 1e-4}", "--regularizers.gradient_penalties={r2: 0.1}"]
    options += ["--spectra.probes=[singular_values,largest_entry]"]
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=2", "--quiet", *TINY, *options]) == 0
    assert (recorded(run)[["penalty/D_l1", "penalty/D_r2"]] > 0).all().all()
    assert spectra.load(run)["spectra"].largest_entry.notna().all()
    assert spectra.DETECTORS["high_loss"]().update(3, {"loss/G": 6.0})[0].step == 3

"""`speed.compile`: the same training, in one graph a use, compiled once. Minutes of compiling: `pytest -m slow`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from biggan.config import Config
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.networks import resampling
from biggan.run.session import config_notes
from biggan.training.state import TrainingState
from biggan.training.step import Updater


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def test_what_stays_uncompiled_is_said_once(tiny: Callable[..., Config]) -> None:
    def notes(**changes: object) -> list[str]:
        return [note for note in config_notes(tiny(**changes)) if note.startswith("speed.compile")]

    compiled = {"speed": {"compile": True}}
    assert notes(**compiled) == notes(regularizers={"r1": 1.0}) == []
    assert len(notes(**compiled, regularizers={"r1": 1.0})) == 1
    assert "(gradient)" in notes(**compiled, loss={"name": "wasserstein"})[0]  # its penalty is on where none is named


def test_a_penalized_D_is_not_compiled(tiny: Callable[..., Config]) -> None:
    """Nothing is compiled before the first forward, so this costs nothing."""
    for penalty, compiled in ((0.0, True), (1.0, False)):
        config = tiny(speed={"compile": True}, regularizers={"r1": penalty})
        state = TrainingState(config)
        updater = Updater(config, state, lambda *_: None, lambda *_: None)
        assert updater.forward_G is not state.G
        assert (updater.parts_D != state.D.parts) == compiled
        state.D.parts = lambda *inputs: inputs  # type: ignore[assignment,return-value] # who watches D does so
        assert updater.parts_D is state.D.parts


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("_fresh_compiler")
@pytest.mark.parametrize("speed", [{}, {"fused_resampling": True, "narrow_skips": True}], ids=["plain", "merged"])
def test_compiled_steps_are_the_same_in_whole_graphs(
    tiny: Callable[..., Config], play: Callable, speed: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four uses (G with and without a graph, D in its own update and in G's), no break, nothing compiled again."""
    changes = {"train": {"d_steps": 1}, "model": {"norm_D": "none"}}
    monkeypatch.setattr(resampling, "is_faster_fused", lambda *_: True)  # in so small networks too
    counters = torch._dynamo.utils.counters
    found = {}
    for compiled in (False, True):
        config = tiny(steps=3, speed={"compile": compiled, **speed}, **changes)
        found[compiled] = play(config)[1]
        assert not counters["graph_break"]
    for plain, fast in zip(found[False], found[True], strict=True):
        for name, value in plain.items():
            assert fast[name] == pytest.approx(value, rel=1e-2, abs=1e-4), name
    first = counters["stats"]["unique_graphs"]
    assert 4 <= first <= 8
    state = TrainingState(config)
    updater = Updater(config, state, lambda *_: None, lambda *_: None)
    batches = training_batches(config, open_source(config), 0)
    for _ in range(3):
        updater.update_discriminator(0, *next(batches))
        updater.update_generator()
    again = counters["stats"]["unique_graphs"]
    for _ in range(3):
        updater.update_discriminator(0, *next(batches))
        updater.update_generator()
    assert counters["stats"]["unique_graphs"] == again

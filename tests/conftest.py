"""Small runs for the tests: 8x8 digits, four channels, a batch of eight."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny import TINY as TINY_OPTIONS
from tiny import TINY_CONFIG

from biggan.cli.train import train_main
from biggan.config import Config, from_dict
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.evaluation.evaluator import Evaluator
from biggan.run.directory import RunDirectory
from biggan.run.session import open_new
from biggan.training.state import TrainingState
from biggan.training.trainer import Trainer


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--cases N` runs a slice of a campaign."""
    parser.addoption("--cases", type=int, default=None, metavar="N", help="cases of a campaign (default: all of them)")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Feature networks trained in the tests are kept for this session alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def tiny() -> Callable[..., Config]:
    """A tiny configuration, with whole sections or top-level fields changed: tiny(steps=3, train={...})."""

    def make(**changes: object) -> Config:
        values = {**TINY_CONFIG}
        for name, change in changes.items():
            values[name] = {**values.get(name, {}), **change} if isinstance(change, dict) else change
        return from_dict(values)

    return make


@pytest.fixture
def play() -> Callable[..., tuple[TrainingState, list[dict[str, float]]]]:
    """Train in memory, without a run directory: the state at the end and each step's numbers."""

    def run(config: Config, state: TrainingState | None = None) -> tuple[TrainingState, list[dict[str, float]]]:
        source = open_source(config)
        state = state or TrainingState(config)
        trainer = Trainer(config, state, source, RunDirectory(Path("nowhere")), [])
        batches = training_batches(config, source, state.step)
        return state, [trainer.train_step(batches) for _ in range(config.steps - state.step)]

    return run


@pytest.fixture
def train() -> Callable[..., Trainer]:
    """Train a new run in a directory with the given observers; the trainer when it has ended."""

    def run(config: Config, out: Path, *observers: object) -> Trainer:
        session = open_new(dataclasses.replace(config, out=str(out)), "test")
        trainer = Trainer(session.config, session.state, session.source, session.run, list(observers))
        trainer.train()
        return trainer

    return run


@pytest.fixture
def load(tiny: Callable[..., Config]) -> Callable[..., Evaluator]:
    """An evaluator of the 8x8 digits with the classifier's features."""

    def make(reference: str = "train", **changes: object) -> Evaluator:
        return Evaluator.of_run(tiny(**changes), reference=reference, report=lambda text: None)

    return make


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of three steps."""
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=3", "--quiet", "--checkpoint.every=1", *TINY_OPTIONS]) == 0
    return run

"""Small runs for the tests: 8x8 digits, four channels, a batch of eight."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from pages import drawn
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
    """Feature networks trained in the tests are kept for this session alone, and shared by its processes."""
    folder = tmp_path_factory.getbasetemp()
    shared = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGGAN_CACHE", str(shared / "cache"))
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
def standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps without updates, for what does not depend on the weights, such as which checkpoints stay."""

    def step(self: Trainer, batches: object) -> dict[str, float]:
        self.state.step += 1
        return {"loss/D_real": 0.5, "loss/D_fake": 0.5, "loss/G": 0.0}

    monkeypatch.setattr(Trainer, "train_step", step)


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, without their layout, and not saved; test_compare.py and test_figures.py save some."""
    monkeypatch.setattr("interventions.compare.page.document.data_uri", drawn)
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda self, path, **how: Path(path).write_text(drawn(self))
    )


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page of a comparison is written without its figures."""
    monkeypatch.setattr("interventions.compare.page.document.COMPARISON_FIGURES", {})


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("trained") / "run"
    assert train_main(["--out", str(run), "--steps=3", "--quiet", "--checkpoint.every=1", *TINY_OPTIONS]) == 0
    return run


@pytest.fixture
def finished(_trained: Path, tmp_path: Path) -> Path:
    """A run of three steps: a copy of one that is trained once, with its own place in its texts."""
    run = shutil.copytree(_trained, tmp_path / "run")
    for path in (run / "config.yaml", run / "run.json", run / "events.jsonl"):
        path.write_text(path.read_text().replace(str(_trained), str(run)))
    return run

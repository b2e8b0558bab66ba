"""Grids during training: when they are drawn, and of what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import TINY

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import Config
from biggan.config.presets import preset_names
from biggan.evaluation.pictures.grids import class_images, first_panel
from biggan.observers.sample_grids import SampleGrids
from biggan.training.state import TrainingState
from biggan.training.trainer import Trainer

DRAWN = [*TINY, "--samples.every=4", "--samples.standing_passes=2", "--samples.per_class=2", "--monitor=none"]


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("step-")) for path in (run / "samples").glob("*.png"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), [0, 4, 5]),
        (("--samples.early=[0,2,3,9]",), [0, 2, 3, 4, 5]),
        (("--samples.early=[]",), [4, 5]),
        (("--samples.every=0", "--samples.early=[0,2]"), []),
    ],
)
def test_grids_are_drawn_early_and_every_n_steps(options: tuple[str, ...], expected: list[int], tmp_path: Path) -> None:
    assert train_main(["--out", str(tmp_path / "run"), "--quiet", "--steps=5", *DRAWN, *options]) == 0
    assert steps_of(tmp_path / "run") == expected


def test_every_preset_that_draws_shows_something_early() -> None:
    drawing = [one for name in preset_names() if (one := parse([name]).config().samples).every]
    assert drawing
    assert all(one.early == [0, 100] for one in drawing)


def test_the_first_grid_is_of_the_untrained_networks(
    tiny: Callable[..., Config], train: Callable[..., Trainer], tmp_path: Path
) -> None:
    config = tiny(steps=1, samples={"every": 1, "per_class": 3, "standing_passes": 2})
    trainer = train(config, tmp_path / "run", SampleGrids())
    settings = {"distribution": config.latents, "step": 0, "passes": 2, "seed": config.seed, "refresh_sigma": False}
    names = trainer.source.classes
    images = class_images(TrainingState(config).G, range(len(names)), 3, **settings)
    shown = first_panel(tmp_path / "run" / "samples" / "step-00000000.png", names, 3, 8)
    assert shown is not None
    assert np.array_equal(shown, images)
    after = first_panel(tmp_path / "run" / "samples" / "step-00000001.png", names, 3, 8)
    assert not np.array_equal(shown, after)


def test_a_resumed_run_has_the_grids_of_an_unbroken_one(tmp_path: Path) -> None:
    options = [*DRAWN, "--samples.early=[0,1,3]", "--checkpoint.every=2", "--quiet"]
    assert train_main(["--out", str(tmp_path / "whole"), "--steps=5", *options]) == 0
    assert train_main(["--out", str(tmp_path / "cut"), "--steps=2", *options]) == 0
    (tmp_path / "cut" / "samples" / "step-00000003.png").write_bytes(b"of a step that is repeated")
    assert train_main(["--resume", str(tmp_path / "cut"), "--steps=5", "--quiet"]) == 0
    assert steps_of(tmp_path / "whole") == [0, 1, 3, 4, 5]
    for path in (tmp_path / "whole" / "samples").glob("*.png"):
        with Image.open(path) as one, Image.open(tmp_path / "cut" / "samples" / path.name) as other:
            assert np.array_equal(np.asarray(one), np.asarray(other)), path.name
    assert steps_of(tmp_path / "cut") == [0, 1, 2, 3, 4, 5]  # 2 was its last step, once

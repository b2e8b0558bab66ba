"""A film strip: the same latents through the checkpoints around an event, raw and averaged weights side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from biggan.errors import UserError, check_exists
from biggan.evaluation.pictures.grids import class_images, draw_grid, load_generator, save_picture
from biggan.observers.collapse_of_run import collapse_of
from biggan.run.checkpoint import all_checkpoints, read_checkpoint
from biggan.run.directory import RunDirectory, class_names_of

TELLING = ("alarm", "spike")  # what a strip is drawn around without a step or a collapse, the first kind first


def draw_film_strip(
    run: Path,
    out: Path | None = None,
    *,
    around: int | None = None,
    frames: int = 9,
    classes: Sequence[int] | None = None,
    seed: int = 0,
    passes: int = 100,
    report: Callable[[str], None] = lambda text: None,
) -> Path:
    """Draw the strip of a run, one row per checkpoint and one column per class, and return its path.

    Args:
        run: the run directory; its checkpoints, rings frozen by alarms among them, are the frames.
        out: the picture; None: RUN/figures/film-strip-STEP.png.
        around: the step in the middle; None: the onset of the run's collapse, or of its first alarm or spike, or its
            last step, limited to the steps of its checkpoints.
        frames: how many checkpoints, those nearest to `around`.
        classes: None: the first 10.
        seed: of the latents, the same in every frame.
        passes: forwards for standing statistics.
        report: called with a text for each checkpoint.

    Raises:
        UserError: a run without checkpoints, a step beyond them, one that does not verify, a class that the generator
            does not have.
    """
    check_exists(run)
    files = checkpoints_of(run)
    if not files:
        raise UserError(f"{run} has no checkpoints. Give a run directory, or train with a smaller checkpoint.every.")
    if frames < 1 or passes < 1:
        raise UserError(f"--frames is {frames} and --standing-passes {passes}, expected at least 1.")
    if around is None:
        around = min(max(_telling_step(run, max(files)), min(files)), max(files))
    if not min(files) <= around <= max(files):
        raise UserError(
            f"--around is {around}, but the checkpoints of {run} reach from step {min(files)} to {max(files)}. "
            f"Choose one of these steps."
        )
    steps = sorted(sorted(files, key=lambda step: (abs(step - around), step))[:frames])
    panels: dict[str, list[np.ndarray]] = {"generator": [], "its average (EMA)": []}
    rows: list[int] = []
    for step in steps:
        report(f"drawing step {step:,}")
        checkpoint = read_checkpoint(files[step])
        count = checkpoint.config.model.classes
        rows = list(range(min(10, count))) if classes is None else list(classes)
        if bad := [c for c in rows if not 0 <= c < count]:
            raise UserError(f"--classes has {bad}, and this generator's classes are 0 to {count - 1}.")
        for (_, images), raw in zip(panels.items(), (True, False), strict=True):
            drawn = class_images(
                load_generator(checkpoint, raw=raw), rows, 1, distribution=checkpoint.config.latents, step=step,
                passes=passes, seed=seed, refresh_sigma=not raw,
            )  # fmt: skip
            images.append(drawn[:, 0])
    target = out or run / "figures" / f"film-strip-{around:08d}.png"
    called = class_names_of(files[steps[0]], count)
    title = f"{run.name} around step {around}: classes {', '.join(called[c] for c in rows)}"
    names = [f"{step:,}{' <' if step == around else ''}" for step in steps]
    picture = draw_grid({caption: np.stack(images) for caption, images in panels.items()}, names, title)
    return save_picture(picture, target)


def checkpoints_of(run: Path) -> dict[int, Path]:
    """Every checkpoint of a run by its step, those in frozen rings among them."""
    return all_checkpoints(run)


def _telling_step(run: Path, last: int) -> int:
    events = RunDirectory(run).events_that_hold()
    if (collapse := collapse_of(events)) is not None:
        return collapse.onset
    for kind in TELLING:
        for event in events:
            if event["event"] == kind:
                return int(event.get("onset", event["step"]))
    return last

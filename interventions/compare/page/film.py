"""Samples of a base run before and after its collapse, cut from the sample grids that it recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from interventions.compare.series import BaseCourse

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

CLASSES, SAMPLES = 5, 8
"""The most classes and samples of a class in a picture."""
_LEAST_SIDE = 32
"""Pixels; smaller images are enlarged."""


@dataclass(frozen=True)
class Still:
    """Samples of one step: `when` in words, its scores, and a picture with one class per row."""

    when: str
    step: int
    scores: str
    picture: Image
    classes: tuple[str, ...]


def film_strip_of(course: BaseCourse) -> list[Still]:
    """Samples at the best FID, just before the onset, and after the fall (the end); without a collapse at the best FID
    and at the end. Empty if the run's samples, or its configuration, are not recorded."""
    moments = film_moments(course.path, course)
    found = [_still(course, step, words, path) for step, (words, path) in moments.items()]
    return [one for one in found if one is not None]


def film_moments(run: Path, course: BaseCourse) -> dict[int, tuple[str, Path]]:
    """The steps of a film strip: when in words, and the recorded grid; empty without grids or scores."""
    from biggan.run.checkpoint import step_of

    grids = {step_of(path): path for path in sorted((run / "samples").glob("step-*.png"))}
    if not grids or not course.fid:
        return {}
    last = max(grids)
    healthy = [step for step in sorted(grids) if course.onset is None or step <= course.onset]
    moments: dict[int, str] = {}
    if len(healthy) > 1:
        moments[min(healthy[:-1], key=course.fid_near)] = "best FID"
    if healthy:
        moments[healthy[-1]] = "the end" if course.onset is None else "before the onset"
    if last not in healthy:
        moments[last] = "after the fall"
    return {step: (words, grids[step]) for step, words in moments.items()}


def _still(course: BaseCourse, step: int, when: str, grid: Path) -> Still | None:
    from biggan.errors import UserError
    from biggan.evaluation.pictures.grids import first_panel
    from biggan.run.directory import RunDirectory

    run = RunDirectory(course.path)
    try:
        config, names = run.read_config(), run.class_names()
    except UserError:
        return None
    if names is None:
        return None
    names = names[: config.samples.classes]
    images = first_panel(grid, names, config.samples.per_class, config.model.resolution)
    if images is None:
        return None
    count = min(CLASSES, len(names))
    rows = [round(number * (len(names) - 1) / max(count - 1, 1)) for number in range(count)]
    picture = _tiled(images[rows][:, :SAMPLES])
    return Still(when, step, course.at(step), picture, tuple(names[row] for row in rows))


def _tiled(images: np.ndarray) -> Image:
    """uint8 images (rows, columns, R, R, 3) side by side with white gaps."""
    import numpy as np
    from PIL import Image

    side = images.shape[2]
    zoom = max(1, -(-_LEAST_SIDE // side))
    gap = max(1, side * zoom // 16)
    large = images.repeat(zoom, axis=2).repeat(zoom, axis=3)
    padded = np.pad(large, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=255)
    rows, columns, height, width, _ = padded.shape
    canvas = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return Image.fromarray(np.ascontiguousarray(canvas[: -gap or None, : -gap or None]))

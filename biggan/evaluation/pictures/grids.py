"""Labelled grids of a generator's images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from biggan import rng
from biggan.config import LatentConfig
from biggan.data.images import to_uint8
from biggan.errors import UserError
from biggan.evaluation.generate import LatentSpec
from biggan.evaluation.standing import sampling_copy
from biggan.evaluation.stored_statistics import with_stored_statistics
from biggan.networks import build_generator
from biggan.networks.base import GeneratorNetwork
from biggan.objective.latents import TruncationKind
from biggan.run.checkpoint import Checkpoint, checkpoint_at
from biggan.run.directory import class_names_of
from spectra.linalg.tf32 import tf32
from spectra.record.files import new_folder, replacing

if TYPE_CHECKING:
    from PIL.Image import Image

GAP = 2  # pixels between images
HEADER = 44  # pixels for title and captions
LEAST_SIDE = 48  # small images are enlarged to at least this many pixels
_BATCH = 64
_FONT = 14


@tf32(False)
@torch.no_grad()
def class_images(
    G: GeneratorNetwork,
    classes: Sequence[int],
    per_class: int,
    *,
    distribution: LatentConfig | str,
    step: int | None = None,
    passes: int = 100,
    seed: int = 0,
    truncation: float | None = None,
    truncation_kind: TruncationKind = "threshold",
    refresh_sigma: bool = True,
    sampler: GeneratorNetwork | None = None,
) -> np.ndarray:
    """uint8 images (classes, per_class, R, R, 3) of `G` under standing statistics; `G` is left as it was.

    Column j of each class has its own latent; with `truncation`, truncated at that threshold. `step`: the step for
    a distribution that changes during training; None: its final form. `sampler`: G under statistics of its own, in eval
    mode, instead.
    """
    network = sampler or sampling_copy(
        G, distribution=distribution, step=step, passes=passes, seed=seed, refresh_sigma=refresh_sigma
    )
    device = next(network.parameters()).device
    count = len(classes) * per_class
    random = rng.generator(seed, "samples")
    z = LatentSpec(distribution, seed, step, truncation, truncation_kind).latents(random, count, G.z_dim)
    y = torch.tensor(list(classes)).repeat_interleave(per_class)
    images = [
        to_uint8(network(z_part.to(device), y_part.to(device)))
        for z_part, y_part in zip(z.split(_BATCH), y.split(_BATCH), strict=True)
    ]
    return np.concatenate(images).reshape(len(classes), per_class, G.resolution, G.resolution, 3)


def save_checkpoint_grid(
    path: Path,
    out: Path | None,
    *,
    per_class: int = 8,
    classes: Sequence[int] | None = None,
    truncation: float | None = None,
    seed: int = 0,
    truncation_kind: TruncationKind = "threshold",
    raw: bool = False,
    passes: int = 100,
    stored: bool = False,
    report: Callable[[str], None] = lambda text: None,
) -> Path:
    """Draw the grid of a checkpoint (a file, or a run directory's newest) and return where it was written.

    `stored`: under the BatchNorm statistics that the checkpoint brings with it, not under standing ones of `passes`
    forwards. `classes` are numbers; rows are labelled with the names that the run gives them. `report` is called with a
    text once everything is checked, before the work.
    Raises `UserError` for a checkpoint that does not verify and for a class that the generator does not have.
    """
    checkpoint = checkpoint_at(path)
    model = checkpoint.config.model
    rows = list(range(min(10, model.classes))) if classes is None else list(classes)
    if bad := [c for c in rows if not 0 <= c < model.classes]:
        raise UserError(f"--classes has {bad}, and this generator's classes are 0 to {model.classes - 1}.")
    for name, value in (("--per-class", per_class), ("--standing-passes", passes)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")
    if out is not None:
        picture_format(out)
    G = load_generator(checkpoint, raw=raw)
    if not stored:
        report(f"standing statistics: {passes} forward passes ...")
    images = class_images(
        G,
        rows,
        per_class,
        distribution=checkpoint.config.latents,
        step=checkpoint.step,
        passes=passes,
        seed=seed,
        truncation=truncation,
        truncation_kind=truncation_kind,
        refresh_sigma=not raw,
        sampler=with_stored_statistics(G, checkpoint.tensors, truncation, checkpoint.path) if stored else None,
    )
    weights = "generator's own weights" if raw else "averaged weights"
    law = LatentSpec("normal", truncation=truncation, truncation_kind=truncation_kind).law()
    statistics = "stored statistics" if stored else f"{passes} standing passes"
    title = f"step {checkpoint.step}, {weights}"
    parts = [f"samples-{checkpoint.step:08d}", *(["raw"] if raw else []), *([f"t{truncation:g}"] if truncation else [])]
    parts += ["scaled"] if truncation_kind == "scaled" else []
    parts += ["stored"] if stored else []
    target = out or Path("-".join([*parts, f"seed{seed}.png"]))
    names = class_names_of(checkpoint.path, model.classes)
    picture = draw_grid({f"{law}, {statistics}": images}, [names[c] for c in rows], title)
    return save_picture(picture, target)


def picture_format(target: Path) -> str:
    """Pillow's name for what a file's ending stands for. Raises `UserError` where it is no kind of picture."""
    from PIL.Image import registered_extensions

    form = registered_extensions().get(target.suffix.lower())
    if form is None:
        ending = target.suffix or "a name without an ending"
        raise UserError(f"cannot write {target}: {ending} is no kind of picture. Give --out the path of a .png file.")
    return form


def save_picture(picture: Image, target: Path) -> Path:
    """Write a picture, its folder too, and return where. Raises `UserError` where that cannot be done."""
    form = picture_format(target)
    try:
        with new_folder(target.parent), replacing(target) as temporary:
            picture.save(temporary, format=form)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {target}: {error}. Give --out the path of a .png file.") from error
    return target


def load_generator(checkpoint: Checkpoint, *, raw: bool = False) -> GeneratorNetwork:
    """The averaged generator of a checkpoint, or with `raw` the generator itself.

    Raises `UserError` where the checkpoint does not hold it.
    """
    prefix = "G." if raw else "G_ema."
    if not any(name.startswith(prefix) for name in checkpoint.tensors):
        what = "weights of the generator" if raw else "averaged weights"
        way = "" if raw else " Give --raw to use the generator's own."
        raise UserError(f"{checkpoint.path} holds no {what} (tensors named {prefix}...).{way}")
    network = build_generator(checkpoint.config)
    network.load_state_dict(
        {name.removeprefix(prefix): tensor for name, tensor in checkpoint.tensors.items() if name.startswith(prefix)}
    )
    return network


def draw_grid(panels: Mapping[str, np.ndarray], row_names: Sequence[str], title: str) -> Image:
    """Panels side by side, each under its caption: uint8 images (rows, columns, R, R, 3), a name at each row's left.

    Panels have the same rows, and columns of their own number.
    """
    from PIL import Image, ImageDraw, ImageFont

    rows, _, side = next(iter(panels.values())).shape[:3]
    zoom, cell, margin = _geometry(row_names, side)
    font = ImageFont.load_default(_FONT)
    widths = [
        max(images.shape[1] * cell, int(font.getlength(caption)) + 4 * GAP) + 3 * GAP
        for caption, images in panels.items()
    ]
    width = max(margin + sum(widths), int(font.getlength(title)) + 16)
    canvas = Image.new("RGB", (width, HEADER + rows * cell), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((8, 4), title, fill="black", font=font)
    for row, name in enumerate(row_names):
        draw.text((8, HEADER + row * cell + cell / 2), name, fill="black", font=font, anchor="lm")
    left = margin
    for panel_width, (caption, images) in zip(widths, panels.items(), strict=True):
        draw.text((left, 24), caption, fill="#555555", font=font)
        tiled = images.repeat(zoom, axis=2).repeat(zoom, axis=3)
        for row in range(rows):
            for column in range(images.shape[1]):
                corner = (left + column * cell, HEADER + row * cell)
                canvas.paste(Image.fromarray(tiled[row, column]), corner)
        left += panel_width
    return canvas


def _geometry(row_names: Sequence[str], side: int) -> tuple[int, int, int]:
    """How many times images are enlarged, the pixels from one to the next, and those left of the first."""
    from PIL import ImageFont

    font = ImageFont.load_default(_FONT)
    zoom = max(1, -(-LEAST_SIDE // side))
    return zoom, side * zoom + GAP, max(int(font.getlength(name)) for name in row_names) + 16


def first_panel(path: Path, row_names: Sequence[str], columns: int, side: int) -> np.ndarray | None:
    """The images (rows, columns, R, R, 3) of the first panel of a grid that `draw_grid` drew, R being `side`.

    None if the file cannot be read, or is not such a grid.
    """
    from PIL import Image

    zoom, cell, margin = _geometry(row_names, side)
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, ValueError):
        return None
    rows = len(row_names)
    if pixels.shape[0] != HEADER + rows * cell or pixels.shape[1] < margin + columns * cell:
        return None
    panel = pixels[HEADER:, margin : margin + columns * cell].reshape(rows, cell, columns, cell, 3)
    return panel.transpose(0, 2, 1, 3, 4)[:, :, : side * zoom : zoom, : side * zoom : zoom]

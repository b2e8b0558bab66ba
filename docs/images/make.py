"""Draws the pictures of the README.

They are made of these runs, in an empty directory:

    biggan-train && spectra plot runs/digits
    biggan-train digits-collapse --seed 5
    for change in '--seed 1' '--r1 1' '--lr D=/2'; do
      biggan-intervene --ckpt runs/digits-collapse --before-collapse 500 $change --steps 2400
    done
    python PATH/docs/images/make.py runs PATH/docs/images
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

import biggan
import spectra

BLUE, ORANGE, GREEN, GREY, BLACK = "#0072B2", "#D55E00", "#009E73", "0.6", "0.15"
CLASSES, PER_CLASS = range(10), 6


def scalar(run: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The steps and values of a recorded number."""
    rows = spectra.load(run)["scalars"].query("name == @name").sort_values("step")
    return rows["step"].to_numpy(), rows["value"].to_numpy()


def event(run: Path, kind: str) -> dict:
    """The first event of a kind."""
    events = map(json.loads, (run / "events.jsonl").read_text(encoding="utf-8").splitlines())
    return next(one for one in events if one["event"] == kind)


def tiles(checkpoint: Path) -> np.ndarray:
    """Samples of the generator, a class a row, as one image."""
    images = biggan.class_images(
        biggan.load_generator(biggan.read_checkpoint(checkpoint), raw=True), CLASSES, PER_CLASS, distribution="normal"
    )
    padded = np.pad(images, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=255)
    rows, columns, height, width, channels = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def states(run: Path) -> dict[int, Path]:
    """Step -> checkpoint, those of the frozen ring too."""
    return {int(path.stem.removeprefix("step-")): path for path in (run / "checkpoints").rglob("step-*.safetensors")}


def front(runs: Path, out: Path) -> None:
    """The picture at the top: samples before and after, sigma_0 with the alarm, branches that differ."""
    run = runs / "digits-collapse"
    onset, alarm = event(run, "collapse")["onset"], event(run, "alarm")["step"]
    figure = plt.figure(figsize=(13, 4.3), layout="constrained")
    columns = figure.add_gridspec(1, 4, width_ratios=(1.15, 1.15, 1.7, 2.2))
    checkpoints = states(run)
    before = max(step for step in checkpoints if step <= onset - 500)
    for place, step, words in ((0, before, "before"), (1, max(checkpoints), "after")):
        axes = figure.add_subplot(columns[place])
        axes.imshow(tiles(checkpoints[step]), interpolation="nearest")
        axes.set_title(f"{words}: step {step:,}", fontsize=11)
        axes.axis("off")

    axes = figure.add_subplot(columns[2])
    frame = spectra.load(run)["spectra"]
    generator = frame[frame["network"] == "G"]
    linear = generator[generator["kind"] == "linear"]
    first = linear.sort_values("depth")["layer"].iloc[0]
    for layer, rows in generator.groupby("layer"):
        chosen = layer == first
        axes.plot(
            rows["step"], rows["sigma0"], color=BLUE if chosen else "0.8", lw=1.8 if chosen else 0.8, zorder=2 + chosen
        )
    mark(axes, onset, alarm)
    axes.set_title("sigma_0 of G's layers (blue: first linear layer)", fontsize=11)

    axes = figure.add_subplot(columns[3])
    branch = f"digits-collapse-at-{before}"
    shown = (
        (run, "unchanged", BLACK),
        (runs / f"{branch}-seed-1", "unchanged, another seed", GREY),
        (runs / f"{branch}-lr-D-div2", "D's learning rate halved", ORANGE),
        (runs / f"{branch}-r1-1", "R1 penalty of strength 1", GREEN),
    )
    for path, words, color in shown:
        steps, fid = scalar(path, "eval/raw/fid")
        axes.plot(steps, fid, color=color, lw=1.8, label=words, alpha=0.9)
    axes.axvline(before, color="0.5", lw=1)
    axes.annotate(f"branched at {before:,}", (before, 1), (-5, -8), xycoords=("data", "axes fraction"),
                  textcoords="offset points", ha="right", va="top", fontsize=9, color="0.35")  # fmt: skip
    axes.set_yscale("log")
    axes.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
    axes.minorticks_off()
    axes.set_title("FID of branches with one thing changed (lower is better)", fontsize=11)
    axes.legend(loc="lower left", fontsize=9, frameon=False)
    for axes in figure.axes[2:]:
        axes.set_xlabel("step", fontsize=9)
        axes.tick_params(labelsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out / "front.png", dpi=110)
    with Image.open(out / "front.png") as picture:
        save(picture, out / "front.png")


def mark(axes: Axes, onset: int, alarm: int) -> None:
    """Where the collapse began, and where it was found."""
    axes.axvspan(onset, alarm, color=ORANGE, alpha=0.15, lw=0)
    axes.axvline(alarm, color=ORANGE, lw=1.5)
    top = axes.get_ylim()[1]
    axes.text(alarm + 60, top, "alarm", color=ORANGE, fontsize=9, va="top")
    axes.text(onset - 60, top, "collapse begins", color=ORANGE, fontsize=9, va="top", ha="right")


def samples(runs: Path, out: Path) -> None:
    """The generator's half of the default run's grids, side by side, and its average at the end."""
    folder = runs / "digits" / "samples"
    halves = [half(folder / f"step-{step:08d}.png", right=False) for step in (0, 100, 300, 2000)]
    halves.append(half(folder / "step-00002000.png", right=True))
    together = Image.new("RGB", (sum(one.width for one in halves), halves[0].height), "white")
    left = 0
    for one in halves:
        together.paste(one, (left, 0))
        left += one.width
    small = together.resize((together.width * 2 // 3, together.height * 2 // 3), Image.Resampling.LANCZOS)
    save(small, out / "samples.png")
    with Image.open(runs / "digits" / "figures" / "figure-20.png") as picture:
        save(picture, out / "spectra.png")


def save(picture: Image.Image, path: Path) -> None:
    """With few colours, which is a third of the size."""
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def half(path: Path, *, right: bool) -> Image.Image:
    """Of a grid's two panels the left or the right one."""
    grid = Image.open(path).convert("RGB")
    middle = grid.width * 427 // 836
    return grid.crop((middle, 0, grid.width, grid.height) if right else (0, 0, middle, grid.height))


if __name__ == "__main__":
    runs, out = map(Path, sys.argv[1:])
    front(runs, out)
    if (runs / "digits").exists():
        samples(runs, out)

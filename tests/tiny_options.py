"""Options of the smallest run of `biggan-train`."""

from __future__ import annotations

TINY = [
    "--model.resolution=8",
    "--model.ch_G=4",
    "--model.ch_D=4",
    "--train.batch=8",
    "--samples.every=0",
    "--tensorboard.every=0",
]

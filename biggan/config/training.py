"""The configuration of a training run: data, updates, optimizers, average, checkpoints, and what is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import Section, setting


@dataclass(frozen=True)
class DataConfig(Section):
    """Where images come from."""

    source: str = setting("digits")
    """The kind of data at `path`: 1,797 digits that come with the package, a folder whose sub-folders are classes,
    parquet files, what `biggan-data prepare` packed, or whichever of these is there."""
    path: str | None = setting(None, numbers=False)
    """Place of the source's files, or a directory made by `biggan-data prepare`; not used by digits."""
    flip: bool = setting(False)
    """Mirror each training image from left to right with probability one half each time it is drawn."""
    top_classes: int | None = setting(None, low=1)
    """Keep only the N most common classes (Section 5.2), counted over both splits; null: all classes."""
    val_fraction: float = setting(0.1, low=0.001, high=0.5)
    """Share of each class held out for validation where the data has no such split; the same images in all runs."""
    train_per_class: int | None = setting(None, low=1)
    """Use only the first N training images of each class; null: all. Few images are memorized."""
    workers: int = setting(0, numbers=False, low=0)
    """Data-loader processes, at most one per core; 0: load in the main process. Any number gives the same images."""


@dataclass(frozen=True)
class TrainConfig(Section):
    """The updates of both networks."""

    batch: int = setting(32, low=1)
    """Global batch size, in images (Table 1: 256 to 2048)."""
    d_steps: int = setting(1, low=1)
    """D updates for each G update (Appendix C: 2)."""
    accumulate: int = setting(1, low=1)
    """Micro-batches an update is cut into; must divide the batch. G's BatchNorm then sees one micro-batch at a time."""
    recompute: bool = setting(False, numbers=False)
    """Compute each block again in the backward pass instead of keeping its inside: less memory, same bits."""
    freeze: Literal["none", "G", "D"] = setting("none")
    """Keep one network a constant function while the other trains (Appendix G)."""
    on_non_finite: Literal["continue", "stop"] = setting("continue", numbers=False)
    """What to do once a NaN or infinite loss or gradient norm has been recorded."""


@dataclass(frozen=True)
class AdamConfig(Section):
    """One network's Adam (Appendix C), and gradient clipping before it (Appendix H)."""

    lr: float = setting(2e-4, low=0.0)
    """Learning rate, constant."""
    beta1: float = setting(0.0, low=0.0, high=0.9999999)
    """Decay of the first moment."""
    beta2: float = setting(0.999, low=0.0, high=0.9999999)
    """Decay of the second moment."""
    eps: float = setting(1e-8, low=0.0)
    """Added to the root of the second moment."""
    clip_global: float | None = setting(None, low=0.0)
    """Scale the network's gradient down to this norm where it is longer; null: as it is."""
    clip_tensor: float | None = setting(None, low=0.0)
    """Scale each tensor's gradient down to this norm where it is longer, before `clip_global`; null: as it is."""


@dataclass(frozen=True)
class OptimConfig(Section):
    """The two optimizers."""

    G: AdamConfig = dataclasses.field(default_factory=lambda: AdamConfig(lr=5e-5))
    """G's Adam."""
    D: AdamConfig = dataclasses.field(default_factory=lambda: AdamConfig(lr=2e-4))
    """D's Adam."""


@dataclass(frozen=True)
class EMAConfig(Section):
    """The exponential moving average of G's parameters, used for sampling."""

    decay: float = setting(0.9999, low=0.0, high=1.0)
    """Weight of the past at each G step (Appendix C: 0.9999)."""
    start: int = setting(1000, low=0)
    """G steps during which the average is a plain copy of G."""


@dataclass(frozen=True)
class CheckpointConfig(Section):
    """When the whole state is saved, and which files are kept. Intervals are in G steps; 0 turns one off."""

    every: int = setting(500, numbers=False, low=0)
    """Save every N steps."""
    keep: int = setting(3, numbers=False, low=1)
    """Keep the newest N of these."""
    permanent_every: int = setting(0, numbers=False, low=0)
    """Save every N steps, and keep for good."""
    ring_every: int = setting(0, numbers=False, low=0)
    """Save to the dense ring every N steps; an alarm freezes a copy of the ring."""
    ring_keep: int = setting(10, numbers=False, low=1)
    """Length of the ring, in checkpoints."""
    best: bool = setting(True, numbers=False)
    """Keep the state whose averaged weights have the lowest FID so far, as best.safetensors (needs eval.every)."""


@dataclass(frozen=True)
class SampleConfig(Section):
    """Sample grids, classes by rows, always from the same latents."""

    every: int = setting(500, numbers=False, low=0)
    """Draw a grid every N steps; 0: none."""
    per_class: int = setting(8, numbers=False, low=1)
    """Images a class, in one row."""
    classes: int = setting(10, numbers=False, low=1)
    """Show the first N classes."""
    standing_passes: int = setting(16, numbers=False, low=1)
    """Forward passes for BatchNorm's standing statistics (Appendix C.1: 100 for final samples)."""


@dataclass(frozen=True)
class EvalConfig(Section):
    """Scores while training, of raw and averaged weights, always of the same latents."""

    every: int = setting(0, numbers=False, low=0)
    """Evaluate every N steps; 0: never."""
    samples: int = setting(1000, numbers=False, low=1000)
    """Generated images an evaluation."""
    features: str = setting("classifier", numbers=False)
    """`classifier` (trained on the data, once), `inception`, or package.module:Name of a torch.nn.Module."""
    weights: str | None = setting(None, numbers=False)
    """The weights file of the features `inception`; null: in the cache folder (BIGGAN_CACHE, or ~/.cache/biggan)."""
    reference: Literal["train", "val"] = setting("train", numbers=False)
    """Real images to compare with: the whole training split, whatever part is trained on, or the validation split."""
    standing_passes: int = setting(2, numbers=False, low=1)
    """Forward passes of 64 images for BatchNorm's standing statistics (Appendix C.1: 100 for final scores)."""


@dataclass(frozen=True)
class TensorBoardConfig(Section):
    """The TensorBoard view, a thinned copy of the record."""

    every: int = setting(10, numbers=False, low=0)
    """Write scalars every N steps; 0: no TensorBoard files."""


@dataclass(frozen=True)
class SpectraConfig(Section):
    """What `--monitor spectra` measures."""

    every: int = setting(20, numbers=False, low=1)
    """Measure every N steps."""
    top_k: int = setting(3, numbers=False, low=1)
    """Singular values a weight matrix (Section 4.1: three)."""
    probes: list[str] | None = setting(None, numbers=False)
    """What to measure; null: everything."""


@dataclass(frozen=True)
class DiscriminatorViewConfig(Section):
    """D's accuracies and input gradient on fixed images, measured in training (Section 4.2)."""

    every: int = setting(1000, numbers=False, low=0)
    """Measure every N steps; 0: never."""
    images: int = setting(256, numbers=False, low=1)
    """Images of each kind: training, validation (at most all there are) and generated."""

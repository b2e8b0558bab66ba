"""The configuration of a training run: data, updates, optimizers, average, checkpoints, and what is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import RangeError, Section, setting


@dataclass(frozen=True)
class DataConfig(Section):
    """Where images come from."""

    source: str = setting("digits")
    """The kind of data at `path`. digits: 1,797 digits that come with the package; folder: a folder with one
    sub-folder per class; parquet: parquet files; packed: the output of `biggan-data prepare`; auto: detect which of
    these it is."""
    path: str | None = setting(None, numbers=False)
    """The source's files, or a directory made by `biggan-data prepare`; the digits need no path."""
    columns: dict[str, str] = setting(dict)
    """Of parquet files: the columns that hold the images and the labels, such as image=photo,label=species (in YAML a
    mapping), where they are not called image and label; label= for none: the images are one class."""
    flip: bool = setting(False)
    """Mirror each training image from left to right with probability 1/2, drawn again each time the image is used."""
    top_classes: int | None = setting(None, low=1)
    """Keep only the N most common classes (Section 5.2), counted over both splits; null: all classes."""
    val_fraction: float = setting(0.1, low=0.001, high=0.5)
    """Share of each class held out for validation if the data has no such split; the same images in every run."""
    no_validation: bool = setting(False)
    """Hold no image out: all are for training. What needs validation images (D's accuracy on them, what D memorizes) is
    then not measured."""
    train_per_class: int | None = setting(None, low=1)
    """Use only the first N training images of each class; null: all. D memorizes small training sets."""
    check: Literal["headers", "none"] = setting("headers", numbers=False)
    """headers: read every image file's header when a run starts, and name those that are no images (only files that
    were changed since; of parquet files and prepared data nothing); none: find them when they are drawn."""
    on_broken: Literal["stop", "skip"] = setting("stop", numbers=False)
    """What to do at a broken image. stop: save the state of the step before, and end; skip: take the next readable
    image of its class, and record the event `broken_image`."""
    max_pixels: int | None = setting(None, numbers=False, low=1)
    """Take an image of more pixels (width times height) for a broken one; null: 178,956,970, Pillow's limit against
    small files that decode to more than the memory."""
    workers: int = setting(0, numbers=False, low=0)
    """Data-loader processes, at most one per core; 0: load in the main process. Any number gives the same images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, column in self.columns.items():
            if name not in ("image", "label") or (name == "image" and not column):
                raise RangeError(
                    f"columns has {name}={column}, expected image=NAME, label=NAME or both (label= for no labels)."
                )


@dataclass(frozen=True)
class TrainConfig(Section):
    """The updates of both networks."""

    batch: int = setting(32, low=1)
    """Global batch size, in images (Table 1: 256 to 2048)."""
    d_steps: int = setting(1, low=1)
    """D updates for each G update (Appendix C: 2)."""
    accumulate: int = setting(1, low=1)
    """Micro-batches per update; must divide the batch. G's BatchNorm statistics are then those of one micro-batch."""
    recompute: bool = setting(False, numbers=False)
    """Recompute each block in the backward pass instead of storing its activations: less memory, same bits."""
    freeze: Literal["none", "G", "D"] = setting("none")
    """Freeze one network, as a constant function, while the other trains (Appendix G)."""
    on_non_finite: Literal["continue", "stop"] = setting("continue", numbers=False)
    """What to do after a NaN or infinite loss or gradient norm has been recorded."""
    on_alarm: Literal["continue", "stop"] = setting("continue", numbers=False)
    """What to do after an alarm of one of `alarm_causes`; stop: finish the step, save the state, and end. A resumed run
    goes on, and stops at the next alarm only."""
    alarm_causes: list[str] = setting(lambda: ["collapse"], numbers=False)
    """The causes of alarms that `on_alarm` stops at"""


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
    """Scale the network's gradient down to this norm if its norm is larger; null: no clipping."""
    clip_tensor: float | None = setting(None, low=0.0)
    """Scale each tensor's gradient down to this norm if its norm is larger, before `clip_global`; null: no clipping."""


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
    """When the whole state is saved, and which files are kept. Intervals are in G steps; an interval of 0 is off."""

    every: int = setting(500, numbers=False, low=0)
    """Save every N steps."""
    keep: int = setting(3, numbers=False, low=1)
    """Keep the newest N of the checkpoints saved by `every`."""
    permanent_every: int = setting(0, numbers=False, low=0)
    """Save every N steps, and never delete these checkpoints."""
    ring_every: int = setting(0, numbers=False, low=0)
    """Save to the ring (the most recent, closely spaced checkpoints) every N steps. An alarm keeps a copy of the
    ring."""
    ring_keep: int = setting(10, numbers=False, low=1)
    """Number of checkpoints in the ring; the oldest is replaced."""
    best: bool = setting(True, numbers=False)
    """Keep the state whose averaged weights have the lowest FID so far, as best.safetensors (needs eval.every)."""


@dataclass(frozen=True)
class SampleConfig(Section):
    """Sample grids: one row per class, always from the same latents."""

    every: int = setting(500, numbers=False, low=0)
    """Draw a grid every N steps, and at the end; 0: no grids."""
    early: list[int] = setting(lambda: [0, 100], numbers=False, low=0)
    """Further steps with a grid, for a first look. 0: the untrained networks; []: none."""
    per_class: int = setting(8, numbers=False, low=1)
    """Images per class, in one row."""
    classes: int = setting(10, numbers=False, low=1)
    """Show the first N classes."""
    standing_passes: int = setting(16, numbers=False, low=1)
    """Forward passes for BatchNorm's standing statistics (Appendix C.1: 100 for final samples)."""


@dataclass(frozen=True)
class EvalConfig(Section):
    """Scores during training, of raw and averaged weights, always with the same latents."""

    every: int = setting(0, numbers=False, low=0)
    """Evaluate every N steps; 0: never."""
    samples: int = setting(1000, numbers=False, low=2)
    """Generated images per evaluation: more than the features have dimensions (classifier: 64, or 256 for more than 100
    classes), or 1,000 and more. With few the FID is too high and the IS too low: compare scores of equal numbers
    only."""
    features: str = setting("classifier", numbers=False)
    """The feature network: `classifier` (trained once, on the data), `inception`, or package.module:Name of a
    torch.nn.Module."""
    weights: str | None = setting(None, numbers=False)
    """The weights file of the `inception` features; null: look in the cache folder (BIGGAN_CACHE, or
    ~/.cache/biggan)."""
    reference: Literal["train", "val"] = setting("train", numbers=False)
    """Real images to compare with: the validation split, or the whole training split (even if only a part is trained
    on)."""
    standing_passes: int = setting(2, numbers=False, low=1)
    """Forward passes of 64 images for BatchNorm's standing statistics (Appendix C.1: 100 for final scores)."""


@dataclass(frozen=True)
class TensorBoardConfig(Section):
    """The TensorBoard files, a thinned copy of the record."""

    every: int = setting(10, numbers=False, low=0)
    """Write scalars every N steps; 0: no TensorBoard files."""


@dataclass(frozen=True)
class SpectraConfig(Section):
    """What `--monitor spectra` measures."""

    every: int = setting(20, numbers=False, low=1)
    """Measure every N steps."""
    top_k: int = setting(3, numbers=False, low=1)
    """Singular values per weight matrix (Section 4.1: three)."""
    probes: list[str] | None = setting(None, numbers=False)
    """What to measure; null: everything."""
    guarantee: Literal["certified", "tracked"] = setting("certified", numbers=False)
    """certified: each singular value is right to 1e-5 of sigma_0; tracked: they are followed from measurement to
    measurement, at a fraction of the cost, and certified every `certify_every` steps."""
    certify_every: int = setting(100, numbers=False, low=1)
    """With tracked: certify at measured steps that N divides."""


@dataclass(frozen=True)
class DiscriminatorViewConfig(Section):
    """D's accuracies and input gradient on fixed images, measured during training (Section 4.2)."""

    every: int = setting(1000, numbers=False, low=0)
    """Measure every N steps; 0: never."""
    images: int = setting(256, numbers=False, low=1)
    """Images of each kind: training, validation (all of them if there are fewer) and generated."""

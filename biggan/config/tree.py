"""The configuration: one frozen dataclass a concern, every field with its meaning, unit and place in the paper.

The networks' fields stand in config_model.py, those of the losses, penalties and latents in config_objective.py,
those of speed in config_speed.py.

Fields are of two kinds. Those that decide the numbers may not change when a run is resumed (unless asked for);
those declared with `numbers=False` (where things go, how often they are saved) may. Nothing here imports torch, so
that `--help` and the checks of a configuration are instant.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from biggan.config.fields import RangeError, Section, setting
from biggan.config.model import ClampConfig, ModelConfig
from biggan.config.objective import LatentConfig, LossConfig, RegularizerConfig, SigmaConfig
from biggan.config.speed import SpeedConfig
from biggan.errors import UserError, check_known

__all__ = [
    "AdamConfig",
    "CheckpointConfig",
    "ClampConfig",
    "Config",
    "DataConfig",
    "DiscriminatorViewConfig",
    "EMAConfig",
    "EvalConfig",
    "LatentConfig",
    "LossConfig",
    "ModelConfig",
    "OptimConfig",
    "RangeError",
    "RegularizerConfig",
    "SampleConfig",
    "Section",
    "SigmaConfig",
    "SpectraConfig",
    "SpeedConfig",
    "TensorBoardConfig",
    "TrainConfig",
    "differences",
    "fields",
    "flatten",
    "from_dict",
    "setting",
    "to_dict",
]


@dataclass(frozen=True)
class DataConfig(Section):
    """Where images come from."""

    source: str = setting("digits")
    """`digits` (1,797 come with the package), `folder` (sub-folders are classes), `parquet`, `packed`, or `auto`."""
    path: str | None = setting(None, numbers=False)
    """Where the source's files lie; for every source but digits also a directory that `biggan-data prepare` made."""
    flip: bool = setting(False)
    """Mirror each training image from left to right with probability one half each time it is drawn."""
    top_classes: int | None = setting(None, low=1)
    """Keep the K most common classes alone (Section 5.2), counted over both splits together; none: all classes."""
    val_fraction: float = setting(0.1, low=0.001, high=0.5)
    """About this share of each class is held out for validation where the data has no such split, same in all runs."""
    train_per_class: int | None = setting(None, low=1)
    """Use only the first so many training images of each class; none: all (memorization needs few)."""
    workers: int = setting(0, numbers=False, low=0)
    """Data-loader processes, one a core at most; 0 loads in the main process. Any number gives the same images."""


@dataclass(frozen=True)
class TrainConfig(Section):
    """The updater."""

    batch: int = setting(32, low=1)
    """Global batch size, in images (Table 1: 256 to 2048)."""
    d_steps: int = setting(1, low=1)
    """D updates for each G update (Appendix C: 2)."""
    accumulate: int = setting(1, low=1)
    """Micro-batches an update is cut into; must divide the batch. G's BatchNorm then sees one micro-batch at a time."""
    recompute: bool = setting(False, numbers=False)
    """Compute the inside of every block again in the backward pass instead of keeping it: less memory, same bits."""
    freeze: Literal["none", "G", "D"] = setting("none")
    """Hold one network still, as a constant function, while the other trains (Appendix G)."""
    on_non_finite: Literal["continue", "stop"] = setting("continue", numbers=False)
    """What to do after a loss or a gradient norm that is NaN or infinite has been recorded."""


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
    """Scale the network's gradient down to this norm where it is longer; none: as it is."""
    clip_tensor: float | None = setting(None, low=0.0)
    """Scale each tensor's gradient down to this norm where it is longer, before `clip_global`; none: as it is."""


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
    """Save every so many steps."""
    keep: int = setting(3, numbers=False, low=1)
    """Keep the newest so many of these."""
    permanent_every: int = setting(0, numbers=False, low=0)
    """Save every so many steps, and keep for good."""
    ring_every: int = setting(0, numbers=False, low=0)
    """Save to the dense ring every so many steps; an alarm freezes a copy of the ring."""
    ring_keep: int = setting(10, numbers=False, low=1)
    """Length of the ring, in checkpoints."""
    best: bool = setting(True, numbers=False)
    """Keep the state whose averaged weights have the lowest FID so far, as best.safetensors (needs eval.every)."""


@dataclass(frozen=True)
class SampleConfig(Section):
    """Sample grids, classes by rows, always from the same latents."""

    every: int = setting(500, numbers=False, low=0)
    """Draw a grid every so many steps; 0: none."""
    per_class: int = setting(8, numbers=False, low=1)
    """Images a class, in one row."""
    classes: int = setting(10, numbers=False, low=1)
    """Show the first so many classes."""
    standing_passes: int = setting(16, numbers=False, low=1)
    """Forward passes for BatchNorm's standing statistics (Appendix C.1: 100 for final samples)."""


@dataclass(frozen=True)
class EvalConfig(Section):
    """Scores while training, of raw and averaged weights, always from the same latents."""

    every: int = setting(0, numbers=False, low=0)
    """Evaluate every so many steps; 0: never."""
    samples: int = setting(1000, numbers=False, low=1000)
    """Generated images an evaluation."""
    features: str = setting("classifier", numbers=False)
    """`classifier` (trained on the data, once), `inception`, or package.module:Name of a torch.nn.Module."""
    weights: str | None = setting(None, numbers=False)
    """The weights file of the features `inception`; none: in the cache folder (BIGGAN_CACHE, or ~/.cache/biggan)."""
    reference: Literal["train", "val"] = setting("train", numbers=False)
    """The real images to compare with: the complete training split, whatever subset is trained on, or the other."""
    standing_passes: int = setting(2, numbers=False, low=1)
    """Forward passes of 64 images for BatchNorm's standing statistics (Appendix C.1: 100 for final scores)."""


@dataclass(frozen=True)
class TensorBoardConfig(Section):
    """The TensorBoard view, a thinned copy of the record."""

    every: int = setting(10, numbers=False, low=0)
    """Write scalars every so many steps; 0: no TensorBoard files."""


@dataclass(frozen=True)
class SpectraConfig(Section):
    """What `--monitor spectra` measures."""

    every: int = setting(20, numbers=False, low=1)
    """Measure every so many steps."""
    top_k: int = setting(3, numbers=False, low=1)
    """Singular values a weight matrix (Section 4.1: three)."""
    probes: list[str] | None = setting(None, numbers=False)
    """What to measure: singular_values, frobenius, sigma_estimate, turns, top_shares, rotation, gradient_norms,
    gradient_variance, update_sizes, class_norms, and what is added to `spectra.PROBES`; null: all of them."""


@dataclass(frozen=True)
class DiscriminatorViewConfig(Section):
    """What D is asked in training about fixed images: its accuracies and its input gradient (Section 4.2)."""

    every: int = setting(1000, numbers=False, low=0)
    """Ask every so many steps; 0: never."""
    images: int = setting(256, numbers=False, low=1)
    """Training images, validation images (at most all there are) and generated images, so many of each."""


@dataclass(frozen=True)
class Config(Section):
    """A whole run."""

    steps: int = setting(2000, numbers=False, low=1)
    """Total number of G steps of the run, also when it is resumed."""
    seed: int = setting(0, low=0)
    """Every random draw is a function of this seed, a purpose and the step."""
    out: str | None = setting(None, numbers=False)
    """The run directory; none: runs/PRESET, or the first free of runs/PRESET-2, runs/PRESET-3 and so on."""
    device: Literal["auto", "cpu", "cuda"] = setting("auto")
    """Where to train; auto: a GPU if there is one."""
    threads: int = setting(1, low=1)
    """CPU threads within an operation. Part of the run: another number gives other bits."""
    deterministic: bool = setting(True)
    """Only deterministic algorithms on a GPU, so that a run repeats bit for bit."""
    monitor: Literal["spectra", "none"] = setting("spectra", numbers=False)
    """Measure every weight's top singular values while training, or not; the run's bits are the same."""
    model: ModelConfig = setting(ModelConfig)
    data: DataConfig = setting(DataConfig)
    train: TrainConfig = setting(TrainConfig)
    loss: LossConfig = setting(LossConfig)
    latents: LatentConfig = setting(LatentConfig)
    optim: OptimConfig = setting(OptimConfig)
    regularizers: RegularizerConfig = setting(RegularizerConfig)
    ema: EMAConfig = setting(EMAConfig)
    speed: SpeedConfig = setting(SpeedConfig)
    checkpoint: CheckpointConfig = setting(CheckpointConfig)
    samples: SampleConfig = setting(SampleConfig)
    eval: EvalConfig = setting(EvalConfig)
    tensorboard: TensorBoardConfig = setting(TensorBoardConfig)
    spectra: SpectraConfig = setting(SpectraConfig)
    discriminator_view: DiscriminatorViewConfig = setting(DiscriminatorViewConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        scaled = self.regularizers.sigma_G.strength > 0 or (
            self.model.clamp_G.on and self.model.clamp_G.mode == "project"
        )
        if self.model.norm_G == "weight" and scaled:
            raise UserError(
                "model.norm_G is weight, and regularizers.sigma_G or model.clamp_G in mode project are on: they act on "
                "raw weights, whose scale WeightNorm takes away. Use model.clamp_G in mode forward, or another norm_G."
            )
        if self.train.batch % self.train.accumulate:
            raise UserError(
                f"train.batch is {self.train.batch} and train.accumulate is {self.train.accumulate}: the batch must "
                f"be cut into micro-batches of equal size. Give a train.accumulate that divides {self.train.batch}."
            )
        if self.speed.compile and self.train.recompute:
            raise UserError(
                "speed.compile and train.recompute are on: torch.compile decides by itself what is computed again, and "
                "cannot compile blocks that do so on their own. Turn one of them off."
            )
        if self.regularizers.embedding_decay and not self.model.shared_embedding:
            raise UserError(
                "regularizers.embedding_decay is weight decay on the shared class embedding, and "
                "model.shared_embedding is off. Leave one of them away."
            )


hints_of = functools.cache(get_type_hints)


def to_dict(config: Section) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, as written to config.yaml and into checkpoints."""
    return dataclasses.asdict(config)  # type: ignore[call-overload]


def from_dict(values: Mapping[str, Any], kind: type = Config, prefix: str = "") -> Any:
    """The configuration from nested dictionaries such as `to_dict` makes; missing fields take their defaults.

    Raises `UserError` for an unknown name (with the nearest right one) and for a value out of its range.
    """
    hints = hints_of(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    arguments = {}
    for name, value in values.items():
        check_known(name, known, f"configuration field of {prefix or 'the run'}:")
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(value, hints[name], f"{prefix}{name}.")
        arguments[name] = value
    try:
        return kind(**arguments)
    except RangeError as error:
        raise UserError(f"{prefix}{error}") from error


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one dictionary with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dictionaries that `flatten` came from."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, leaf = name.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[leaf] = value
    return nested


def fields(kind: type = Config, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field]]:
    """Every leaf field of the configuration, with its dotted name."""
    hints = hints_of(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from fields(hints[field.name], f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", field


def differences(old: Config, new: Config, *, numbers_only: bool = False) -> dict[str, tuple[Any, Any]]:
    """What differs between two configurations: dotted name -> (old value, new value)."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return {
        name: (before[name], after[name])
        for name, field in fields()
        if before[name] != after[name] and (field.metadata.get("numbers", True) or not numbers_only)
    }

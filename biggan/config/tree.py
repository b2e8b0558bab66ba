"""The whole configuration, and how it is read, written, flattened and compared.

Fields are of two kinds. Those that decide the numbers may not change when a run is resumed (unless asked for);
those declared with `numbers=False` (where things go, how often they are saved) may.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from biggan.config.fields import RangeError, Section, has_type, hints_of, setting
from biggan.config.model import ModelConfig
from biggan.config.objective import LatentConfig, LossConfig, RegularizerConfig
from biggan.config.speed import SpeedConfig
from biggan.config.training import (
    CheckpointConfig,
    DataConfig,
    DiscriminatorViewConfig,
    EMAConfig,
    EvalConfig,
    OptimConfig,
    SampleConfig,
    SpectraConfig,
    TensorBoardConfig,
    TrainConfig,
)
from biggan.errors import UserError, check_known


@dataclass(frozen=True)
class Config(Section):
    """A whole run."""

    steps: int = setting(2000, numbers=False, low=1)
    """Total number of G steps of the run; a resumed run counts the steps it already has."""
    seed: int = setting(0, low=0)
    """Every random draw is a function of this seed, a purpose and the step."""
    out: str | None = setting(None, numbers=False)
    """The run directory; null: runs/PRESET, or if that exists, the first free name of runs/PRESET-2, runs/PRESET-3 and
    so on."""
    device: Literal["auto", "cpu", "cuda"] = setting("auto")
    """Where to train; auto: a CUDA GPU if there is one. Apple's GPUs (mps) have no float64 and are not supported."""
    threads: int = setting(1, low=1)
    """CPU threads within an operation. A different number gives different bits."""
    deterministic: bool = setting(True)
    """Use only deterministic algorithms on a GPU, so that a run repeats bit for bit."""
    monitor: Literal["spectra", "none"] = setting("spectra", numbers=False)
    """Whether to measure the top singular values of every weight. The training is the same either way, bit for bit."""
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
                "model.norm_G is weight, but regularizers.sigma_G or model.clamp_G in mode project acts on raw "
                "weights, whose "
                "scale has no effect under WeightNorm. Use model.clamp_G in mode forward, or another norm_G."
            )
        if self.train.batch % self.train.accumulate:
            raise UserError(
                f"train.batch is {self.train.batch} and train.accumulate is {self.train.accumulate}, but "
                "micro-batches must "
                f"have equal size. Choose a train.accumulate that divides {self.train.batch}."
            )
        if self.speed.compile and self.train.recompute:
            raise UserError(
                "speed.compile and train.recompute are both on, but torch.compile decides by itself what is "
                "recomputed. "
                "Turn one of them off."
            )
        if self.data.no_validation and self.eval.reference == "val":
            raise UserError(
                "eval.reference is val, but data.no_validation leaves no validation image. Give --eval.reference "
                "train, or --data.no_validation false."
            )
        if self.regularizers.embedding_decay and not self.model.shared_embedding:
            raise UserError(
                "regularizers.embedding_decay needs the shared class embedding, but model.shared_embedding is off. "
                "Change one "
                "of them."
            )


LEFT_TO_DATA = frozenset({"data.source", "model.classes"})
"""What the data decides where only its path is given."""

RENAMED = {
    "model.filter_G": "model.kernel_size_G",
    "model.filter_D": "model.kernel_size_D",
    "model.hidden_D": "model.conv1_width_D",
    "speed.merged_resampling": "speed.fused_resampling",
}
"""Earlier name of a field -> its name. Recorded configurations, files and command lines with the earlier one load."""


def to_dict(config: Section) -> dict[str, Any]:
    """The configuration as nested plain dictionaries, as written to config.yaml and into checkpoints."""
    # dataclasses.asdict takes three times as long, and comparing the changes of a plan makes thousands of these.
    kind: Any = type(config)
    values = ((name, getattr(config, name)) for name in hints_of(kind))
    return {
        name: to_dict(value)
        if isinstance(value, Section)
        else copy.deepcopy(value)
        if isinstance(value, (list, dict))
        else value
        for name, value in values
    }


def from_dict(values: Mapping[str, Any], kind: type = Config, prefix: str = "") -> Any:
    """The configuration from nested dictionaries such as `to_dict` makes.

    Missing fields take their defaults; fields may have their earlier names (`RENAMED`).

    Raises `UserError` for an unknown name (with the nearest right one), and for a value of another type or out of its
    range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{prefix.rstrip('.') or 'the configuration'} is {values!r:.60}, expected fields and values.")
    hints = hints_of(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    arguments: dict[str, Any] = {}
    for given, value in values.items():
        name = RENAMED.get(f"{prefix}{given}", str(given)).removeprefix(prefix)
        check_known(name, known, f"configuration field of {prefix or 'the run'}:")
        if name in arguments:
            raise UserError(f"{prefix}{name} is given twice, once under its earlier name. Omit one of them.")
        if dataclasses.is_dataclass(hints[name]):
            value = from_dict(value, hints[name], f"{prefix}{name}.")
        elif not has_type(value, hints[name]):
            wanted = getattr(hints[name], "__name__", hints[name])
            raise UserError(f"{prefix}{name} is {value!r:.60}, expected {wanted}.")
        arguments[name] = value
    try:
        return kind(**arguments)
    except RangeError as error:
        raise UserError(f"{prefix}{error}") from error


@functools.cache
def _mappings() -> frozenset[str]:
    """The fields whose values are mappings."""
    return frozenset(name for name, field in fields() if str(field.type).startswith("dict["))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one dictionary with dotted names. A field whose value is a mapping stays one entry."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and f"{prefix}{name}" not in _mappings():
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

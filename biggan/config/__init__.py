"""The configuration: one frozen dataclass per concern, every field with its meaning, unit and place in the paper.

Nothing here imports torch, so that `--help` and the checks of a configuration are instant.
"""

from biggan.config.fields import RangeError, Section, setting
from biggan.config.model import ClampConfig, ModelConfig
from biggan.config.objective import LatentConfig, LossConfig, RegularizerConfig, SigmaConfig
from biggan.config.speed import SpeedConfig
from biggan.config.training import (
    AdamConfig,
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
from biggan.config.tree import (
    LEFT_TO_DATA,
    RENAMED,
    Config,
    differences,
    fields,
    flatten,
    from_dict,
    to_dict,
    unflatten,
)

__all__ = [
    "LEFT_TO_DATA",
    "RENAMED",
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
    "unflatten",
]

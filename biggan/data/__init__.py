"""Images with labels, in a training and a validation split. A new source is one function in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable

from biggan.config import Config, DataConfig
from biggan.data.digits import load_digits
from biggan.data.images import ImageArray, Source
from biggan.data.loader import training_batches
from biggan.data.sampler import PositionalSampler
from biggan.errors import UserError, check_known

SOURCES: dict[str, Callable[[DataConfig, int], Source]] = {"digits": load_digits}


def open_source(config: Config) -> Source:
    """The data that the configuration names, at the model's resolution.

    Raises `UserError` for an unknown source, and where the model has another number of classes than the data.
    """
    check_known(config.data.source, SOURCES, "data.source")
    source = SOURCES[config.data.source](config.data, config.model.resolution)
    if len(source.classes) != config.model.classes:
        raise UserError(
            f"data.source {config.data.source} has {len(source.classes)} classes, and model.classes is "
            f"{config.model.classes}. Give --model.classes {len(source.classes)}, or other data."
        )
    return source


__all__ = ["SOURCES", "ImageArray", "PositionalSampler", "Source", "open_source", "training_batches"]

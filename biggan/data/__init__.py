"""Images with labels, in a training and a validation split."""

from biggan.data.images import ImageArray, Images, Position, Source
from biggan.data.loader import training_batches
from biggan.data.sampler import PositionalSampler
from biggan.data.sources.registry import SOURCES, open_source

__all__ = [
    "SOURCES",
    "ImageArray",
    "Images",
    "Position",
    "PositionalSampler",
    "Source",
    "open_source",
    "training_batches",
]

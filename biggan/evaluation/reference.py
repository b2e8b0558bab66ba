"""The real images that samples are compared with: their moments over all images, kept in the cache."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from biggan import rng
from biggan.config import Config
from biggan.data import decode
from biggan.data import images as images_module
from biggan.data.images import Images, Source
from biggan.data.sources.opening import arrange, open_data
from biggan.errors import UserError
from biggan.evaluation.features import cache, registry
from biggan.evaluation.features.registry import Embedded, FeatureNetwork, embed_images, join

MOST_KEPT = 10_000  # number of real images whose features are kept, for scores that compare single images
MOST_CLASS_BYTES = 2**30  # limit for the second moments of all classes; beyond it none are kept

SplitName = Literal["train", "val"]


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of outer products of features, float64: sums over parts of a set add up."""

    count: int
    total: Tensor
    """(F,)."""
    outer: Tensor
    """(F, F)."""

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """The moments of features (N, F)."""
        features = features.double()
        return cls(len(features), features.sum(dim=0), features.T @ features)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (F, F)."""
        mean = self.total / self.count
        return (self.outer - self.count * mean[:, None] * mean) / (self.count - 1)


@dataclass(frozen=True)
class Reference:
    """One split of real images in the features of one network."""

    split: SplitName
    moments: Moments
    subset: Embedded
    """At most 10,000 of them in random order, drawn once for all; all of them where there are fewer."""
    spreads: Tensor
    """(K,): the root of each class's unbiased variance, summed over features, over all images."""
    by_class: list[Moments] | None
    """Each class's moments; None where they would take more than 1 GiB."""
    own_classes: bool
    """Whether the network's classes are the data's."""

    @property
    def width(self) -> int:
        """F, the number of features."""
        return len(self.moments.total)


def open_complete_source(config: Config) -> Source:
    """The run's data with the complete training split, whatever subset of it the GAN is given, and unflipped."""
    data = dataclasses.replace(config.data, train_per_class=None, flip=False)
    return arrange(*open_data(data.source, data.path, config.model.resolution, data.columns), data)


def make_reference(
    network: FeatureNetwork, source: Source, split: SplitName = "train", device: str | torch.device = "cpu"
) -> Reference:
    """The reference of a split, from the cache or computed now.

    Raises `UserError` for a class without images, or with one alone.
    """
    images = source.train if split == "train" else source.val
    classes = len(source.classes)
    if not len(images):
        raise UserError(f"the data has no {split} images (data.no_validation). Give --reference train.")
    check_classes(images, source.classes, split)
    size = images.pixels([0]).shape[1]
    code = (sys.modules[__name__], registry, rng, decode, images_module)
    features = {"features": network.name, "digest": network.digest}
    sizes = {"images": len(images), "resolution": size, "classes": classes}
    entry = cache.cache_entry("reference", code, images.identity(), **features, **sizes)
    tensors = cache.load_cached(entry, lambda found: _is_sound(found, images, classes))
    if tensors is None:
        cache.check_cache(_bytes_needed(network, images, classes, device))  # before all images are embedded
        tensors = _measure(network, images, classes, device)
        cache.store_cached(entry, tensors)
    by_class = tensors.get("class_outer")
    return Reference(
        split=split,
        moments=Moments(int(tensors["count"]), tensors["total"], tensors["outer"]),
        subset=Embedded(tensors["features"], tensors.get("logits"), tensors["labels"]),
        spreads=tensors["spreads"],
        by_class=None
        if by_class is None
        else [
            Moments(int(n), total, outer)
            for n, total, outer in zip(tensors["class_count"], tensors["class_total"], by_class, strict=True)
        ],
        own_classes=network.own_classes,
    )


def _bytes_needed(network: FeatureNetwork, images: Images, classes: int, device: str | torch.device) -> int:
    """About the size of a reference, from the features of one image."""
    part = next(iter(embed_images(network, images.subset(np.arange(1)), device)))
    width, logits = part.features.shape[1], 0 if part.logits is None else part.logits.shape[1]
    by_class = classes * width * (width + 1)
    kept = min(len(images), MOST_KEPT) * (width + logits + 1)
    return 8 * (kept + width * (width + 1) + (by_class if 8 * by_class <= MOST_CLASS_BYTES else 0))


def _is_sound(found: Mapping[str, Tensor], images: Images, classes: int) -> bool:
    """Whether a kept reference can be one of these images: its shapes, its counts, its labels."""
    try:
        width, kept = len(found["total"]), min(len(images), MOST_KEPT)
        shapes = {"outer": (width, width), "features": (kept, width), "labels": (kept,), "spreads": (classes,)}
        counts = np.bincount(images.labels, minlength=classes)
        drawn = rng.generator(0, "reference/subset").permutation(len(images))[:MOST_KEPT]
        by_class = "class_outer" not in found or (
            found["class_outer"].shape == (classes, width, width)
            and found["class_total"].shape == (classes, width)
            and np.array_equal(found["class_count"].numpy(), counts)
        )
        return (
            all(tuple(found[name].shape) == shape for name, shape in shapes.items())
            and int(found["count"]) == len(images)
            and np.array_equal(found["labels"].numpy(), images.labels[drawn])
            and by_class
        )
    except (KeyError, ValueError, TypeError, RuntimeError):
        return False


def check_classes(images: Images, names: tuple[str, ...], split: str) -> None:
    """Raise `UserError` where a class has fewer than two images: it has no spread."""
    counts = np.bincount(images.labels, minlength=len(names))
    if few := [f"{names[c]} ({counts[c]})" for c in np.flatnonzero(counts < 2)]:
        raise UserError(
            f"the {split} split has fewer than two images of {len(few)} of its {len(names)} classes: "
            f"{', '.join(few[:5])}{' ...' if len(few) > 5 else ''}. Scores by class need two. To train without "
            f"scores: --eval.every 0. Else use the other split as reference, or data.top_classes."
        )


def _measure(network: FeatureNetwork, images: Images, classes: int, device: str | torch.device) -> dict[str, Tensor]:
    drawn = torch.from_numpy(rng.generator(0, "reference/subset").permutation(len(images))[:MOST_KEPT])
    kept = torch.zeros(len(images), dtype=torch.bool)
    kept[drawn] = True
    moments: Moments | None = None
    parts: list[Embedded] = []
    sums: dict[str, Tensor] = {}
    first = 0
    for part in embed_images(network, images, device):
        moments = Moments.of(part.features) if moments is None else moments + Moments.of(part.features)
        if not sums:
            width = part.features.shape[1]
            sums = {"count": torch.zeros(classes).double(), "total": torch.zeros(classes, width).double()}
            sums["square"] = torch.zeros(classes).double()
            if classes * width * width * 8 <= MOST_CLASS_BYTES:
                sums["outer"] = torch.zeros(classes, width, width).double()
        _add_by_class(sums, part)
        parts.append(part.take(kept[first : first + len(part)]))
        first += len(part)
    assert moments is not None
    means = sums["total"] / sums["count"][:, None]
    subset = join(parts).take(drawn.argsort().argsort())  # as drawn: the first of them are a fair part
    found = {
        "count": torch.tensor(moments.count),
        "total": moments.total,
        "outer": moments.outer,
        "features": subset.features,
        "labels": subset.labels,
        "spreads": _roots(sums["square"] - sums["count"] * means.square().sum(dim=1), sums["count"] - 1),
    }
    if subset.logits is not None:
        found["logits"] = subset.logits
    if "outer" in sums:
        found |= {"class_count": sums["count"], "class_total": sums["total"], "class_outer": sums["outer"]}
    return found


def _roots(squares: Tensor, degrees: Tensor) -> Tensor:
    return (squares / degrees).clamp(min=0).sqrt()


def _add_by_class(sums: dict[str, Tensor], part: Embedded) -> None:
    sums["count"] += torch.bincount(part.labels, minlength=len(sums["count"]))
    sums["total"].index_add_(0, part.labels, part.features)
    sums["square"].index_add_(0, part.labels, part.features.square().sum(dim=1))
    if "outer" in sums:
        for c in part.labels.unique().tolist():
            own = part.features[part.labels == c]
            sums["outer"][c] += own.T @ own

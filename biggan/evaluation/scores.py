"""The scores of a set of images against real ones, in the features of one network. A new one is an entry in `SCORES`.

FID and KID are torchmetrics', as is the IS of a multiple of ten samples. The same images always give the same numbers:
the permutations that IS and KID draw come from a seed of their own, and no global generator is moved. Everything is
float64.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from biggan.evaluation.features.registry import Embedded
from biggan.evaluation.reference import Moments, Reference
from biggan.evaluation.registry import SCORES, Score

IS_PARTS, IS_PART, KID_SUBSETS, KID_SIZE = 10, 10, 20, 1000
PRECISION_K, DENSITY_K = 3, 5
_ROWS = 1000  # of a distance matrix at a time


class _Given(nn.Module):
    """Hands a metric the features that it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


@contextmanager
def _own_draws() -> Iterator[None]:
    """torchmetrics draws from the global generator: give it a known state inside, and put back what was.

    It also warns of things that are meant so (moments that were not its own `update`, features kept in memory).
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(0)
        yield


def frechet_distance(samples: Moments, real: Moments) -> float:
    """|m1 - m2|^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians of two sets' moments (Heusel et al., 2017)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_Given(len(real.total)), sync_on_compute=False)
    for name, moments in (("real", real), ("fake", samples)):  # the sums that the metric keeps
        setattr(metric, f"{name}_features_sum", moments.total)
        setattr(metric, f"{name}_features_cov_sum", moments.outer)
        setattr(metric, f"{name}_features_num_samples", torch.tensor(moments.count))
    metric.orig_dtype = torch.float64
    with _own_draws():
        return float(metric.compute())


def fid(samples: Embedded, real: Reference) -> float:
    """Frechet distance to all real images of the split."""
    return frechet_distance(Moments.of(samples.features), real.moments)


def is_parts(count: int) -> int:
    """The number of parts whose mean is the IS: ten, or with few samples fewer parts of ten samples each."""
    return min(IS_PARTS, count // IS_PART)


def inception_score(samples: Embedded, real: Reference | None = None) -> float:
    """exp E KL(p(y|x) || p(y)), the mean over `is_parts` parts (Salimans et al., 2016), in the network's own classes.

    The parts are as equal as can be, of 10 samples and more; NaN where there would be fewer than two.
    """
    assert samples.logits is not None
    parts = is_parts(len(samples))
    if parts < 2:
        return math.nan
    with _own_draws():
        logits = samples.logits[torch.randperm(len(samples))]
    found = [_divergence(part).exp() for part in logits.tensor_split(parts)]
    return float(torch.stack(found).mean())


def _divergence(logits: Tensor) -> Tensor:
    """E KL(p(y|x) || p(y)) of logits (N, K); a class of no probability adds nothing."""
    p, logs = logits.softmax(dim=1), logits.log_softmax(dim=1)
    return torch.where(p == 0, 0.0, p * (logs - p.mean(dim=0).log())).sum(dim=1).mean()


def kid_size(samples: int, real: int) -> int:
    """How many of each set a subset of KID holds: 1,000, or all of the smaller set."""
    return min(KID_SIZE, samples, real)


def kid(samples: Embedded, real: Reference) -> float:
    """Unbiased squared MMD under a cubic kernel (Binkowski et al., 2018), mean over 20 subsets of `kid_size`."""
    from torchmetrics.image.kid import KernelInceptionDistance

    size = kid_size(len(samples), len(real.subset))
    with _own_draws():
        metric = KernelInceptionDistance(
            feature=_Given(real.width), subsets=KID_SUBSETS, subset_size=size, sync_on_compute=False
        )
        metric.update(real.subset.features, real=True)
        metric.update(samples.features, real=False)
        return float(metric.compute()[0])


def precision(samples: Embedded, real: Reference) -> float:
    """Share of samples within the k-nearest-neighbour balls of the real images (Kynkaanniemi et al., 2019), k = 3."""
    return _share_inside(samples.features, real.subset.features, PRECISION_K)


def recall(samples: Embedded, real: Reference) -> float:
    """Share of real images within the k-nearest-neighbour balls of the samples, k = 3."""
    return _share_inside(real.subset.features, samples.features, PRECISION_K)


def density(samples: Embedded, real: Reference) -> float:
    """In how many of the real images' balls a sample lies, over k (Naeem et al., 2020), k = 5."""
    centres = real.subset.features
    radii = radii_of(centres, DENSITY_K)
    inside = sum(float((d < radii).sum()) for _, d in _distances(samples.features, centres))
    return inside / (DENSITY_K * len(samples))


def coverage(samples: Embedded, real: Reference) -> float:
    """Share of the real images whose ball holds a sample (Naeem et al., 2020), k = 5."""
    centres = real.subset.features
    radii = radii_of(centres, DENSITY_K)
    hit = torch.zeros(len(centres), dtype=torch.bool)
    for _, d in _distances(samples.features, centres):
        hit |= (d < radii).any(dim=0)
    return float(hit.double().mean())


def intra_fid(samples: Embedded, real: Reference) -> float:
    """Mean over the classes of the FID within each (Miyato and Koyama, 2018); NaN where one is not known."""
    assert real.by_class is not None
    return sum(class_fids(samples, real)) / len(real.by_class)


def class_fids(samples: Embedded, real: Reference) -> list[float]:
    """The FID of each class against that class's real images; NaN for fewer than two samples: no covariance."""
    assert real.by_class is not None
    found = (samples.features[samples.labels == c] for c in range(len(real.by_class)))
    return [
        frechet_distance(Moments.of(own), moments) if len(own) > 1 else math.nan
        for own, moments in zip(found, real.by_class, strict=True)
    ]


def spread_share(samples: Embedded, real: Reference) -> float:
    """Within-class spread as a share of the real images': the mean over the classes of the ratio of their spreads.

    A class's spread is the root of the unbiased variance, summed over features. 1: as varied as real images; near 0:
    one picture per class. Classes with fewer than two samples are ignored; NaN if no class is left.
    """
    return float(class_spread_shares(samples, real).nanmean())


def class_spread_shares(samples: Embedded, real: Reference) -> Tensor:
    """That share, each class's own (K,); NaN for fewer than two samples."""
    spreads = [_spread(samples.features[samples.labels == c]) for c in range(len(real.spreads))]
    return torch.stack(spreads) / real.spreads


def _spread(features: Tensor) -> Tensor:
    return features.var(dim=0).sum().sqrt() if len(features) > 1 else torch.tensor(torch.nan, dtype=features.dtype)


def class_accuracy(samples: Embedded, real: Reference | None = None) -> float:
    """Share of images that the classifier assigns to their intended class."""
    assert samples.logits is not None
    found = (samples.logits.argmax(dim=1) == samples.labels).double()
    return float(torch.where(samples.logits.isnan().any(dim=1), torch.nan, found).mean())


def class_leakage(samples: Embedded, classes: int) -> Tensor:
    """(classes, classes): the share of the images meant to be of class i that the classifier takes for j (Fig. 4d).

    The row of a class without an image, or with one whose logits are NaN, is NaN."""
    assert samples.logits is not None
    broken = samples.labels[samples.logits.isnan().any(dim=1)]
    pairs = samples.labels * classes + samples.logits.argmax(dim=1)
    counts = torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes).double()
    counts[broken] = torch.nan
    return counts / counts.sum(dim=1, keepdim=True)


def _share_inside(points: Tensor, centres: Tensor, k: int) -> float:
    radii = radii_of(centres, k)
    return sum(float((d <= radii).any(dim=1).sum()) for _, d in _distances(points, centres)) / len(points)


def radii_of(points: Tensor, k: int) -> Tensor:
    """(N,): each point's distance to its k-th nearest neighbour among the others, of which there must be k."""
    return torch.cat([d.kthvalue(k + 1, dim=1).values for _, d in _distances(points, points)])


def _distances(points: Tensor, others: Tensor) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, len(points), _ROWS):
        yield first, torch.cdist(points[first : first + _ROWS], others)


FID = Score(fid, -1, quick=True, least=(2, 2), few="too high")
IS = Score(inception_score, 1, quick=True, needs="logits", least=(2 * IS_PART, 0), few="too low")
KID = Score(kid, -1, least=(2, 2))
PRECISION = Score(precision, 1, least=(1, PRECISION_K + 1))
RECALL = Score(recall, 1, least=(PRECISION_K + 1, 1))
DENSITY = Score(density, 1, least=(1, DENSITY_K + 1))
COVERAGE = Score(coverage, 1, least=(1, DENSITY_K + 1), few="too low")
INTRA_FID = Score(intra_fid, -1, needs="by_class", each=True, few="too high")
SPREAD_SHARE = Score(spread_share, 1, quick=True)
CLASS_ACCURACY = Score(class_accuracy, 1, quick=True, needs="own_classes")


def compute_scores(samples: Embedded, real: Reference, names: Iterable[str] | None = None) -> dict[str, float]:
    """The scores by name, all that these features allow or those asked for.

    NaN if the samples hold NaN, and for scores that need more images (see `unknown_scores`).
    """
    has_logits = samples.logits is not None
    available = [name for name, score in SCORES.items() if _is_possible(score, has_logits, real)]
    chosen = available if names is None else [name for name in names if name in available]
    if not bool(torch.isfinite(samples.features).all()):
        return dict.fromkeys(chosen, math.nan)
    unknown = unknown_scores(samples.labels, real, chosen)
    return {name: math.nan if name in unknown else SCORES[name].compute(samples, real) for name in chosen}


def unknown_scores(labels: Tensor, real: Reference, names: Iterable[str] | None = None) -> dict[str, str]:
    """The scores that cannot be computed for samples of these classes, and why; known before sampling.

    Args:
        labels: (N,), the classes that the samples are meant to be of.
        real: what they are compared with.
        names: of scores; None: all.
    """
    count, images = len(labels), len(real.subset)
    classes = torch.bincount(labels, minlength=len(real.spreads))
    lone, found = int((classes < 2).sum()), {}
    for name in SCORES if names is None else names:
        least = SCORES[name].least
        if not _is_possible(SCORES[name], real.subset.logits is not None, real):
            continue
        if count < least[0]:
            found[name] = f"takes at least {least[0]} samples, and there are {count}"
        elif images < least[1]:
            found[name] = f"takes at least {least[1]} real images, and there are {images}"
        elif SCORES[name].each and lone:
            found[name] = f"takes two samples of each class, and {lone} of {len(classes)} classes have fewer"
    if lone == len(classes) and (names is None or "spread_share" in names):
        found["spread_share"] = "takes two samples of a class, and none has as many"
    return found


def quick_scores() -> list[str]:
    """The names of those computed in training."""
    return [name for name, score in SCORES.items() if score.quick]


def biased_scores(real: Reference, names: Iterable[str] | None = None) -> dict[str, list[str]]:
    """How few samples bias scores ("too high", "too low") -> which of `names` (None: all) that these features allow."""
    found: dict[str, list[str]] = {}
    for name in SCORES if names is None else names:
        if SCORES[name].few and _is_possible(SCORES[name], real.subset.logits is not None, real):
            found.setdefault(SCORES[name].few, []).append(name)
    return found


def _is_possible(score: Score, has_logits: bool, real: Reference) -> bool:
    return {
        "": True,
        "logits": has_logits,
        "own_classes": has_logits and real.own_classes,
        "by_class": real.by_class is not None,
    }[score.needs]

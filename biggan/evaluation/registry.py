"""The scores by name. A new one is a function of samples and real images, and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biggan.registry import Registry

if TYPE_CHECKING:
    from biggan.evaluation.features.registry import Embedded


@dataclass(frozen=True)
class Score:
    """One number of a set of images: `compute(samples, real)`, of `Embedded` samples and a `Reference`."""

    compute: Callable[[Embedded, Any], float]
    better: int
    """1: larger is better; -1: smaller is."""
    quick: bool = False
    """Whether it is cheap enough to be computed in training."""
    needs: str = ""
    """`logits`, `own_classes` (the logits' classes are the data's), `by_class` (moments a class), or nothing."""
    least: tuple[int, int] = (1, 1)
    """The least numbers of samples and of real images."""
    each: bool = False
    """Whether it needs two samples of every class."""
    few: str = ""
    """How few samples bias it: "too high", "too low", or not, beyond its own scatter."""


SCORES: Registry[Score] = Registry(
    {
        "fid": "biggan.evaluation.scores:FID",
        "is": "biggan.evaluation.scores:IS",
        "kid": "biggan.evaluation.scores:KID",
        "precision": "biggan.evaluation.scores:PRECISION",
        "recall": "biggan.evaluation.scores:RECALL",
        "density": "biggan.evaluation.scores:DENSITY",
        "coverage": "biggan.evaluation.scores:COVERAGE",
        "intra_fid": "biggan.evaluation.scores:INTRA_FID",
        "spread_share": "biggan.evaluation.scores:SPREAD_SHARE",
        "class_accuracy": "biggan.evaluation.scores:CLASS_ACCURACY",
    }
)
"""Name -> the score, in the order in which tables show them."""

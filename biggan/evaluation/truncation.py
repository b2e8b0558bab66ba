"""The truncation curve (Section 3.1, Figures 17 to 19): FID and IS along thresholds, and Table 2's points."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biggan.errors import UserError
from biggan.evaluation.evaluator import Evaluator, Settings
from biggan.evaluation.features.registry import Embedded, join
from biggan.evaluation.generate import LatentSpec, generate
from biggan.evaluation.scores import compute_scores
from biggan.networks.base import GeneratorNetwork
from spectra.record.files import replacing

SATURATED = 0.98  # |value| of a pixel, in [-1, 1]
LEAST_IS = 0.95  # of the untruncated samples' IS
MOST_SATURATED = 0.05  # more than in the untruncated samples, as a share of all pixels
NAMES = ["fid", "is", "spread_share", "class_accuracy"]


@dataclass(frozen=True)
class Point:
    """Scores at one threshold; None: z as in training."""

    threshold: float | None
    scores: dict[str, float]
    saturated: float
    """Share of pixel values within 0.02 of -1 or 1."""

    def as_dict(self) -> dict[str, Any]:
        """As a row of the CSV."""
        return {"threshold": self.threshold} | self.scores | {"saturated": self.saturated}


@dataclass(frozen=True)
class Curve:
    """The points, by falling threshold, the first untruncated."""

    settings: Settings
    points: list[Point]
    validation_is: float
    validation_images: int
    """The number of validation images; with fewer images than samples the IS is biased to a lower value."""

    def table2(self) -> dict[str, Point | None]:
        """Table 2's columns: no truncation, best FID, the IS nearest to the validation images', best IS.

        None for a missing column: the validation images' IS if the whole curve lies below or above it, and the best of
        scores that are all NaN.
        """
        return {
            "untruncated": self.points[0],
            "best FID": _least(self.points, lambda p: p.scores["fid"]),
            "IS of the validation images": self._at_validation_is(),
            "best IS": _least(self.points, lambda p: -p.scores["is"]),
        }

    def _at_validation_is(self) -> Point | None:
        found = [p.scores["is"] for p in self.points if math.isfinite(p.scores["is"])]
        if not found or not min(found) <= self.validation_is <= max(found):
            return None
        return _least(self.points, lambda p: abs(p.scores["is"] - self.validation_is))

    def amenable(self) -> tuple[bool, str]:
        """Whether the model is amenable to truncation, and why.

        Section 3.1 calls a model not amenable whose truncated samples show saturation artifacts, without a formula.
        Ours: at no threshold of the curve is the IS (which does not miss variety within a class, but falls where
        images are damaged) below 95 % of the untruncated samples', nor the share of saturated pixels more than 5 % of
        all pixels above theirs.
        """
        start = self.points[0]
        worst = min(self.points, key=lambda p: (not math.isnan(p.scores["is"]), p.scores["is"]))  # NaN is no good
        fullest = max(self.points, key=lambda p: p.saturated)
        good = worst.scores["is"] >= LEAST_IS * start.scores["is"]
        clean = fullest.saturated <= start.saturated + MOST_SATURATED
        return good and clean, (
            f"lowest IS {worst.scores['is']:.3g} (untruncated {start.scores['is']:.3g}, needed {LEAST_IS:.0%} of it), "
            f"most saturated pixels {fullest.saturated:.1%} (untruncated {start.saturated:.1%}, at most "
            f"{MOST_SATURATED:.0%} of all more)"
        )


def _least(points: list[Point], of: Callable[[Point], float]) -> Point | None:
    return min((p for p in points if not math.isnan(of(p))), key=of, default=None)


def parse_thresholds(text: str) -> list[float]:
    """`LOW:HIGH:COUNT` -> that many thresholds from high to low, evenly spaced in the logarithm.

    Raises `UserError` for anything else, and for a threshold that is not above 0.
    """
    try:
        low, high, count = text.split(":")
        first, last, number = float(low), float(high), int(count)
    except ValueError:
        raise UserError(f"--truncation-curve is '{text}', expected LOW:HIGH:COUNT such as 0.05:2:20.") from None
    if not 0 < first < last or not np.isfinite(last):
        raise UserError(f"--truncation-curve runs from {low} to {high}, expected 0 < LOW < HIGH.")
    if number < 2:
        raise UserError(f"--truncation-curve has {number} thresholds, expected at least 2.")
    return [float(t) for t in np.geomspace(last, first, number)]


def truncation_curve(
    evaluator: Evaluator,
    G: GeneratorNetwork,
    settings: Settings,
    thresholds: list[float],
    validation: tuple[float, int],
    *,
    step: int | None = None,
    report: Callable[[Point], None] = lambda point: None,
) -> Curve:
    """Scores of `G` at each threshold, under the standing statistics of untruncated noise, those it was trained with.

    Every threshold truncates the same draws. `validation`: the IS of the validation images, and how many there are.
    Raises `UserError` for latents that cannot be truncated, and for features without logits, which have no IS.
    """
    sampler = evaluator.sampler(G, settings, step)
    points = []
    for threshold in [None, *thresholds]:
        embedded, saturated = _at(evaluator, sampler, settings, step, threshold)
        scores = compute_scores(embedded, evaluator.reference, NAMES)
        if "is" not in scores:
            raise UserError(f"the features {settings.features} give no logits, and a truncation curve needs the IS.")
        points.append(Point(threshold, scores, saturated))
        report(points[-1])
    return Curve(settings, points, *validation)


def _at(
    evaluator: Evaluator, sampler: GeneratorNetwork, settings: Settings, step: int | None, threshold: float | None
) -> tuple[Embedded, float]:
    draw = LatentSpec(evaluator.config.latents, settings.seed, step, threshold, settings.truncation_kind)
    parts, saturated, pixels = [], 0, 0
    for _, images, y in generate(sampler, draw, settings.samples):
        parts.append(evaluator.network.embed(images, y))
        saturated += int((images.abs() > SATURATED).sum())
        pixels += images.numel()
    return join(parts), saturated / pixels


def draw_curve(curve: Curve, path: Path, title: str) -> None:
    """IS against FID, one point a threshold, Table 2's points marked (Figure 17)."""
    from matplotlib.figure import Figure

    from spectra.draw.charts import literal

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    x, y = ([p.scores[name] for p in curve.points] for name in ("is", "fid"))
    axes.plot(x[1:], y[1:], "-", color="#888888", linewidth=1, zorder=1)
    thresholds = [p.threshold for p in curve.points[1:] if p.threshold is not None]
    dots = axes.scatter(x[1:], y[1:], c=np.log10(thresholds), cmap="viridis", s=28, zorder=2)
    bar = figure.colorbar(dots, ax=axes, label="truncation threshold")
    shown = [t for t in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0) if min(thresholds) <= t <= max(thresholds)]
    bar.set_ticks(np.log10(shown).tolist(), labels=[f"{t:g}" for t in shown])
    styles = {"untruncated": ("o", "black"), "best FID": ("v", "#d62728")}
    styles |= {"IS of the validation images": ("s", "#1f77b4"), "best IS": ("^", "#ff7f0e")}
    for name, point in curve.table2().items():
        marker, color = styles[name]
        if point is None:
            axes.plot([], [], linestyle="", marker=marker, markerfacecolor="none", markeredgecolor=color,
                      label=f"{name}: not reached")  # fmt: skip
            continue
        at = "" if point.threshold is None else f", threshold {point.threshold:.2g}"
        label = f"{name}: FID {point.scores['fid']:.3g}, IS {point.scores['is']:.3g}{at}"
        axes.scatter([point.scores["is"]], [point.scores["fid"]], marker=marker, s=110, facecolors="none",
                     edgecolors=color, linewidths=1.8, label=label, zorder=3)  # fmt: skip
    if curve.validation_images:
        axes.axvline(curve.validation_is, color="#1f77b4", linestyle=":", linewidth=1)
    dotted = f" (dotted: {curve.validation_images:,} validation images)" if curve.validation_images else ""
    axes.set_xlabel(f"Inception Score{dotted}")
    axes.set_ylabel("FID")
    axes.set_title(literal(title), fontsize=10)
    axes.legend(fontsize=8, loc="best")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)

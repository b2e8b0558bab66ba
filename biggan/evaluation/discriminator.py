"""D's scores of training, validation and generated images: shares accepted as real, overall and by class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from biggan import rng
from biggan.data.images import Source
from biggan.evaluation.generate import LatentSpec, generate
from biggan.evaluation.memorization import discriminator_logits, fixed_images, memorization, share_accepted_as_real
from biggan.networks.base import DiscriminatorNetwork, GeneratorNetwork
from spectra.record.files import replacing

COLORS = {"training": "#1f77b4", "validation": "#2ca02c", "generated": "#d62728"}


@dataclass(frozen=True)
class DiscriminatorScores:
    """D's logits and the labels of three sets of images: `training`, `validation` (if any), `generated`."""

    logits: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: tuple[str, ...]

    def accepted_as_real(self) -> dict[str, float]:
        """The share of each set with a positive logit."""
        return {name: float(share_accepted_as_real(logits)) for name, logits in self.logits.items()}

    def by_class(self) -> list[dict[str, float]]:
        """The same for each class; NaN where a set has no image of it."""
        return [
            {
                name: float(share_accepted_as_real(logits[self.labels[name] == c]))
                for name, logits in self.logits.items()
            }
            for c in range(len(self.classes))
        ]

    def memorization(self) -> dict[str, float]:
        """D's accuracies and how much D memorizes: see `biggan.evaluation.memorization.memorization`. Without
        validation images what needs them is missing."""
        logits = (self.logits.get(name, torch.empty(0)) for name in ("training", "validation", "generated"))
        has = "validation" in self.logits
        return {name: float(value) for name, value in memorization(*logits).items() if has or "val" not in name}


def discriminator_scores(
    D: DiscriminatorNetwork, source: Source, sampler: GeneratorNetwork, draw: LatentSpec, count: int
) -> DiscriminatorScores:
    """D's scores of `count` images of each set, or all there are; on the training images that D was trained on.

    `sampler` is a generator under standing statistics. D is left as it was.
    """
    sets = {"training": fixed_images(source.train, count, rng.generator(draw.seed, "verdicts/train"))}
    if len(source.val):
        sets["validation"] = fixed_images(source.val, count, rng.generator(draw.seed, "verdicts/val"))
    parts = list(generate(sampler, draw, count))
    sets["generated"] = (torch.cat([x for _, x, _ in parts]), torch.cat([y for *_, y in parts]))
    return DiscriminatorScores(
        {name: discriminator_logits(D, *one).cpu() for name, one in sets.items()},
        {name: labels for name, (_, labels) in sets.items()},
        source.classes,
    )


def draw_discriminator_scores(found: DiscriminatorScores, path: Path, title: str) -> None:
    """Histograms of the logits, and the share accepted as real of each class (of the first 40)."""
    from matplotlib.figure import Figure

    from spectra.draw.charts import literal

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    finite = torch.cat([logits[logits.isfinite()] for logits in found.logits.values()]).numpy()
    low, high = np.quantile(finite, [0.001, 0.999]).tolist() if len(finite) else (-1.0, 1.0)
    edges = np.linspace(low, high, 61)
    called = found.accepted_as_real()
    for name, logits in found.logits.items():
        values = np.clip(logits[logits.isfinite()].numpy(), edges[0], edges[-1])
        weights = np.full(len(values), 1 / max(len(logits), 1))
        label = f"{name} ({len(logits):,}): {called[name]:.1%} accepted as real"
        left.hist(values, edges, weights=weights, histtype="stepfilled", alpha=0.25, color=COLORS[name])
        left.hist(values, edges, weights=weights, histtype="step", color=COLORS[name], label=label)
    left.axvline(0, color="black", linewidth=0.8)
    left.set(
        xlabel="D's logit (above 0: accepted as real; the end bins include all values beyond)",
        ylabel="share of the images",
    )
    left.legend(fontsize=8)
    classes = found.by_class()[:40]
    places = np.arange(len(classes))
    for offset, name in zip((-0.27, 0, 0.27), found.logits, strict=False):
        right.bar(places + offset, [row[name] for row in classes], 0.25, color=COLORS[name], label=name)
    right.axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    right.set(xlabel="class", ylabel="share accepted as real", ylim=(0, 1.04))
    right.set_xticks(
        places, list(map(literal, found.classes[: len(classes)])), fontsize=8, rotation=90 if len(classes) > 12 else 0
    )
    figure.suptitle(literal(title), fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)

"""Scores of one generator, with the settings that they depend on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

import torch

from biggan.config import Config
from biggan.evaluation.features.cache import key
from biggan.evaluation.features.quality import weak_features
from biggan.evaluation.features.registry import Embedded, FeatureNetwork, Report, join, load_features
from biggan.evaluation.generate import LatentSpec, generate
from biggan.evaluation.reference import MOST_KEPT, Reference, SplitName, make_reference, open_complete_source
from biggan.evaluation.scores import compute_scores, is_parts, kid_size
from biggan.evaluation.shares import SampleShard, gathered
from biggan.evaluation.standing import sampling_copy
from biggan.networks.base import GeneratorNetwork
from biggan.objective.latents import TruncationKind
from spectra.linalg.tf32 import tf32

Weights = Literal["raw", "ema"]
Statistics = Literal["standing", "stored"]


@dataclass(frozen=True)
class Settings:
    """The settings of a score, stored with it. Scores with different settings are never put in one column."""

    features: str
    digest: str
    """Of the feature network's weights."""
    reference: SplitName
    reference_images: int
    samples: int
    truncation: float | None
    standing_passes: int
    seed: int
    """Of the latents and of the standing statistics."""
    weights: Weights
    """`raw` or averaged (`ema`)."""
    truncation_kind: TruncationKind = dataclasses.field(default="threshold", repr=False)
    statistics: Statistics = dataclasses.field(default="standing", repr=False)
    """Those of BatchNorm: computed from fresh noise, or those that the checkpoint brings with it."""

    def further(self) -> dict[str, Any]:
        """The settings that earlier scores were stored without, where they are not as they were then."""
        usual = {"truncation_kind": "threshold", "statistics": "standing"}
        return {name: getattr(self, name) for name, value in usual.items() if getattr(self, name) != value}

    def as_dict(self) -> dict[str, Any]:
        """As stored."""
        newer = ("truncation_kind", "statistics")
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in newer} | self.further()

    def key(self) -> str:
        """A digest of all settings, for the names of files."""
        return key(self, *sorted(self.further().items()))

    def in_words(self) -> str:
        """As printed."""
        whose = "averaged weights" if self.weights == "ema" else "the generator's own weights"
        law = LatentSpec("normal", truncation=self.truncation, truncation_kind=self.truncation_kind).law()
        passes = "stored statistics" if self.statistics == "stored" else f"{self.standing_passes} standing passes"
        size = kid_size(self.samples, min(self.reference_images, MOST_KEPT))
        return (
            f"features {self.features} ({self.digest}), reference: {self.reference_images:,} {self.reference} images, "
            f"{self.samples:,} samples, {law}, {passes}, seed {self.seed}, {whose}; "
            f"IS over {is_parts(self.samples)} parts, KID over subsets of {size:,}"
        )


@dataclass(frozen=True)
class Evaluator:
    """A feature network and real images, to score generators."""

    network: FeatureNetwork
    reference: Reference
    config: Config
    """The run's, for its latents."""
    warning: str | None = None
    """That the features say little, where they do."""

    @classmethod
    @tf32(False)
    def of_run(
        cls,
        config: Config,
        features: str = "classifier",
        *,
        weights: str | None = None,
        reference: SplitName = "train",
        report: Report = print,
        device: str | torch.device = "cpu",
    ) -> Evaluator:
        """For generators of `config`; `report` is told where the features say little. Raises `UserError` where
        features or data are not to be had."""
        source = open_complete_source(config)
        network = load_features(features, source, weights, report)
        made = make_reference(network, source, reference, device)
        if warning := weak_features(network, source, device):
            report(warning)
        return cls(network, made, config, warning)

    def settings(
        self,
        weights: Weights,
        *,
        samples: int,
        passes: int,
        truncation: float | None = None,
        seed: int = 0,
        truncation_kind: TruncationKind = "threshold",
        statistics: Statistics = "standing",
    ) -> Settings:
        """The settings of one evaluation."""
        return Settings(
            features=self.network.name,
            digest=self.network.digest,
            reference=self.reference.split,
            reference_images=self.reference.moments.count,
            samples=samples,
            truncation=truncation,
            standing_passes=passes,
            seed=seed,
            weights=weights,
            truncation_kind=truncation_kind,
            statistics=statistics,
        )

    @tf32(False)
    def sampler(self, G: GeneratorNetwork, settings: Settings, step: int | None) -> GeneratorNetwork:
        """A copy of `G` under the settings' standing statistics."""
        return sampling_copy(
            G,
            distribution=self.config.latents,
            step=step,
            passes=settings.standing_passes,
            seed=settings.seed,
            refresh_sigma=settings.weights == "ema",
        )

    @tf32(False)
    def embed(
        self, sampler: GeneratorNetwork, settings: Settings, step: int | None, share: SampleShard | None = None
    ) -> Embedded:
        """The features of a generator's samples under standing statistics, with these settings.

        With a `share` of several processes, each makes its own blocks, and all get all samples in the same order.
        """
        share = share or SampleShard()
        draw = LatentSpec(self.config.latents, settings.seed, step, settings.truncation, settings.truncation_kind)
        found = generate(sampler, draw, settings.samples, share.blocks(settings.samples))
        mine = join(self.network.embed(images, y) for _, images, y in found)
        return gathered(mine, share, settings.samples)

    def scores(
        self, G: GeneratorNetwork, settings: Settings, step: int | None, names: list[str] | None = None
    ) -> dict[str, float]:
        """`G`'s scores, those of `names` or all; `G` is left as it was."""
        embedded = self.embed(self.sampler(G, settings, step), settings, step)
        return compute_scores(embedded, self.reference, names)

"""Changes of the objective: losses, penalties, normalization, latents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from biggan.config import Config
from interventions.changes.base import Amount, Change, Network, NetworkChoice, amount, each, value_of
from interventions.changes.optimization import OneNumber


@dataclass(frozen=True)
class R1(OneNumber, name="r1", paper="eq. 5; Section 4.2; sweep in I"):
    """The strength gamma of the R1 penalty on D."""

    field = "regularizers.r1"


@dataclass(frozen=True)
class GradientPenalty(OneNumber, name="gradient-penalty", paper="Appendix G.2"):
    """The strength of the gradient penalty on points between real and generated images."""

    field = "regularizers.gradient_penalty"


@dataclass(frozen=True)
class Dropout(OneNumber, name="dropout", paper="Section 4.2; sweep in I"):
    """The probability that a feature before D's last layer is kept; 1: no dropout."""

    field = "regularizers.dropout_keep"


@dataclass(frozen=True)
class EmbeddingDecay(OneNumber, name="embedding-decay", paper="Appendix H"):
    """Weight decay on the shared class embedding alone."""

    field = "regularizers.embedding_decay"


@dataclass(frozen=True)
class L2(Change, name="l2", paper="Section 4.2"):
    """The strength of the penalty on squared weights, of G, D or both (the paper: D)."""

    value: Amount
    network: NetworkChoice = "D"

    def fields(self, config: Config) -> dict[str, Any]:
        names = [f"regularizers.l2_{network}" for network in each(self.network)]
        return {name: amount(self.value, value_of(config, name), name) for name in names}


@dataclass(frozen=True)
class Orthogonal(Change, name="orthogonal", paper="Section 3.1, eq. 2 and 3; Section 4.2; sweep in I"):
    """The strength of orthogonal regularization, and its form: off_diagonal (eq. 3) or full (eq. 2)."""

    value: Amount
    form: Literal["off_diagonal", "full"] | None = None
    network: NetworkChoice = "G"

    def fields(self, config: Config) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for network in each(self.network):
            name = f"regularizers.orthogonal_{network}"
            found[name] = amount(self.value, value_of(config, name), name)
            if self.form is not None:
                found[f"regularizers.orthogonal_form_{network}"] = self.form
        return found


@dataclass(frozen=True)
class Margin(OneNumber, name="margin", paper="Appendix G.2"):
    """The margin of the hinge loss."""

    field = "loss.margin"


@dataclass(frozen=True)
class LossChange(Change, name="loss", paper="Appendix G.2"):
    """The loss by name: hinge, non_saturating, wasserstein."""

    loss: str

    def fields(self, config: Config) -> dict[str, Any]:
        return {"loss.name": self.loss}


@dataclass(frozen=True)
class SigmaRegularization(Change, name="sigma", paper="Section 4.1; Figures 21, 22"):
    """Regularize sigma_0 towards a target, or a ratio of sigma_1; strength 0 turns it off."""

    strength: float
    target: float | None = None
    ratio: float | None = None
    layers: list[str] | None = None
    network: Network = "G"

    def fields(self, config: Config) -> dict[str, Any]:
        given = {"strength": self.strength, "target": self.target, "ratio": self.ratio, "layers": self.layers}
        return {f"regularizers.sigma_{self.network}.{name}": value for name, value in given.items()}


@dataclass(frozen=True)
class Clamp(Change, name="clamp", paper="Section 4.1, eq. 4"):
    """Clamp sigma_0 to a value, or to a ratio of sigma_1. Without value and ratio, clamping is off."""

    value: float | None = None
    ratio: float | None = None
    mode: Literal["forward", "project"] = "forward"
    layers: list[str] | None = None
    network: Network = "G"

    def fields(self, config: Config) -> dict[str, Any]:
        given = {"value": self.value, "ratio": self.ratio, "layers": self.layers, "mode": self.mode}
        return {f"model.clamp_{self.network}.{name}": value for name, value in given.items()}


@dataclass(frozen=True)
class SpectralNorm(Change, name="spectral-norm", paper="Section 4.1: with or without Spectral Normalization"):
    """Spectral Normalization on or off, in G, D or both.

    Off: each weight is first divided by its current sigma, so the function does not jump; Adam's moments are scaled to
    match. On: each weight is divided by its sigma from then on, so the function jumps.
    """

    switch: Literal["on", "off"]
    network: NetworkChoice = "both"

    def fields(self, config: Config) -> dict[str, Any]:
        return {f"model.spectral_norm_{network}": self.switch == "on" for network in each(self.network)}


@dataclass(frozen=True)
class Latents(Change, name="latents", paper="Appendix E"):
    """The distribution of z by name, with its parameters if it has any.

    `anneal_steps` counts from the beginning of the whole run.
    """

    distribution: str
    anneal_from: float | None = None
    anneal_to: float | None = None
    anneal_steps: int | None = None
    variance_low: float | None = None
    variance_high: float | None = None

    def fields(self, config: Config) -> dict[str, Any]:
        names = ("anneal_from", "anneal_to", "anneal_steps", "variance_low", "variance_high")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return {f"latents.{name}": value for name, value in ({"distribution": self.distribution} | given).items()}

"""The configuration of the objective: the losses, the penalties, and the distribution of z."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from biggan.config.fields import RangeError, Section, drop_network, setting


@dataclass(frozen=True)
class LossConfig(Section):
    """The adversarial loss."""

    name: str = setting("hinge")
    """The loss by name."""
    margin: float = setting(1.0, low=0.0)
    """The hinge loss's margin (Appendix G.2)."""


@dataclass(frozen=True)
class LatentConfig(Section):
    """The distribution of z (Appendix E)."""

    distribution: str = setting("normal")
    """The distribution by name."""
    anneal_from: float = setting(2.0, low=0.0)
    """annealed_normal: the variance at step 0."""
    anneal_to: float = setting(1.0, low=0.0)
    """annealed_normal: the variance from step `anneal_steps` on."""
    anneal_steps: int = setting(1000, low=1)
    """annealed_normal: G steps over which the variance changes, linearly."""
    variance_low: float = setting(0.5, low=0.0)
    """variable_normal: the least variance of a sample."""
    variance_high: float = setting(1.5, low=0.0)
    """variable_normal: the greatest variance of a sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance_low > self.variance_high:
            raise RangeError(
                f"variance_low is {self.variance_low}, expected at most variance_high, which is {self.variance_high}."
            )


@dataclass(frozen=True)
class SigmaConfig(Section):
    """Regularization of one network's largest singular values: strength * sum of (s0 - target)^2 (Section 4.1)."""

    strength: float = setting(0.0, low=0.0)
    """Strength of the penalty, on the raw weights; 0: none."""
    target: float | None = setting(None, low=0.0)
    """The value that sigma_0 is pulled towards; null: see `ratio`."""
    ratio: float | None = setting(None, low=1.0)
    """Pull sigma_0 towards this ratio r >= 1 of sigma_1 instead, without gradient through sigma_1: r * sg(s1)."""
    layers: list[str] | None = setting(None)
    """Names of the layers, such as `G.linear` or `linear`; null: all."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [name for name in ("target", "ratio") if getattr(self, name) is not None]
        if len(given) == 2:
            raise RangeError(f"target is {self.target} and ratio is {self.ratio}, expected one of them.")
        if self.strength == 0 and (given or self.layers is not None):
            raise RangeError("strength is 0, and target, ratio or layers is given: expected a strength above 0.")
        if self.strength > 0 and not given:
            raise RangeError(
                f"strength is {self.strength}, and neither target nor ratio is given: expected a target (1, for "
                f"example) or a ratio of sigma_1."
            )


@dataclass(frozen=True)
class RegularizerConfig(Section):
    """Penalties on the weights and on D's gradient, and dropout in D."""

    orthogonal_G: float = setting(0.0, low=0.0)
    """Strength beta of orthogonal regularization on G (paper: 1e-4, of the form eq. 3)."""
    orthogonal_D: float = setting(0.0, low=0.0)
    """Strength beta of orthogonal regularization on D."""
    orthogonal_form_G: Literal["off_diagonal", "full"] = setting("off_diagonal")
    """G's form: off_diagonal leaves the norms of the filters free (eq. 3); full pulls W W^T towards I (eq. 2)."""
    orthogonal_form_D: Literal["off_diagonal", "full"] = setting("off_diagonal")
    """D's form, with the same choices."""
    l2_G: float = setting(0.0, low=0.0)
    """Strength of the penalty strength * |W|^2 on G's raw weight matrices, without embeddings, gains and biases."""
    l2_D: float = setting(0.0, low=0.0)
    """Strength of the same penalty on D's raw weight matrices (Section 4.2)."""
    embedding_decay: float = setting(0.0, low=0.0)
    """Weight decay on the shared class embedding E alone: adds embedding_decay * E to its gradient (Appendix H)."""
    r1: float = setting(0.0, low=0.0)
    """Strength gamma of the R1 penalty gamma/2 E|grad D(x)|^2 on real images (eq. 5; paper: 10 and less)."""
    gradient_penalty: float | None = setting(None, low=0.0)
    """Strength of E(|grad D(x)| - 1)^2 on points between real and generated images; null: 10 for the Wasserstein
    loss, otherwise 0."""
    weight_penalties_G: dict[str, float] = setting(dict, low=0.0)
    """Further penalties on G's weights, {name: strength}, by names that have no field of their own
    (docs/extending.md)."""
    weight_penalties_D: dict[str, float] = setting(dict, low=0.0)
    """Further penalties on D's weights, {name: strength}."""
    gradient_penalties: dict[str, float] = setting(dict, low=0.0)
    """Further penalties on D's gradient, {name: strength}."""
    dropout_keep: float = setting(1.0, low=1e-3, high=1.0)
    """Probability that a feature before D's last layer is kept in training; 1: no dropout (Section 4.2: 0.8)."""
    sigma_G: SigmaConfig = setting(SigmaConfig)
    """Regularization of G's sigma_0."""
    sigma_D: SigmaConfig = setting(SigmaConfig)
    """Regularization of D's sigma_0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        drop_network(self.sigma_G, "G")
        drop_network(self.sigma_D, "D")
        for mapping, own in FIELDS_OF_PENALTIES.items():
            for name in getattr(self, mapping):
                if name in own:
                    raise RangeError(f"{mapping} names {name}, which has a field of its own: use {own[name]}.")


FIELDS_OF_PENALTIES: dict[str, dict[str, str]] = {
    "weight_penalties_G": {
        "orthogonal": "orthogonal_G",
        "l2": "l2_G",
        "embedding_decay": "embedding_decay",
        "sigma": "sigma_G",
    },
    "weight_penalties_D": {
        "orthogonal": "orthogonal_D",
        "l2": "l2_D",
        "embedding_decay": "embedding_decay",
        "sigma": "sigma_D",
    },
    "gradient_penalties": {"r1": "r1", "gradient": "gradient_penalty"},
}
"""Penalties with fields of their own, by the mapping that does not take them: name -> field."""

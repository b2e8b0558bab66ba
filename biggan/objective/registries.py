"""The losses, penalties and latent distributions by name.

A new one is one class or function, and one line here. `--help` and error messages take their names from here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from biggan.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from biggan.config import LatentConfig, LossConfig
    from biggan.objective.gradient_penalties import Batch
    from biggan.objective.latents import Draw
    from biggan.objective.losses import Loss

LOSSES: Registry[Callable[[LossConfig], Loss]] = Registry(
    {
        "hinge": "biggan.objective.losses:Hinge",
        "non_saturating": "biggan.objective.losses:NonSaturating",
        "wasserstein": "biggan.objective.losses:Wasserstein",
    }
)
"""`loss.name`: a class made from the configuration of the loss (see `losses.Loss`)."""

LATENTS: Registry[Callable[[LatentConfig, int | None], Draw]] = Registry(
    {
        "normal": "biggan.objective.latents:normal",
        "uniform": "biggan.objective.latents:symmetric_uniform",
        "bernoulli": "biggan.objective.latents:bernoulli",
        "censored_normal": "biggan.objective.latents:censored_normal",
        "signs": "biggan.objective.latents:signs",
        "categorical": "biggan.objective.latents:categorical",
        "sparse_normal": "biggan.objective.latents:sparse_normal",
        "half_bernoulli": "biggan.objective.latents:half_bernoulli",
        "annealed_normal": "biggan.objective.latents:annealed_normal",
        "variable_normal": "biggan.objective.latents:variable_normal",
    }
)
"""`latents.distribution`: a function of the configuration and the step that returns the drawing function."""

WEIGHT_PENALTIES: Registry[Callable[[nn.Module], Tensor]] = Registry(
    {
        "orthogonal": "biggan.objective.weight_penalties:orthogonal_penalty",
        "orthogonal_full": "biggan.objective.weight_penalties:full_orthogonal_penalty",
        "l2": "biggan.objective.weight_penalties:l2_penalty",
    }
)
"""Keys of `regularizers.weight_penalties_G` and `_D`: a function of the network, a scalar, not yet scaled."""

GRADIENT_PENALTIES: Registry[Callable[[nn.Module, Batch], Tensor]] = Registry(
    {
        "r1": "biggan.objective.gradient_penalties:r1",
        "gradient": "biggan.objective.gradient_penalties:between",
    }
)
"""Keys of `regularizers.gradient_penalties`: a function of D and a batch, a mean over images."""

"""Turning Spectral Normalization off in a run that had it: an operation on the state."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from biggan.config import Config
from biggan.errors import UserError
from biggan.evaluation.standing import converge_sigma
from biggan.networks.sigma_control import SigmaClamp
from biggan.networks.spectral_norm import SpectrallyNormalized
from biggan.run.checkpoint import Checkpoint
from biggan.training.state import TrainingState


@torch.no_grad()
def fold_spectral_norm(state: TrainingState, network: str) -> dict[str, Tensor]:
    """The tensors of `state` with Spectral Normalization of network "G" or "D" folded into its weights.

    They are for a state whose configuration has `model.spectral_norm_G` (or `_D`) off, and nothing else changed.
    Every weight is divided by the sigma in use, so that the network is the same function as before; the averaged
    generator's by the sigma of its own weights. Adam's moments are scaled as the gradient is when sigma is held
    constant: the first by sigma, the second by its square. `state` is left as it was.

    Targets in the units of raw weights (sigma_0 regularization, projection) mean something else afterwards. Raises
    `UserError` where the network has no Spectral Normalization, or clamps in its forward towards a number: that would
    clamp the folded weights again, and the function would jump.
    """
    own = state.networks()[network]
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    if not any(isinstance(module, SpectrallyNormalized) for module in own.modules()):
        raise UserError(f"{network} has no Spectral Normalization that could be folded into its weights.")
    if any(isinstance(module, SigmaClamp) and module.value is not None for module in own.modules()):
        raise UserError(
            f"model.clamp_{network}.value clamps raw weights, whose scale changes when Spectral Normalization is "
            f"turned off. Clamp to a ratio of sigma_1, which has no scale, or turn clamping off first."
        )
    for name, sigma in _fold(own, network, tensors).items():
        tensors[f"optim_{network}.{name}.exp_avg"] *= sigma
        tensors[f"optim_{network}.{name}.exp_avg_sq"] *= sigma.square()
    if network == "G":
        average = copy.deepcopy(state.ema.network)
        converge_sigma(average)
        _fold(average, "G_ema", tensors)
    return tensors


def load_state(state: TrainingState, checkpoint: Checkpoint, config: Config) -> None:
    """Load a checkpoint into the `state` of `config`, which may turn Spectral Normalization off or on.

    Off: it is folded into the weights. On: sigma's estimates converge from the vectors that `state` has; the function
    jumps, for each weight is divided by its sigma from now on.
    """
    prefixes = {"G": "G.", "D": "D.", "G's optimizer": "optim_G.", "D's optimizer": "optim_D."}
    missing = [name for name, one in prefixes.items() if not any(key.startswith(one) for key in checkpoint.tensors)]
    if missing:
        raise UserError(
            f"{checkpoint.path} cannot be trained on: it was imported without {', '.join(missing)}. It can be sampled, "
            "scored and scanned. Import a state with both networks and both optimizers to train."
        )
    tensors = dict(fold_where_turned_off(checkpoint, config))
    turned_on: list[nn.Module] = []
    for name, network in state.networks().items():
        switch = f"spectral_norm_{name}"
        if getattr(config.model, switch) and not getattr(checkpoint.config.model, switch):
            turned_on += [network, state.ema.network] if name == "G" else [network]
    vectors = {name: own for name, own in state.tensors().items() if name.endswith(".u")} if turned_on else {}
    state.load(vectors | tensors, checkpoint.step)
    for network in turned_on:
        converge_sigma(network)


def fold_where_turned_off(checkpoint: Checkpoint, config: Config) -> Mapping[str, Tensor]:
    """The checkpoint's tensors, with Spectral Normalization folded in where `config` turns off what its run had on."""
    tensors: Mapping[str, Tensor] = checkpoint.tensors
    current = checkpoint.config
    for name in ("G", "D"):
        switch = f"spectral_norm_{name}"
        if getattr(current.model, switch) and not getattr(config.model, switch):
            state = TrainingState(current, initialize=False)
            state.load(tensors, checkpoint.step)
            tensors = fold_spectral_norm(state, name)
            off: dict[str, Any] = {switch: False}
            current = dataclasses.replace(current, model=dataclasses.replace(current.model, **off))
    return tensors


def _fold(network: nn.Module, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide the weights in `tensors` by sigma and drop its vectors; return sigma by the name of what was divided."""
    divided = {}
    for path, module in network.named_modules():
        if isinstance(module, SpectrallyNormalized):
            # WeightNorm sets the filters' lengths: there the gains carry the scale.
            name = f"{path}.weight_norm.gain" if "weight_norm" in module.maps else f"{path}.weight"
            divided[name] = module.sigma_estimate()
            tensors[f"{prefix}.{name}"] /= divided[name]
            del tensors[f"{prefix}.{path}.u"]
    return divided

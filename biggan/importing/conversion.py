"""From another program's shapes and order of columns to this one's, once the names are this one's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.config import from_dict, unflatten
from biggan.importing.architecture import check_networks, discriminator_fields, generator_fields, tidied
from biggan.importing.foreign import ForeignCheckpoint, cannot_import
from biggan.importing.moments import moments_of

BUFFERS = ("u", "running_mean", "running_var")
"""The last part of the names of tensors that are no parameters."""


def convert(found: ForeignCheckpoint, paths: Mapping[str, Path], optimizers: Mapping[str, tuple[Path, Any]]) -> None:
    """Say what the networks are, add the optimizers' states, and bring all tensors into this program's form.

    The networks have this program's names already, and their own shapes; `paths` are their files, and `optimizers` what
    was saved of an optimizer, by network. Raises `UserError` where this program has no such networks.
    """
    first = "G" if "G" in found.networks else "G_ema"
    if first not in found.networks:
        raise cannot_import(next(iter(paths.values())), "it has no generator", "Give a state with one.")
    found.fields |= generator_fields(paths[first], found.networks[first])
    if "D" in found.networks:
        found.fields |= discriminator_fields(paths["D"], found.networks["D"], found.fields)
    originals = found.networks
    found.networks = {
        role: {name: _converted(name, tensor, found.fields, role) for name, tensor in tensors.items()}
        for role, tensors in originals.items()
    }
    check_networks(paths[first].parent, found.networks, from_dict(unflatten(tidied(found.fields))))
    for role, (path, content) in optimizers.items():
        if role in originals:
            _add_moments(found, role, path, content, originals[role])


def _add_moments(found: ForeignCheckpoint, role: str, path: Path, content: Any, original: Mapping[str, Tensor]) -> None:
    parameters = {name: tensor for name, tensor in original.items() if name.rpartition(".")[2] not in BUFFERS}
    moments, settings = moments_of(path, parameters, content)
    found.moments[role] = {
        name: tensor if name.endswith(".step") else _converted(name.rpartition(".")[0], tensor, found.fields, role)
        for name, tensor in moments.items()
    }
    beta1, beta2 = settings["betas"]
    values = {"lr": settings["lr"], "beta1": beta1, "beta2": beta2, "eps": settings["eps"]}
    found.fields |= {f"optim.{role}.{name}": float(value) for name, value in values.items()}


def _converted(name: str, tensor: Tensor, fields: Mapping[str, Any], role: str) -> Tensor:
    """A tensor in this program's form: u as a unit vector, attention's gain as a scalar, z before the class."""
    if name.endswith(".u"):
        return unit_vector(tensor.reshape(-1))
    if re.fullmatch(r"blocks\.\d+\.gain", name):
        return tensor.reshape(())
    if role != "D" and fields["model.skip_z"] and _takes_the_condition(name, fields["model.family"]):
        return with_z_first(tensor, fields["model.embedding_dim"])
    return tensor


def unit_vector(vector: Tensor) -> Tensor:
    """A singular vector with length 1, its bits kept where it has that: an average of unit vectors has not, nor has one
    that was drawn and never iterated."""
    length = torch.linalg.vector_norm(vector)
    return vector / length if abs(length.item() - 1) > 1e-4 and length > 0 else vector


def with_z_first(weight: Tensor, embedding: int) -> Tensor:
    """A layer's weight (out, embedding + z) that takes [class embedding, z] -> the same for [z, class embedding]."""
    return torch.cat([weight[:, embedding:], weight[:, :embedding]], dim=1).contiguous()


def _takes_the_condition(name: str, family: str) -> bool:
    """Whether a weight of G's takes z joined to the class embedding: projections, in BigGAN-deep the first layer."""
    is_projection = re.fullmatch(r"blocks\.\d+\.norm\d\.(gain|bias)\.weight", name) is not None
    return is_projection or (family == "biggan-deep" and name == "linear.weight")

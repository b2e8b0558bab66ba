"""The weight matrices of a network, found by layer type and listed in network order.

A weight of any shape is seen as the matrix whose norm Spectral Normalization takes: out x rest. Each can be read raw
(the parameter) and normalized (what the layer applies in eval mode), without changing the layer: torch's own
spectral_norm runs a power iteration whenever its weight is read in training mode, so it is evaluated on a copy here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from spectra.linalg.operators import CONVOLUTIONS, ImageOperator, convolution_operator
from spectra.networks.wrappers import plain_name

_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear",
    nn.Conv1d: "conv1d",
    nn.Conv2d: "conv2d",
    nn.Conv3d: "conv3d",
    nn.ConvTranspose1d: "conv_transpose1d",
    nn.ConvTranspose2d: "conv_transpose2d",
    nn.ConvTranspose3d: "conv_transpose3d",
    nn.Embedding: "embedding",
    nn.EmbeddingBag: "embedding",
    nn.MultiheadAttention: "attention",
    nn.RNNBase: "recurrent",
    nn.RNNCellBase: "recurrent",
    nn.Bilinear: "bilinear",
}
"""The layer types that are known, subclasses included. Weights of any other layer are listed with the kind
"unknown"."""


@runtime_checkable
class NormalizedLayer(Protocol):
    """A layer that normalizes its own weight: what spectra reads of it, and all it needs to know.

    Besides the method the layer keeps its raw parameter in ``weight``. Two more attributes are read where it has
    them: ``sigma_estimate()``, Spectral Normalization's own running estimate of sigma_0 of the raw weight, a scalar;
    and ``is_mapped``, False while the layer applies its raw weight after all. Where its class has a static method
    ``sigma_estimates(layers)``, that gives those of several layers at once, in order, as tensors. Nothing read may
    change the layer (no power iteration); gradients are not needed.
    """

    def normalized_weight(self) -> Tensor:
        """The weight as the layer applies it in eval mode, of the raw weight's shape."""
        ...


@dataclass(frozen=True)
class WeightMatrix:
    """One weight of a network as a matrix.

    Attributes:
        name: of the layer, dotted; of the parameter where a layer has several.
        kind: one of `_KINDS`' values, or "unknown".
        layer_type: the layer's class.
        depth: position among its network's weights, from 0.
        network: the name under which the network was given, or "".
        shape: (out, rest).
        module: the layer.
        shared_with: names of further layers that hold the same parameter; it is listed once.
    """

    name: str
    kind: str
    layer_type: str
    depth: int
    network: str
    shape: tuple[int, int]
    module: nn.Module
    shared_with: tuple[str, ...]
    _weight: _Weight

    @property
    def is_normalized(self) -> bool:
        """Whether the layer applies something else than its raw parameter."""
        return self._weight.normalized is not None

    def raw(self) -> Tensor:
        """The parameter, (out, rest), detached; a view where the layout allows it."""
        return as_matrix(self._weight.raw().detach(), self._weight.transposed)

    def parameter(self) -> Tensor:
        """The stored tensor itself, of its own shape: what an optimizer holds and what has a gradient."""
        return self._weight.raw()

    def view(self, tensor: Tensor) -> Tensor:
        """A tensor of the parameter's shape (its gradient, an update) as a matrix, (out, rest)."""
        return as_matrix(tensor, self._weight.transposed)

    @torch.no_grad()
    def normalized(self) -> Tensor:
        """The weight as the layer applies it in eval mode, (out, rest); `raw` where nothing normalizes it."""
        if self._weight.normalized is None:
            return self.raw()
        return as_matrix(self._weight.normalized().detach(), self._weight.transposed)

    @torch.no_grad()
    def sigma_estimate(self) -> float | None:
        """Spectral Normalization's own estimate of sigma_0; None where the layer has none."""
        return None if self._weight.sigma is None else float(self._weight.sigma())

    def operator(self, size: int | Sequence[int], normalized: bool = False) -> ImageOperator:
        """The convolution as the linear map it is on inputs of a spatial size; see `spectra.convolution_operator`."""
        weight = None
        if isinstance(self.module, CONVOLUTIONS):
            read = (self._weight.normalized if normalized else None) or self._weight.raw
            with torch.no_grad():
                weight = read().detach()
        return convolution_operator(self.module, size, weight)


@torch.no_grad()
def sigma_estimates(matrices: Sequence[WeightMatrix]) -> list[float | None]:
    """`WeightMatrix.sigma_estimate` of each, together where the layers' class can do so."""
    found: list[float | None] = [None] * len(matrices)
    together: dict[Callable, list[int]] = {}
    for i, matrix in enumerate(matrices):
        batched = getattr(type(matrix.module), "sigma_estimates", None)
        if batched is None:
            found[i] = matrix.sigma_estimate()
        elif matrix._weight.sigma is not None:
            together.setdefault(batched, []).append(i)
    for batched, members in together.items():
        estimates = torch.stack([one.reshape(()) for one in batched([matrices[i].module for i in members])])
        for i, value in zip(members, estimates.tolist(), strict=True):
            found[i] = value
    return found


def weight_matrices(network: nn.Module | Mapping[str, nn.Module]) -> list[WeightMatrix]:
    """Every weight of two or more dimensions, as a matrix, in network order.

    The names are those of the network itself, also where `torch.compile` or DistributedDataParallel wraps it.

    Args:
        network: a module, or named ones ({"encoder": encoder, ...}), whose names become prefixes ("encoder.").

    Raises:
        TypeError: something else was given.
        ValueError: there is no weight of two dimensions, or a lazy layer has not seen an input yet.
    """
    named = {"": network} if isinstance(network, nn.Module) else network
    if not isinstance(named, Mapping) or not all(isinstance(part, nn.Module) for part in named.values()):
        raise TypeError(f"a torch module, or a dict of named ones, is expected; got {type(network).__name__}")
    found: list[WeightMatrix] = []
    for prefix, module in named.items():
        found += _of_one(prefix, module)
    if not found:
        what = " and ".join(type(part).__name__ for part in named.values()) or "an empty dict"
        raise ValueError(f"{what} has no weight matrix: no parameter of two or more dimensions was found")
    return found


def readable_matrices(networks: Mapping[str, nn.Module]) -> tuple[list[WeightMatrix], dict[str, str]]:
    """As `weight_matrices`, of networks that may have changed under training: a layer that cannot be read costs no
    other one. Returns the matrices, and why the other layers were left out, by name."""
    unreadable: dict[str, str] = {}
    return [m for prefix, module in networks.items() for m in _of_one(prefix, module, unreadable)], unreadable


def why_not_measured(tensor: Tensor) -> str | None:
    """Why no singular values, norms or updates of a parameter can be computed; None where they can."""
    if hasattr(tensor, "device_mesh") and hasattr(tensor, "placements"):
        return "it is a DTensor, of which this process holds a shard"
    if tensor.is_meta:
        return "it is on the meta device, and has no values"
    if tensor.is_complex():
        return f"it is complex ({tensor.dtype})"
    if tensor.is_quantized or not tensor.is_floating_point() or tensor.element_size() < 2:
        return f"it is quantized, or not of real numbers ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"it is sparse ({tensor.layout})"
    if tensor.numel() == 0:
        return f"it is empty, of shape {list(tensor.shape)}"
    return None


def as_matrix(weight: Tensor, transposed: bool = False) -> Tensor:
    """A weight reshaped to out x rest. Transposed convolutions keep their outputs in the second dimension."""
    if transposed:
        weight = weight.transpose(0, 1)
    return weight.flatten(1)


@dataclass(frozen=True)
class _Weight:
    """How to read one weight of a layer."""

    label: str  # what follows the layer's name, empty for the plain "weight"
    identity: int  # of the parameter, to see sharing
    transposed: bool
    raw: Callable[[], Tensor]
    normalized: Callable[[], Tensor] | None = None
    sigma: Callable[[], Tensor] | None = None


def _of_one(network: str, module: nn.Module, unreadable: dict[str, str] | None = None) -> list[WeightMatrix]:
    """A network's matrices. A layer that cannot be read raises, or goes to `unreadable` where that is given."""
    entries: dict[int, tuple[str, nn.Module, _Weight, list[str]]] = {}
    for wrapped_path, layer in module.named_modules():
        path = plain_name(module, wrapped_path)
        if isinstance(layer, parametrize.ParametrizationList) or ".parametrizations." in f".{path}.":
            continue  # read through the layer that it belongs to
        for weight in _weights_or_reason(layer, ".".join(filter(None, (network, path))), unreadable):
            name = ".".join(part for part in (network, path, weight.label) if part)
            if weight.identity in entries:
                entries[weight.identity][3].append(name)
            else:
                entries[weight.identity] = (name, layer, weight, [])
    found = []
    for depth, (name, layer, weight, others) in enumerate(entries.values()):
        raw = weight.raw()
        rows, columns = as_matrix(raw.detach(), weight.transposed).shape
        kind = next((kind for known, kind in _KINDS.items() if isinstance(layer, known)), "unknown")
        layer_type = type(layer).__name__.removeprefix("Parametrized")
        shape = (rows, columns)
        found.append(WeightMatrix(name, kind, layer_type, depth, network, shape, layer, tuple(others), weight))
    return found


def _weights_or_reason(layer: nn.Module, path: str, unreadable: dict[str, str] | None) -> list[_Weight]:
    if unreadable is None:
        return list(_weights(layer, path))
    try:
        found = list(_weights(layer, path))
        for weight in found:
            as_matrix(weight.raw().detach(), weight.transposed)
        return found
    except Exception as error:
        unreadable[path or type(layer).__name__] = f"{type(error).__name__}: {error}"
        return []


def _weights(layer: nn.Module, path: str) -> Iterator[_Weight]:
    """The weights that a layer itself holds (not those of its children)."""
    transposed = isinstance(layer, CONVOLUTIONS) and layer.transposed
    hooks = [hook for hook in layer._forward_pre_hooks.values() if isinstance(hook, SpectralNorm | WeightNorm)]
    for hook in hooks:
        yield _hooked(layer, hook.name, hook, transposed)
    for name, steps in getattr(layer, "parametrizations", {}).items():
        if steps[0] is not None and _originals(steps)[-1].dim() >= 2:
            yield _parametrized(name, steps, transposed)
    stored = {f"{hook.name}_{part}" for hook in hooks for part in ("orig", "g", "v")}
    for name, parameter in layer._parameters.items():
        if parameter is not None and name not in stored:
            _check_initialized(layer, path, parameter)
            if parameter.dim() >= 2 and not _is_bias(layer, name):
                yield _plain(layer, name, parameter, transposed)


def _check_initialized(layer: nn.Module, path: str, parameter: Tensor) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(
            f"the layer {path or type(layer).__name__!r} is lazy and has no weight yet: pass one batch through the "
            "network first"
        )


def _is_bias(layer: nn.Module, name: str) -> bool:
    """Whether a parameter of two or more dimensions is a bias all the same."""
    return isinstance(layer, nn.MultiheadAttention) and name in ("bias_k", "bias_v")


def _plain(layer: nn.Module, name: str, parameter: Tensor, transposed: bool) -> _Weight:
    """A parameter that the layer applies as it is, or normalizes itself (`NormalizedLayer`)."""
    normalized = sigma = None
    if name == "weight" and isinstance(layer, NormalizedLayer) and getattr(layer, "is_mapped", True):
        normalized, sigma = layer.normalized_weight, getattr(layer, "sigma_estimate", None)
    return _Weight(_label(name), id(parameter), transposed, _constant(parameter), normalized, sigma)


def _constant(parameter: Tensor) -> Callable[[], Tensor]:
    return lambda: parameter


def _label(name: str) -> str:
    return "" if name == "weight" else name


def _hooked(layer: nn.Module, name: str, hook: SpectralNorm | WeightNorm, transposed: bool) -> _Weight:
    """A weight under torch's older, hook-based normalizations. Neither hook changes anything when called like this."""
    if isinstance(hook, WeightNorm):
        raw = getattr(layer, f"{name}_v")
        return _Weight(_label(name), id(raw), transposed, _constant(raw), lambda: hook.compute_weight(layer))
    raw = getattr(layer, f"{name}_orig")

    def normalized() -> Tensor:
        return hook.compute_weight(layer, do_power_iteration=False)

    return _Weight(
        _label(name), id(raw), transposed, _constant(raw), normalized, lambda: raw.norm() / normalized().norm()
    )


def _originals(parametrizations: nn.ModuleList) -> list[Tensor]:
    """The stored tensors: one, or several where the weight is split (weight_norm: magnitude, direction)."""
    several = [f"original{i}" for i in range(getattr(parametrizations, "ntensors", 0))]
    names = ["original"] if hasattr(parametrizations, "original") else several
    return [getattr(parametrizations, name) for name in names]


def _parametrized(name: str, parametrizations: nn.ModuleList, transposed: bool) -> _Weight:
    """A weight under torch.nn.utils.parametrize; raw is the last of its stored tensors (weight_norm's direction)."""
    raw = _originals(parametrizations)[-1]

    def normalized() -> Tensor:
        steps = [copy.deepcopy(step).eval() for step in parametrizations]  # in training mode a step may update itself
        weight = steps[0](*_originals(parametrizations))
        for step in steps[1:]:
            weight = step(weight)
        return weight

    spectral = any(type(step).__name__ == "_SpectralNorm" for step in parametrizations) and len(parametrizations) == 1
    sigma = (lambda: raw.norm() / normalized().norm()) if spectral else None
    return _Weight(_label(name), id(raw), transposed, _constant(raw), normalized, sigma)

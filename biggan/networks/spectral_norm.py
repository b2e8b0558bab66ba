"""Spectral Normalization (Miyato et al., 2018).

It divides a weight by the estimate u^T W v of its largest singular value.
The normalized weights are computed once an update, in a `normalized` block, and used by every forward inside it:
each micro-batch, a penalty's second pass, recomputation. Outside such a block they are computed where they are
used, and nothing is ever updated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.networks.batched_spectral_norm import estimates_of_sigma, normalized_weights
from biggan.networks.reparametrization import Conv2d, Linear, Reparametrized, in_memory_order
from biggan.networks.walk import modules_of


class SpectrallyNormalized(Reparametrized):
    """Mixin for a layer whose `weight` (out x ...) is divided by an estimate of its largest singular value.

    `u` (out,) is the running estimate of the first left singular vector, part of the state. Where the layer has maps,
    the matrix is what comes out of them. `spectra` reads `normalized_weight()` and `sigma_estimate()`.
    """

    u: Tensor
    eps_sn: float
    is_mapped = True

    def prepare_spectral_norm(self, eps: float) -> None:
        """Add the vector and the settings to a layer that has its weight."""
        self.eps_sn = eps
        u = torch.zeros(self.weight.shape[0], dtype=self.weight.dtype, device=self.weight.device)
        u[:1] = 1.0  # initialize() draws it; a unit vector until then
        self.register_buffer("u", u)  # type: ignore[attr-defined]

    def _sigma(self, matrix: Tensor, *, iterate: bool) -> Tensor:
        with torch.no_grad():
            v = F.normalize(matrix.t() @ self.u, dim=0, eps=self.eps_sn)
            if iterate:
                self.u.copy_(F.normalize(matrix @ v, dim=0, eps=self.eps_sn))
            u = self.u.clone()  # autograd keeps it; the next iteration writes into the buffer
        return torch.dot(u, matrix @ v)

    def normalized_weight(self, *, iterate: bool = False) -> Tensor:
        """W / sigma, differentiable in W with u and v held constant; `iterate` does one power iteration first."""
        weight = self.mapped_weight(iterate=iterate)
        return weight / self._sigma(in_memory_order(weight), iterate=iterate)

    def sigma_estimate(self) -> Tensor:
        """The estimate u^T W v that is divided by, a scalar; changes nothing."""
        with torch.no_grad():
            return self._sigma(in_memory_order(self.mapped_weight()), iterate=False)

    sigma_estimates = staticmethod(estimates_of_sigma)
    """`sigma_estimate` of several layers, with fewer operators."""

    @torch.no_grad()
    def converge_sigma(self, iterations: int) -> None:
        """Do `iterations` power iterations, from the vector that the layer has."""
        matrix = in_memory_order(self.mapped_weight())
        for _ in range(iterations):
            self._sigma(matrix, iterate=True)


class SNConv2d(SpectrallyNormalized, Conv2d):
    """A spectrally normalized convolution."""


class SNLinear(SpectrallyNormalized, Linear):
    """A spectrally normalized linear layer."""


class SNEmbedding(SpectrallyNormalized, nn.Embedding):
    """A spectrally normalized embedding (classes x width)."""

    def forward(self, y: Tensor) -> Tensor:
        """(N,) -> (N, width)."""
        return F.embedding(y, self.current_weight())


@contextmanager
def normalized(network: nn.Module, *, iterate: bool, grad: bool = True, as_used: bool = False) -> Iterator[None]:
    """Compute every normalized or otherwise mapped weight of `network` once, for all forwards inside the block.

    `iterate`: one power iteration each first, where the network is in training mode (eval mode updates nothing).
    `grad`: keep the graph from the raw weights; off where the network is only used, not trained.
    `as_used`: each at its first use, so that in a backward pass its raw weight's gradient is there before those of
    earlier layers; at the block's beginning all the same where weights are normalized together.
    """
    layers = [module for module in modules_of(network) if isinstance(module, Reparametrized) and module.is_mapped]
    iterate, grad = iterate and network.training, grad and torch.is_grad_enabled()
    if as_used and not _is_batched(network):
        for layer in layers:
            layer.use(awaited=(iterate, grad))
    else:
        with torch.set_grad_enabled(grad):
            for layer, weight in zip(layers, _weights_in_use(network, layers, iterate=iterate), strict=True):
                layer.use(weight)
    try:
        yield
        for layer in layers:  # of a layer that was not used the vectors move too
            layer.make_awaited()
    finally:
        for layer in layers:
            layer.use(None)


def _is_batched(network: nn.Module) -> bool:
    return bool(getattr(network, "batched_power_iteration", False))


def _weights_in_use(network: nn.Module, layers: Sequence[Reparametrized], *, iterate: bool) -> Iterable[Tensor]:
    batched = [layer for layer in layers if isinstance(layer, SpectrallyNormalized)]
    if not batched or not _is_batched(network):
        return (layer.normalized_weight(iterate=iterate) for layer in layers)
    found = dict(zip(batched, normalized_weights(batched, iterate=iterate), strict=True))
    return (found[layer] if layer in found else layer.normalized_weight(iterate=iterate) for layer in layers)

"""Backward passes whose gradients are summed over ranks while they run, by torch's DistributedDataParallel.

DDP wraps a network's parameters with the computation of a whole loss, so penalties and their second derivatives are
part of what it sees, and other networks in the same graph are not. Its buckets stay as they are first laid out
(`find_unused_parameters`): where it may lay them out again, by the order in which a session's first gradients arrived,
three ranks or more add numbers up in another order, and a resumed run has other bits. docs/distributed.md has what was
measured.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from biggan.distributed.collectives import reporting_loss
from biggan.distributed.launch import LostRank
from biggan.distributed.ranks import world_size

_T = TypeVar("_T")
LossComputation = Callable[[], tuple[Tensor, _T]]
"""Computes a scalar to be differentiated, and what else is wanted of the computation, detached."""


class _LossOf(nn.Module):
    """A network's parameters, and as forward any loss made of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.parameters_of_network = nn.ParameterList(network.parameters())

    def forward(self, loss: LossComputation[_T]) -> tuple[Tensor, _T]:
        return loss()


class Differentiator:
    """Computes losses of one network, and their gradients, summed over ranks.

    Every rank must make one, and the same calls. Ranks' losses are to be weighted so that their sum is what is meant.
    """

    def __init__(self, network: nn.Module) -> None:
        self._parameters = list(network.parameters())
        self._lost: LostRank | None = None
        self._ranks: DistributedDataParallel | None = None
        if world_size() == 1:
            return
        # With channels last the strides of 1x1 filters and of their gradients differ, in dimensions of one element:
        # DDP copies these few numbers, and would say so on every rank.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        self._ranks = DistributedDataParallel(
            _LossOf(network), init_sync=False, find_unused_parameters=True, gradient_as_bucket_view=True
        )
        self._ranks.register_comm_hook(None, lambda _, bucket: self._sum(bucket))

    def add_gradient(self, loss: LossComputation[_T], *, last: bool = True) -> _T:
        """Add the gradient of `loss` to the parameters' `grad`, and return what else it gave.

        Of several micro-batches only the `last` waits for other ranks; until then the graph is kept.
        """
        if self._ranks is None:
            total, found = loss()
            total.backward(retain_graph=not last, inputs=self._parameters)
            return found
        with nullcontext() if last else self._ranks.no_sync():
            total, found = self._ranks(loss)
            try:
                total.backward(retain_graph=not last, inputs=self._parameters)
            except RuntimeError as error:
                raise self._lost or error from None
        return found

    def _sum(self, bucket: Any) -> Future[Any]:
        """DDP's own hook takes the mean of ranks, whose shares of a batch may differ."""
        with reporting_loss():
            return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(self._summed)

    def _summed(self, work: Future[list[Tensor]]) -> Tensor:
        try:
            with reporting_loss():
                return work.value()[0]
        except LostRank as error:  # torch makes a RuntimeError of it
            self._lost = error
            raise

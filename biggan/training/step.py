"""One update of D and one update of G: one round of adversarial training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from biggan.config import Config
from biggan.distributed.gradients import Differentiator
from biggan.distributed.ranks import local_batchnorm, synchronized_batchnorm
from biggan.networks.autocast import autocast
from biggan.networks.batchnorm import collecting, move_running_statistics
from biggan.networks.reparametrization import is_fully_mapped
from biggan.networks.sigma_control import project
from biggan.networks.spectral_norm import normalized
from biggan.networks.walk import parameters_of
from biggan.objective.gradient_penalties import Batch, gradient_penalties, strengths
from biggan.objective.losses import make_loss
from biggan.objective.weight_penalties import penalties
from biggan.training.batch import BatchDraws
from biggan.training.logits import logit_statistics
from biggan.training.loss_scaling import TensorBackup, step_unless
from biggan.training.optimizers import clip_gradients
from biggan.training.state import TrainingState
from spectra.linalg.tf32 import tf32

Stats = dict[str, Tensor]
_T = TypeVar("_T")
Hook = Callable[[str, int], None]


def _in_own_arithmetic(update: Callable[..., Stats]) -> Callable[..., Stats]:
    """An update, with TF32 as the configuration allows it, and as it was afterwards."""

    @functools.wraps(update)
    def within(self: Updater, *args: Any, **named: Any) -> Stats:
        with tf32(self.config.speed.tf32):
            return update(self, *args, **named)

    return within


@dataclass(frozen=True)
class _MicroBatch:
    """What one micro-batch of D's update leaves behind, detached."""

    losses: Tensor
    """(2,): on real and on fake images."""
    logits: Tensor
    """(2, N): the linear and the projection part, fake images first."""
    gradient_penalties: Stats


class Updater:
    """Updates `state` in place. Each update returns detached scalar tensors by name (`loss/D_real`, ...).

    Losses are means over this rank's share of the global batch, whatever the accumulation; weighted by `share.weight`,
    the ranks' add up to the mean over all. `before_update(network, k)` and `after_backward(network, k)` are called once
    an update, the latter when gradients are complete, those of the global batch.
    """

    def __init__(self, config: Config, state: TrainingState, before_update: Hook, after_backward: Hook) -> None:
        self.config, self.state = config, state
        self.loss, self.gradient_penalties = make_loss(config.loss), strengths(config)
        self.before_update, self.after_backward = before_update, after_backward
        state.G.recompute = state.D.recompute = config.train.recompute
        self.draws = BatchDraws(config, state)
        self.share, self.device = self.draws.share, self.draws.device
        self.snapshot = TensorBackup(())
        self.differentiators = {name: Differentiator(net) for name, net in state.networks().items()}
        compiled = config.speed.compile
        if compiled and not self.share.whole:
            # or graphs would be cut at DDP's buckets, which are complete at the end alone: see `_as_used`
            torch._dynamo.config.optimize_ddp = False
        self.forward_G = torch.compile(state.G, dynamic=False) if compiled else state.G
        compiled = compiled and not self.gradient_penalties  # compiled code has no second derivative
        self._compiled_parts = torch.compile(state.D.parts, dynamic=False) if compiled else None

    @_in_own_arithmetic
    @synchronized_batchnorm()
    def update_discriminator(self, k: int, real: Tensor, labels: Tensor) -> Stats:
        """D step `k`: real images (B, 3, R, R) and their labels (B,), this rank's share, against as many of G's.

        G's images are made in one forward of the whole batch, so D's accumulation changes nothing but rounding.
        """
        G, D = self.state.G, self.state.D
        self._begin("D", k)
        z, fake_labels = self.draws.latents("D", k)
        with torch.no_grad(), normalized(G, iterate=not self._frozen("G")), self._reduced():
            fake = self.forward_G(z, fake_labels)
        batch = self.draws.discriminator_batch(k, fake, fake_labels, real, labels)
        if not self._frozen("D"):
            D.copy_from(G)
        with self._normalized("D"), collecting(D):
            on_weights = self._penalties("D")
            micro_batches = [
                self._add_gradient("D", index, functools.partial(self._loss_of_D, micro), on_weights)
                for index, micro in enumerate(batch.chunks(self.config.train.accumulate))
            ]
            if not self._frozen("D"):
                move_running_statistics(D)
        loss_real, loss_fake = torch.stack([micro.losses for micro in micro_batches]).mean(dim=0)
        on_gradients = {
            name: torch.stack([micro.gradient_penalties[name] for micro in micro_batches]).mean()
            for name in self.gradient_penalties
        }
        return {
            "loss/D_real": loss_real,
            "loss/D_fake": loss_fake,
            **logit_statistics(D, [micro.logits for micro in micro_batches], self.config.loss.margin, self.share),
            **self._finish("D", k, on_weights() | on_gradients),
        }

    def _loss_of_D(self, micro: Batch) -> tuple[Tensor, _MicroBatch]:
        images, labels, mask = micro.both  # D sees fake and real images in one forward
        with self._reduced():
            linear, projection = self.parts_D(images, labels, mask)
        d_fake, d_real = (linear + projection).split(len(micro.fake))
        loss_real, loss_fake = self.loss.discriminator(d_real, d_fake)
        on_gradients = gradient_penalties(self.state.D, micro, self.gradient_penalties)
        return sum(on_gradients.values(), start=loss_real + loss_fake), _MicroBatch(
            losses=torch.stack([loss_real, loss_fake]).detach(),
            logits=torch.stack([linear, projection]).detach(),
            gradient_penalties={name: value.detach() for name, value in on_gradients.items()},
        )

    @_in_own_arithmetic
    @synchronized_batchnorm()
    def update_generator(self) -> Stats:
        """The G step. Under accumulation BatchNorm normalizes each micro-batch by its own statistics."""
        G, D, accumulate = self.state.G, self.state.D, self.config.train.accumulate
        self._begin("G", 0)
        z, labels = self.draws.latents("G", 0)
        with (
            normalized(D, iterate=not self._frozen("D"), grad=False),
            self._normalized("G"),
            collecting(G),
        ):
            on_weights = self._penalties("G")
            columns = (z.chunk(accumulate), labels.chunk(accumulate), self.draws.masks("G", 0, accumulate))
            losses = [
                self._add_gradient("G", index, functools.partial(self._loss_of_G, *micro), on_weights)
                for index, micro in enumerate(zip(*columns, strict=True))
            ]
            if not self._frozen("G"):
                move_running_statistics(G)
        return {"loss/G": torch.stack(losses).mean(), **self._finish("G", 0, on_weights())}

    def _loss_of_G(self, z: Tensor, labels: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        with self._reduced():
            linear, projection = self.parts_D(self.forward_G(z, labels), labels, mask)
        loss = self.loss.generator(linear + projection)
        return loss, loss.detach()

    @property
    def parts_D(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """D's `parts`, compiled where asked for; where somebody has put their own in its place, that."""
        D = self.state.D
        return D.parts if self._compiled_parts is None or "parts" in vars(D) else self._compiled_parts

    def _reduced(self) -> AbstractContextManager:
        """Around the networks' forwards, and nothing else: weights are normalized before, penalties computed after."""
        return autocast(self.config.speed.precision, self.device)

    def _frozen(self, network: str) -> bool:
        return self.config.train.freeze == network

    def _begin(self, network: str, k: int) -> None:
        with local_batchnorm():
            self.before_update(network, k)
        self.state.optimizers[network].zero_grad(set_to_none=True)
        if network in self.state.loss_scalers:  # what an update moves beside the weights, in case it is skipped
            buffers = (buffer for net in self.state.networks().values() for buffer in net.buffers())
            self.snapshot = TensorBackup([*buffers, *self.state.warm_starts.vectors.values()])

    def _normalized(self, network: str) -> AbstractContextManager[None]:
        """Around an update of the network."""
        return normalized(
            self.state.networks()[network], iterate=not self._frozen(network), as_used=self._as_used(network)
        )

    def _as_used(self, network: str) -> bool:
        """Whether weights are normalized at their first use, so that their gradients are summed during the backward.

        Not where later micro-batches use them again, or compiled code. Penalties then come behind the forward, or
        gradients would be added up in another order than by a single process: only where each is of a mapped weight.
        """
        own = getattr(self.config.regularizers, f"weight_penalties_{network}")
        together = self.config.train.accumulate == 1 and not self.config.speed.compile and not self.share.whole
        return together and not own and is_fully_mapped(self.state.networks()[network])

    def _penalties(self, network: str) -> Callable[[], Stats]:
        """The penalties on weights, computed once; see `_as_used`."""
        net = self.state.networks()[network]
        found = functools.cache(lambda: penalties(net, network, self.config.regularizers, self.state.warm_starts))
        if not self._as_used(network):
            found()
        return found

    def _add_gradient(
        self, network: str, index: int, loss: Callable[[], tuple[Tensor, _T]], on_weights: Callable[[], Stats]
    ) -> _T:
        """Add the gradient of micro-batch `index`, and with the first one that of the penalties on weights.

        What every rank adds is weighted by its share of the images, so that the ranks' gradients are to be summed.
        """
        accumulate = self.config.train.accumulate

        def weighted() -> tuple[Tensor, _T]:
            value, found = loss()
            total = value / accumulate
            if index == 0:
                total = total + sum(on_weights().values())
            if not self.share.whole:
                total = total * self.share.weight
            if scaler := self.state.loss_scalers.get(network):
                total = total * scaler.scale
            return total, found

        return self.differentiators[network].add_gradient(weighted, last=index == accumulate - 1)

    def _finish(self, network: str, k: int, penalties: Mapping[str, Tensor]) -> Stats:
        """Announce the gradients, take the optimizer's step unless the network is frozen.

        The gradient's norm is that before clipping.
        """
        gradients = [p.grad for p in parameters_of(self.state.networks()[network]) if p.grad is not None]
        scaler = self.state.loss_scalers.get(network)
        skip = None if scaler is None else scaler.unscale(gradients)
        with local_batchnorm():
            self.after_backward(network, k)
        stats = {f"penalty/{network}_{name}": value.detach() for name, value in penalties.items()}
        stats[f"gradient_norm/{network}"] = nn.utils.get_total_norm(gradients)
        if not self._frozen(network):
            self._move(network, gradients, skip)
        if scaler is not None and skip is not None:  # of a frozen network too: its gradients may overflow as well
            stats[f"skipped/{network}"] = skip
            self.snapshot.put_back_where(skip)
            scaler.move(skip)
        return stats

    def _move(self, network: str, gradients: list[Tensor], skip: Tensor | None) -> None:
        """Clip, take the optimizer's step and project; leave the weights as they are where `skip` is 1.0."""
        net, optimizer = self.state.networks()[network], self.state.optimizers[network]
        adam = self.config.optim.G if network == "G" else self.config.optim.D
        clip_gradients(gradients, each=adam.clip_tensor, total=adam.clip_global)
        clamp = self.config.model.clamp_G if network == "G" else self.config.model.clamp_D
        if skip is None:
            optimizer.step()
            project(net, network, clamp, self.state.warm_starts)
            return
        step_unless(skip, optimizer)
        weights = TensorBackup(net.parameters() if clamp.on and clamp.mode == "project" else ())
        project(net, network, clamp, self.state.warm_starts)
        weights.put_back_where(skip)

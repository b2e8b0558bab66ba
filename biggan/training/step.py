"""One update of D and one update of G: one round of adversarial training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from biggan import rng
from biggan.config.tree import Config
from biggan.distributed import ranks as distributed
from biggan.networks.autocast import autocast
from biggan.networks.batchnorm import collecting, move_running_statistics
from biggan.networks.sigma_control import project
from biggan.networks.spectral_norm import normalized
from biggan.objective.gradient_penalties import Batch, gradient_penalties, strengths
from biggan.objective.latents import sample_latents
from biggan.objective.losses import make_loss
from biggan.objective.weight_penalties import penalties
from biggan.observers.discriminator_view import logit_statistics
from biggan.training.loss_scaling import Snapshot, step_unless
from biggan.training.optimizers import clip_gradients
from biggan.training.state import TrainingState
from spectra.linalg.tf32 import tf32

Stats = dict[str, Tensor]
Hook = Callable[[str, int], None]


def _in_own_arithmetic(update: Callable[..., Stats]) -> Callable[..., Stats]:
    """An update, with TF32 as the configuration allows it, and as it was afterwards."""

    @functools.wraps(update)
    def within(self: Updater, *args: Any, **named: Any) -> Stats:
        with tf32(self.config.speed.tf32):
            return update(self, *args, **named)

    return within


class Updater:
    """Updates `state` in place. Each update returns detached scalar tensors by name (`loss/D_real`, ...).

    Losses are means over this rank's share of the global batch, whatever the accumulation; weighted by `share.weight`,
    the ranks' add up to the mean over all. `before_update(network, k)` and `after_backward(network, k)` are called once
    an update, the latter when gradients are complete, those of the global batch.
    """

    def __init__(self, config: Config, state: TrainingState, before_update: Hook, after_backward: Hook) -> None:
        self.config, self.state = config, state
        self.loss, self.slopes = make_loss(config.loss), strengths(config)
        self.before_update, self.after_backward = before_update, after_backward
        state.G.recompute = state.D.recompute = config.train.recompute
        self.share = distributed.BatchShard(config.train.batch, config.train.accumulate)
        first = next(state.G.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.snapshot: Snapshot | None = None
        compiled = config.speed.compile
        self.forward_G = torch.compile(state.G, dynamic=False) if compiled else state.G
        compiled = compiled and not self.slopes  # compiled code has no second derivative
        self._compiled_parts = torch.compile(state.D.parts, dynamic=False) if compiled else None

    @_in_own_arithmetic
    @distributed.synchronized_batchnorm()
    def update_discriminator(self, k: int, real: Tensor, labels: Tensor) -> Stats:
        """D step `k`: real images (B, 3, R, R) and their labels (B,), this rank's share, against as many of G's.

        G's images are made in one forward of the whole batch, so D's accumulation changes nothing but rounding.
        """
        G, D, accumulate = self.state.G, self.state.D, self.config.train.accumulate
        self._begin("D", k)
        z, fake_labels = self._draw("D", k)
        with torch.no_grad(), normalized(G, iterate=not self._frozen("G")), self._reduced():
            fake = self.forward_G(z, fake_labels)
        batch = self._batch(k, fake, fake_labels, self._on_device(real), self._moved(labels))
        losses, seen, slopes = [], [], []
        if not self._frozen("D"):
            D.copy_from(G)
        with normalized(D, iterate=not self._frozen("D")), collecting(D):
            extra = penalties(D, "D", self.config.regularizers, self.state.warm_starts)
            for index, micro in enumerate(batch.chunks(accumulate)):
                images, image_labels, mask = micro.both  # D sees fake and real images in one forward
                with self._reduced():
                    linear, projection = self.parts_D(images, image_labels, mask)
                d_fake, d_real = (linear + projection).split(len(micro.fake))
                loss_real, loss_fake = self.loss.discriminator(d_real, d_fake)
                slope = gradient_penalties(D, micro, self.slopes)
                self._backward("D", sum(slope.values(), start=loss_real + loss_fake), extra, index)
                losses.append(torch.stack([loss_real, loss_fake]).detach())
                seen.append(torch.stack([linear, projection]).detach())
                slopes.append(slope)
            if not self._frozen("D"):
                move_running_statistics(D)
        loss_real, loss_fake = torch.stack(losses).mean(dim=0)
        extra |= {name: torch.stack([slope[name].detach() for slope in slopes]).mean() for name in self.slopes}
        return {
            "loss/D_real": loss_real,
            "loss/D_fake": loss_fake,
            **logit_statistics(D, seen, self.config.loss.margin, self.share),
            **self._finish("D", k, extra),
        }

    @_in_own_arithmetic
    @distributed.synchronized_batchnorm()
    def update_generator(self) -> Stats:
        """The G step. Under accumulation BatchNorm normalizes each micro-batch by its own statistics."""
        G, D, accumulate = self.state.G, self.state.D, self.config.train.accumulate
        self._begin("G", 0)
        z, labels = self._draw("G", 0)
        losses = []
        with (
            normalized(D, iterate=not self._frozen("D"), grad=False),
            normalized(G, iterate=not self._frozen("G")),
            collecting(G),
        ):
            extra = penalties(G, "G", self.config.regularizers, self.state.warm_starts)
            columns = (z.chunk(accumulate), labels.chunk(accumulate), self._masks("G", 0, accumulate))
            for index, (z_micro, y_micro, mask) in enumerate(zip(*columns, strict=True)):
                with self._reduced():
                    linear, projection = self.parts_D(self.forward_G(z_micro, y_micro), y_micro, mask)
                loss = self.loss.generator(linear + projection)
                self._backward("G", loss, extra, index)
                losses.append(loss.detach())
            if not self._frozen("G"):
                move_running_statistics(G)
        return {"loss/G": torch.stack(losses).mean(), **self._finish("G", 0, extra)}

    @property
    def parts_D(self) -> Callable[..., tuple[Tensor, Tensor]]:
        """D's `parts`, compiled where asked for; where somebody has put their own in its place, that."""
        D = self.state.D
        return D.parts if self._compiled_parts is None or "parts" in vars(D) else self._compiled_parts

    def _on_device(self, images: Tensor) -> Tensor:
        layout = torch.channels_last if self.config.speed.channels_last else torch.contiguous_format
        return self._moved(images, self.dtype).contiguous(memory_format=layout)

    def _moved(self, drawn: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """On the device; on a GPU from pinned memory, so that nothing waits for the copy."""
        if self.device.type == "cuda" and not drawn.is_cuda:
            drawn = drawn.pin_memory().to(self.device, non_blocking=True)
        return drawn.to(self.device, dtype or drawn.dtype)

    def _reduced(self) -> AbstractContextManager:
        """Around the networks' forwards, and nothing else: weights are normalized before, penalties computed after."""
        return autocast(self.config.speed.precision, self.device)

    def _frozen(self, network: str) -> bool:
        return self.config.train.freeze == network

    def _draw(self, network: str, k: int) -> tuple[Tensor, Tensor]:
        """The latents and labels that G is given in this update: this rank's share of what is drawn for all."""
        seed, step, batch = self.config.seed, self.state.step, self.config.train.batch
        random = rng.generator(seed, f"{network}/latents", step, k)
        z = sample_latents(self.config.latents, random, batch, self.state.G.z_dim, step)
        random = rng.generator(seed, f"{network}/labels", step, k)
        labels = torch.from_numpy(random.integers(0, self.config.model.classes, size=batch))
        return self._moved(self.share.of(z), self.dtype), self._moved(self.share.of(labels))

    def _batch(self, k: int, fake: Tensor, fake_labels: Tensor, real: Tensor, labels: Tensor) -> Batch:
        """What D step `k` sees, with what its penalties and dropout draw."""
        mix = None
        if self.slopes.keys() - {"r1"}:
            random = rng.generator(self.config.seed, "D/interpolation", self.state.step, k)
            mix = torch.from_numpy(random.random(self.config.train.batch, dtype=np.float32))
            mix = self._moved(self.share.of(mix), self.dtype)
        (mask_fake,), (mask_real,) = self._masks("D/fake", k, 1), self._masks("D/real", k, 1)
        return Batch(fake, fake_labels, real, labels, mask_fake, mask_real, mix)

    def _masks(self, purpose: str, k: int, count: int) -> Sequence[Tensor | None]:
        """Dropout's masks (batch, D's width) in `count` parts: 0, or 1 / keep, so that their mean is 1; none: off.

        Drawn whole, so that an image's mask depends on its place in the global batch, not on accumulation or ranks.
        """
        keep = self.config.regularizers.dropout_keep
        if keep == 1:
            return [None] * count
        random = rng.generator(self.config.seed, f"{purpose}/dropout", self.state.step, k)
        kept = random.random((self.config.train.batch, self.state.D.width), dtype=np.float32) < keep
        mask = self._moved(self.share.of(torch.from_numpy(kept)), self.dtype)
        return (mask / keep).chunk(count)

    def _begin(self, network: str, k: int) -> None:
        with distributed.local_batchnorm():
            self.before_update(network, k)
        self.state.optimizers[network].zero_grad(set_to_none=True)
        if network in self.state.loss_scalers:  # what an update moves beside the weights, in case it is skipped
            buffers = (buffer for net in self.state.networks().values() for buffer in net.buffers())
            self.snapshot = Snapshot([*buffers, *self.state.warm_starts.vectors.values()])

    def _backward(self, network: str, loss: Tensor, extra: Stats, index: int) -> None:
        """Add one micro-batch's share of the gradient, and with the first one the penalties'.

        What every rank adds is weighted by its share of the images, so that the ranks' gradients are to be summed.
        """
        accumulate = self.config.train.accumulate
        total = loss / accumulate
        if index == 0:
            total = total + sum(extra.values())
        if not self.share.whole:
            total = total * self.share.weight
        if scaler := self.state.loss_scalers.get(network):
            total = total * scaler.scale
        total.backward(
            retain_graph=index < accumulate - 1,  # the normalized weights' graph serves every micro-batch
            inputs=list(self.state.networks()[network].parameters()),
        )

    def _finish(self, network: str, k: int, extra: Stats) -> Stats:
        """Sum the gradients over ranks, announce them, take the optimizer's step unless the network is frozen.

        The gradient's norm is that before clipping.
        """
        gradients = [p.grad for p in self.state.networks()[network].parameters() if p.grad is not None]
        distributed.sum_gradients(gradients)
        scaler = self.state.loss_scalers.get(network)
        skip = None if scaler is None else scaler.unscale(gradients)
        with distributed.local_batchnorm():
            self.after_backward(network, k)
        stats = {f"penalty/{network}_{name}": value.detach() for name, value in extra.items()}
        stats[f"gradient_norm/{network}"] = nn.utils.get_total_norm(gradients)
        if scaler is not None:
            stats[f"skipped/{network}"] = skip
        if not self._frozen(network):
            self._move(network, gradients, skip)
        if scaler is not None:  # of a frozen network too: its gradients are recorded, and overflow as well
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
        weights = Snapshot(net.parameters() if clamp.on and clamp.mode == "project" else ())
        project(net, network, clamp, self.state.warm_starts)
        weights.put_back_where(skip)

"""One update of D and one update of G: the game itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from biggan import rng
from biggan.config import Config
from biggan.latents import sample_latents
from biggan.losses import make_loss
from biggan.normalization import collecting, move_running_statistics, normalized
from biggan.regularizers import penalties
from biggan.state import TrainingState

Stats = dict[str, Tensor]
Hook = Callable[[str, int], None]


class Game:
    """Updates `state` in place. Each update returns detached scalar tensors by name (`loss/D_real`, ...).

    Losses are means over the global batch, whatever the accumulation. `before_update(network, k)` and
    `after_backward(network, k)` are called once an update, the latter when gradients are complete.
    """

    def __init__(self, config: Config, state: TrainingState, before_update: Hook, after_backward: Hook) -> None:
        self.config, self.state = config, state
        self.loss = make_loss(config.loss)
        self.before_update, self.after_backward = before_update, after_backward
        self.device = next(state.G.parameters()).device

    def update_discriminator(self, k: int, real: Tensor, labels: Tensor) -> Stats:
        """D step `k`: real images (B, 3, R, R) and their labels (B,) against as many of G's.

        G's images are made in one forward of the whole batch, so D's accumulation changes nothing but rounding.
        """
        G, D, accumulate = self.state.G, self.state.D, self.config.train.accumulate
        self._begin("D", k)
        z, fake_labels = self._draw("D", k)
        with torch.no_grad(), normalized(G, iterate=not self._frozen("G")):
            fake = G(z, fake_labels)
        batch = [fake, fake_labels, real.to(self.device), labels.to(self.device)]
        losses, logits_real, logits_fake = [], [], []
        with normalized(D, iterate=not self._frozen("D")):
            extra = penalties(D, "D", self.config.regularizers)
            for index, micro in enumerate(zip(*(tensor.chunk(accumulate) for tensor in batch), strict=True)):
                x_fake, y_fake, x_real, y_real = micro
                # D sees fake and real images in one forward.
                logits = D(torch.cat([x_fake, x_real]), torch.cat([y_fake, y_real]))
                d_fake, d_real = logits.split(len(x_fake))
                loss_real, loss_fake = self.loss.discriminator(d_real, d_fake)
                self._backward("D", loss_real + loss_fake, extra, index)
                losses.append(torch.stack([loss_real, loss_fake]).detach())
                logits_real.append(d_real.detach())
                logits_fake.append(d_fake.detach())
        loss_real, loss_fake = torch.stack(losses).mean(dim=0)
        return {
            "loss/D_real": loss_real,
            "loss/D_fake": loss_fake,
            # Shares on the right side of zero, from the forwards made anyway.
            "accuracy/D_real": (torch.cat(logits_real) > 0).float().mean(),
            "accuracy/D_fake": (torch.cat(logits_fake) < 0).float().mean(),
            **self._finish("D", k, extra),
        }

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
            extra = penalties(G, "G", self.config.regularizers)
            for index, (z_micro, y_micro) in enumerate(zip(z.chunk(accumulate), labels.chunk(accumulate), strict=True)):
                loss = self.loss.generator(D(G(z_micro, y_micro), y_micro))
                self._backward("G", loss, extra, index)
                losses.append(loss.detach())
            if not self._frozen("G"):
                move_running_statistics(G)
        return {"loss/G": torch.stack(losses).mean(), **self._finish("G", 0, extra)}

    def _frozen(self, network: str) -> bool:
        return self.config.train.freeze == network

    def _draw(self, network: str, k: int) -> tuple[Tensor, Tensor]:
        """The latents and labels that G is given in this update, the whole global batch."""
        seed, step, batch = self.config.seed, self.state.step, self.config.train.batch
        random = rng.generator(seed, f"{network}/latents", step, k)
        z = sample_latents(self.config.latents, random, batch, self.state.G.z_dim, step)
        random = rng.generator(seed, f"{network}/labels", step, k)
        labels = torch.from_numpy(random.integers(0, self.config.model.classes, size=batch))
        return z.to(self.device), labels.to(self.device)

    def _begin(self, network: str, k: int) -> None:
        self.before_update(network, k)
        self.state.optimizers[network].zero_grad(set_to_none=True)

    def _backward(self, network: str, loss: Tensor, extra: Stats, index: int) -> None:
        """Add one micro-batch's share of the gradient, and with the first one the penalties'."""
        accumulate = self.config.train.accumulate
        total = loss / accumulate
        if index == 0:
            total = total + sum(extra.values())
        total.backward(
            retain_graph=index < accumulate - 1,  # the normalized weights' graph serves every micro-batch
            inputs=list(self.state.networks()[network].parameters()),
        )

    def _finish(self, network: str, k: int, extra: Stats) -> Stats:
        """Announce the gradients, take the optimizer's step unless the network is frozen."""
        self.after_backward(network, k)
        gradients = [p.grad for p in self.state.networks()[network].parameters() if p.grad is not None]
        stats = {f"penalty/{network}_{name}": value.detach() for name, value in extra.items()}
        stats[f"gradient_norm/{network}"] = nn.utils.get_total_norm(gradients)
        if not self._frozen(network):
            self.state.optimizers[network].step()
        return stats

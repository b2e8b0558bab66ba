"""Everything that changes in training, as one object with a readable name for every tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from biggan.config import Config
from biggan.errors import UserError
from biggan.networks import build_networks
from biggan.networks.initialization import draw_vectors
from biggan.networks.initialization import initialize as draw_weights
from biggan.networks.sigma_control import WarmStarts
from biggan.training.average import EMA
from biggan.training.loss_scaling import LossScaler
from biggan.training.optimizers import make_adam


class TrainingState:
    """G, D, the average of G, both optimizers, and the number of finished steps.

    It contains no random state: every draw is a function of the step (biggan/rng.py).
    """

    def __init__(self, config: Config, device: torch.device | str = "cpu", *, initialize: bool = True) -> None:
        """`initialize=False` leaves the weights undrawn, for a state that is loaded next."""
        self.step = 0
        with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own, which initialize() replaces
            self.G, self.D = build_networks(config)
        for name, network in self.networks().items():
            if initialize:
                draw_weights(network, config.model.init, config.seed, name)
            else:
                draw_vectors(network, config.seed, name)  # a change may have turned on what starts from them
            network.to(device).train()
            if config.speed.channels_last:
                network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.D.copy_from(self.G)
        self.ema = EMA(self.G, config.ema)
        self.warm_starts = WarmStarts.of_run(config, self.networks())
        self.optimizers = {
            "G": make_adam(self.G, config.optim.G),
            "D": make_adam(self.D, config.optim.D),
        }
        scaled = self.networks() if config.speed.precision == "float16" else {}
        self.loss_scalers = {name: LossScaler(device) for name in scaled}

    def networks(self) -> dict[str, nn.Module]:
        """The two networks by name."""
        return {"G": self.G, "D": self.D}

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state under its name: `G.`, `D.`, `G_ema.`, `optim_G.`, `optim_D.` and the path.

        And `sigma_start.` with the vectors from which sigma_0 regularization or clamping starts, where either is on,
        `loss_scale.` with what float16's loss scaling stands at.
        """
        named: dict[str, Tensor] = {}
        modules: dict[str, nn.Module] = {**self.networks(), "G_ema": self.ema.network}
        for prefix, network in modules.items():
            named.update({f"{prefix}.{name}": tensor for name, tensor in network.state_dict().items()})
        for prefix, network in self.networks().items():
            moments = self.optimizers[prefix].state
            for name, parameter in network.named_parameters():
                named.update({f"optim_{prefix}.{name}.{key}": value for key, value in moments[parameter].items()})
        for prefix, scaler in self.loss_scalers.items():
            named.update({f"loss_scale.{prefix}.{key}": value for key, value in scaler.tensors().items()})
        return named | self.warm_starts.tensors()

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Copy `tensors` into the state's own, which keep their device and memory format.

        The vectors from which sigma_0 regularization or clamping starts, and float16's loss scales, may be missing or
        superfluous: a changed configuration turns them on or off, and they are then initialized or ignored.

        Raises `UserError`, before anything is copied, where names, shapes or types differ from the state's.
        """
        own = self.tensors()
        tensors = {name: tensor for name, tensor in tensors.items() if name in own or not _may_be_new(name)}
        own = {name: tensor for name, tensor in own.items() if name in tensors or not _may_be_new(name)}
        if problem := _mismatch(own, tensors):
            raise UserError(
                f"the checkpoint has another architecture than the configuration: {problem}. Use the "
                f"configuration that the checkpoint was made with (its metadata holds it)."
            )
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
        self.step = step


def _may_be_new(name: str) -> bool:
    return name.startswith(("sigma_start.", "loss_scale.")) or name.endswith(".clamp.start")


def _mismatch(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """The first few differences in names and shapes, or an empty string."""
    problems = [f"{name} is missing" for name in own if name not in given]
    problems += [f"{name} is unknown" for name in given if name not in own]
    problems += [
        f"{name} is {given[name].dtype} {list(given[name].shape)}, expected {tensor.dtype} {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and (given[name].shape != tensor.shape or given[name].dtype != tensor.dtype)
    ]
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return ", ".join(problems[:3]) + more

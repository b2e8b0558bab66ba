"""Changes of the weights themselves, and of any field by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from biggan.config import RENAMED, Config, fields
from biggan.errors import UserError, check_known
from interventions.changes.base import Change, Network, amount, value_of, whole

if TYPE_CHECKING:
    from torch import Tensor

    from biggan.training.state import TrainingState

_RELATIVE = r"[x/]\d+(\.\d+)?"
"""x2 and /2, as `Amount` writes them."""


@dataclass(frozen=True)
class TakeWeights(Change, name="weights", paper=""):
    """Load G or D from another checkpoint: weights, Spectral Normalization's vectors, statistics; for G also its
    average.

    Adam's moments are loaded too (`take`), stay as they are (`keep`), or become zero with the count reset (`zero`).
    """

    file: str
    moments: Literal["take", "keep", "zero"] = "take"
    network: Network = "G"

    def check(self, state: TrainingState, config: Config) -> None:
        self._tensors(state)

    def operate(self, state: TrainingState, config: Config) -> dict[str, Any]:
        own = state.tensors()
        tensors, digest, step = self._tensors(state)
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
        if self.moments == "zero":
            for name, tensor in own.items():
                if name.startswith(f"optim_{self.network}."):
                    tensor.zero_()
        return {"file": self.file, "digest": digest, "of_step": step, "moments": self.moments}

    def touches(self) -> set[str]:
        return {f"the weights of {self.network}", f"the moments of {self.network}"}

    def _tensors(self, state: TrainingState) -> tuple[dict[str, Tensor], str, int]:
        from biggan.run.checkpoint import read_checkpoint

        other = read_checkpoint(self.file)
        prefixes = [f"{self.network}."] + (["G_ema."] if self.network == "G" else [])
        prefixes += [f"optim_{self.network}."] if self.moments == "take" else []
        own = {name: tensor for name, tensor in state.tensors().items() if name.startswith(tuple(prefixes))}
        self._check_there(other.tensors)
        wrong = [n for n, t in own.items() if n not in other.tensors or other.tensors[n].shape != t.shape]
        if wrong:
            raise UserError(
                f"{self.network} of {self.file} has another architecture: {wrong[0]} is missing or has another shape. "
                f"Choose a checkpoint of a run with the same `model`."
            )
        return {name: other.tensors[name] for name in own}, other.digest, other.step

    def _check_there(self, found: Mapping[str, Tensor]) -> None:
        """Raise `UserError` where the file lacks the network, or its moments: imported ones may."""
        if not any(name.startswith(f"{self.network}.") for name in found):
            held = sorted({name.partition(".")[0] for name in found if not name.startswith("optim_")})
            raise UserError(
                f"{self.file} holds no {self.network}, but {', '.join(held) or 'nothing'}. Choose a checkpoint that "
                f"was saved in training, or imported with {self.network}."
            )
        if self.moments == "take" and not any(name.startswith(f"optim_{self.network}.") for name in found):
            raise UserError(
                f"{self.file} holds no moments of {self.network}'s Adam. Give moments: zero, or keep the run's own "
                f"(--weights '{{network: {self.network}, file: {self.file}, moments: zero}}')."
            )


@dataclass(frozen=True)
class AverageAsG(Change, name="average-as-G", paper=""):
    """Continue G from its average: the average's parameters become G's.

    The average lies behind G, where several hundred steps of noise cancel. Adam's moments stay as they are (`keep`), or
    become zero with the count reset (`zero`).
    """

    moments: Literal["keep", "zero"] = "keep"

    def check(self, state: TrainingState, config: Config) -> None:
        if state.step <= config.ema.start:
            raise UserError(
                f"the average is a plain copy of G up to step {config.ema.start} (ema.start), and this is step "
                f"{state.step}: average-as-G changes nothing. Omit it."
            )

    def operate(self, state: TrainingState, config: Config) -> dict[str, Any]:
        distance = 0.0
        for own, averaged in zip(state.G.parameters(), state.ema.network.parameters(), strict=True):
            distance += float((own - averaged).double().square().sum())
            own.copy_(averaged)
        if self.moments == "zero":
            for moments in state.optimizers["G"].state.values():
                for tensor in moments.values():
                    tensor.zero_()
        return {"distance": distance**0.5, "moments": self.moments}

    def touches(self) -> set[str]:
        return {"the weights of G"} | ({"the moments of G"} if self.moments == "zero" else set())


@dataclass(frozen=True)
class Reinitialize(Change, name="reinit", paper=""):
    """Reinitialize G, D, or one of its layers or blocks by name. Adam's moments of these weights become zero.

    The new weights differ from those that the run began with. G's average is not reset.
    """

    layer: str | None = None
    network: Network = "D"

    def check(self, state: TrainingState, config: Config) -> None:
        self._prefix(state)

    def operate(self, state: TrainingState, config: Config) -> dict[str, Any]:
        import torch

        from biggan.networks.initialization import initialize

        prefix, network = self._prefix(state), state.networks()[self.network]
        with torch.random.fork_rng(devices=[]):
            fresh = type(network)(config.model, config.speed)
        initialize(fresh, config.model.init, config.seed, f"{self.network}@{state.step}")
        own, drawn = network.state_dict(), fresh.state_dict()
        names = [name for name in own if name.startswith(prefix)]
        for name in names:
            own[name].copy_(drawn[name])
        for name, parameter in network.named_parameters():
            if name in names:
                for moment in state.optimizers[self.network].state[parameter].values():
                    moment.zero_()
        return {"drawn": names}

    def touches(self) -> set[str]:
        return {f"the weights of {self.network}", f"the moments of {self.network}"}

    def _prefix(self, state: TrainingState) -> str:
        if self.layer is None:
            return ""
        network = state.networks()[self.network]
        known = [name for name, module in network.named_modules() if name and list(module.parameters())]
        layer = self.layer.removeprefix(f"{self.network}.")
        check_known(layer, known, f"layer of {self.network}")
        return f"{layer}."


@cache  # the parser of all fields takes a tenth of a second to make
def _typed(name: str, text: str) -> Any:
    """A field's value, read and checked as `biggan-train` does."""
    from biggan.cli.options import parse

    return parse([f"--{name}={text}"]).levels[-1][name]


@dataclass(frozen=True)
class SetField(Change, name="set", paper=""):
    """Set any field of the configuration by name: `--set loss.margin=0.5`, or relative: `--set model.ch_G=x1.5`."""

    field: str
    value: Any = None

    @classmethod
    def read(cls, value: Any) -> SetField:
        """From `section.field=value`, the value read and checked as `biggan-train` does, or from a mapping."""
        if isinstance(value, Mapping):
            found = super().read(value)
            return dataclasses.replace(found, field=RENAMED.get(found.field, found.field))
        name, equals, text = str(value).partition("=")
        name = RENAMED.get(name, name)
        if not equals:
            raise UserError(f"--set is '{value}', expected FIELD=VALUE, for example loss.margin=0.5.")
        check_known(name, [field for field, _ in fields()], "configuration field")
        if re.fullmatch(_RELATIVE, text):
            return cls(name, text)
        return cls(name, _typed(name, text))

    def fields(self, config: Config) -> dict[str, Any]:
        if not (isinstance(self.value, str) and re.fullmatch(_RELATIVE, self.value)):
            return {self.field: self.value}
        before = value_of(config, self.field)
        if before is None and self.field in ("model.ch_G", "model.ch_D"):
            before = config.model.ch
        if not (before is None or (isinstance(before, (int, float)) and not isinstance(before, bool))):
            return {self.field: self.value}
        return {self.field: (whole if isinstance(before, int) else amount)(self.value, before, self.field)}

    def describe(self) -> str:
        return f"{self.field}={self.value}"

"""Changes of the optimization: which network trains, learning rates, Adam, updates per step, batch and data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from biggan.config import Config
from interventions.changes.base import Amount, Change, Network, NetworkChoice, amount, each, value_of, whole

if TYPE_CHECKING:
    from biggan.training.state import TrainingState


@dataclass(frozen=True)
class Freeze(Change, name="freeze", paper="Appendix G.1"):
    """Freeze G or D, as a constant function, while the other trains."""

    network: Network

    def fields(self, config: Config) -> dict[str, Any]:
        return {"train.freeze": self.network}


@dataclass(frozen=True)
class LearningRate(Change, name="lr", paper="Appendix G.1; sweep in I"):
    """The learning rate of G, D or both: a number, or x2, /2."""

    value: Amount
    network: NetworkChoice = "both"

    def fields(self, config: Config) -> dict[str, Any]:
        names = [f"optim.{network}.lr" for network in each(self.network)]
        return {name: amount(self.value, value_of(config, name), name) for name in names}


@dataclass(frozen=True)
class Betas(Change, name="betas", paper="Appendix G.1; sweep in I"):
    """Adam's beta1, and optionally beta2, of G, D or both."""

    beta1: float
    beta2: float | None = None
    network: NetworkChoice = "both"

    def fields(self, config: Config) -> dict[str, Any]:
        given = {"beta1": self.beta1} | ({} if self.beta2 is None else {"beta2": self.beta2})
        return {f"optim.{n}.{name}": value for n in each(self.network) for name, value in given.items()}


@dataclass(frozen=True)
class ZeroMoments(Change, name="moments", paper="Appendix G.1"):
    """Set Adam's first moments, second moments or both to zero. Its step count is kept or reset.

    The count determines the size of the first step. If the second moments are zero and the count is kept, their bias is
    no longer corrected: the first step is 1 / sqrt(1 - beta2) times as large as usual (31.6 at 0.999). If the count is
    reset, it is the first step of a new Adam.
    """

    which: Literal["first", "second", "both"] = "both"
    count: Literal["kept", "reset"] = "kept"
    network: NetworkChoice = "both"

    def operate(self, state: TrainingState, config: Config) -> dict[str, Any]:
        keys = {"first": ["exp_avg"], "second": ["exp_avg_sq"], "both": ["exp_avg", "exp_avg_sq"]}[self.which]
        keys += ["step"] if self.count == "reset" else []
        said: dict[str, Any] = {"zeroed": self.which, "step_count": self.count}
        for network in each(self.network):
            moments = list(state.optimizers[network].state.values())
            taken = max(int(one["step"]) for one in moments)
            for one in moments:
                for key in keys:
                    one[key].zero_()
            adam = config.optim.G if network == "G" else config.optim.D
            said[f"first_step_factor_{network}"] = self.first_step(taken, adam.beta1, adam.beta2)
        return said

    def first_step(self, taken: int, beta1: float, beta2: float) -> float:
        """The size of the first step relative to usual, after `taken` steps, if gradients keep their size."""
        count = 1 + (taken if self.count == "kept" else 0)
        first = (1 - beta1 ** (1 if self.which != "second" else taken + 1)) / (1 - beta1**count)
        second = (1 - beta2 ** (1 if self.which != "first" else taken + 1)) / (1 - beta2**count)
        return round(first / math.sqrt(second), 6)

    def touches(self) -> set[str]:
        return {f"the moments of {network}" for network in each(self.network)}


@dataclass(frozen=True)
class OneNumber(Change):
    """Base of the changes of one field with a number."""

    value: Amount
    field: ClassVar[str] = ""
    is_whole: ClassVar[bool] = False

    def fields(self, config: Config) -> dict[str, Any]:
        convert = whole if self.is_whole else amount
        return {self.field: convert(self.value, value_of(config, self.field), self.field)}


@dataclass(frozen=True)
class DSteps(OneNumber, name="d-steps", paper="Appendix G.1; C"):
    """D updates for each G update. All other draws stay as they were."""

    field = "train.d_steps"
    is_whole = True


@dataclass(frozen=True)
class BatchSize(OneNumber, name="batch", paper="Section 3"):
    """The batch size. It also changes which images are drawn when, and the noise."""

    field = "train.batch"
    is_whole = True


@dataclass(frozen=True)
class Clip(Change, name="clip", paper="Appendix H"):
    """Clip the gradient of G, D or both: `total` limits its whole norm, `tensor` the norm of each tensor."""

    total: float | None = None
    tensor: float | None = None
    network: NetworkChoice = "both"

    def fields(self, config: Config) -> dict[str, Any]:
        given = {"clip_global": self.total, "clip_tensor": self.tensor}
        return {f"optim.{n}.{name}": value for n in each(self.network) for name, value in given.items()}


@dataclass(frozen=True)
class Average(Change, name="ema", paper="Section 3; Appendix C"):
    """The decay of G's average, and the step up to which it is a plain copy of G. It does not affect training."""

    decay: float
    start: int | None = None

    def fields(self, config: Config) -> dict[str, Any]:
        return {"ema.decay": self.decay} | ({} if self.start is None else {"ema.start": self.start})


@dataclass(frozen=True)
class TrainPerClass(OneNumber, name="train-per-class", paper="Section 5.2: the data's size"):
    """Train on only the first N images of each class."""

    field = "data.train_per_class"
    is_whole = True


@dataclass(frozen=True)
class Seed(OneNumber, name="seed", paper=""):
    """Continue under another seed: other noise, labels and image order from here on, with the same validation
    images."""

    field = "seed"
    is_whole = True

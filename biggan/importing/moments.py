"""The state of an Adam that another program saved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.errors import UserError
from biggan.importing.foreign import cannot_import


def moments_of(
    path: Path,
    parameters: Mapping[str, Tensor],
    optimizer: Any,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Adam's state of a saved optimizer by parameter name, and its settings.

    A saved optimizer numbers its parameters in the order in which the network has them, that of `parameters` (name ->
    weight).

    Raises `UserError` where this is not Adam's state of these parameters.
    """
    if not isinstance(optimizer, Mapping) or not {"state", "param_groups"} <= optimizer.keys():
        raise UserError(f"{path} holds no optimizer's state. Expected `state` and `param_groups`.")
    groups, tensors = optimizer["param_groups"], optimizer["state"]
    settings = {name: value for name, value in groups[0].items() if name != "params"}
    if any("fp32_p" in state for state in tensors.values()):
        what = "it is of training in half precision (Adam16), whose weights are copies"
        raise cannot_import(path, what, "Import the networks alone with --no-optimizers.")
    numbers = [number for group in groups for number in group["params"]]
    _check_groups(path, groups, settings, len(numbers), len(parameters))
    found: dict[str, Tensor] = {}
    for number, (name, weight) in zip(numbers, parameters.items(), strict=True):
        state = tensors.get(number, {})
        step = state.get("step", 0)
        found[f"{name}.step"] = torch.as_tensor(float(step), dtype=torch.float32)
        for key in ("exp_avg", "exp_avg_sq"):
            moment = state.get(key, None if state else torch.zeros_like(weight))
            if not isinstance(moment, torch.Tensor) or moment.shape != weight.shape:
                came = "missing" if moment is None else f"of shape {list(getattr(moment, 'shape', []))}"
                raise cannot_import(
                    path,
                    f"its {key} of {name} is {came}, expected {list(weight.shape)}: this is not Adam's state of the "
                    "network beside it",
                    "Give the optimizer that was saved with it, or import the networks alone with --no-optimizers.",
                )
            found[f"{name}.{key}"] = moment
    return found, settings


def _check_groups(path: Path, groups: list[Any], settings: Mapping[str, Any], numbers: int, parameters: int) -> None:
    alone = "Import the networks alone with --no-optimizers."
    if "betas" not in settings:
        raise cannot_import(path, "its optimizer is not Adam", alone)
    if any({k: v for k, v in group.items() if k != "params"} != settings for group in groups):
        raise cannot_import(
            path, "its groups of parameters have different settings, and this program's Adam has one", alone
        )
    if settings.get("amsgrad") or settings.get("weight_decay"):
        what = "amsgrad" if settings.get("amsgrad") else f"a weight decay of {settings['weight_decay']}"
        raise cannot_import(path, f"its Adam has {what}, which this program's has not", alone)
    if numbers != parameters:
        raise cannot_import(path, f"it is of {numbers} parameters, and the network beside it has {parameters}", alone)

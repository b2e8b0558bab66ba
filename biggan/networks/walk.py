"""What a network holds, as `nn.Module.modules`, `parameters` and `buffers` give it, without making names.

An update asks for this a dozen times, and making every tensor's name took longer than many operators.
"""

from __future__ import annotations

from torch import Tensor, nn


def modules_of(network: nn.Module) -> list[nn.Module]:
    """The network and everything in it, each once, parents before children."""
    found: dict[nn.Module, None] = {}
    waiting = [network]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting.extend(child for child in reversed(module._modules.values()) if child is not None)
    return list(found)


def parameters_of(network: nn.Module) -> list[nn.Parameter]:
    """All parameters, each once."""
    found = (parameter for module in modules_of(network) for parameter in module._parameters.values())
    return list({id(one): one for one in found if one is not None}.values())


def buffers_of(network: nn.Module) -> list[Tensor]:
    """All buffers, each once."""
    found = (buffer for module in modules_of(network) for buffer in module._buffers.values())
    return list({id(one): one for one in found if one is not None}.values())

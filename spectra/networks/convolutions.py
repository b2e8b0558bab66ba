"""Stored convolutions as the linear maps that they are on images, and what their spectra will cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spectra.linalg.operators import ImageOperator, convolution_operator
from spectra.networks.checkpoint_files import StoredWeight

MOST_PRODUCTS = 1024
"""Products in each direction after which the iteration gives up: 64 blocks of 16 vectors."""

PER_SECOND = 1e10
"""Multiplications a second and thread, for an estimate in words (measured: 6e9 to 1.2e10)."""

WORTH_SAYING = 10.0
"""Seconds from which the estimate is said."""


@dataclass(frozen=True)
class Convolution:
    """The properties of convolutions that a file does not contain, for their spectrum as operators; the same for all.

    Attributes:
        size: spatial size of the input, one number for each axis.
        stride, dilation: as the layer's.
        padding: on each side; None for half of each kernel, which keeps the size at stride 1.
        padding_mode: "zeros" or "circular".
    """

    size: tuple[int, ...]
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    padding_mode: str = "zeros"


def stored_operator(weight: Tensor, convolution: Convolution) -> ImageOperator:
    """The linear map of a stored kernel (out, in, axes).

    Raises:
        ValueError: the kernel does not take inputs of the size.
    """
    return convolution_operator(_layer(tuple(weight.shape), convolution), convolution.size, weight)


def _layer(shape: tuple[int, ...], convolution: Convolution) -> nn.Module:
    """A convolution with a weight of this shape, without memory of its own."""
    kernel = shape[2:]
    halves = tuple(convolution.dilation * (side - 1) // 2 for side in kernel)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(shape) - 3]
    return kind(
        shape[1],
        shape[0],
        kernel,
        stride=convolution.stride,
        padding=halves if convolution.padding is None else convolution.padding,
        dilation=convolution.dilation,
        padding_mode=convolution.padding_mode,
        bias=False,
        device="meta",
    )


def has_operator(weight: StoredWeight, convolution: Convolution) -> bool:
    """Whether a weight is a convolution with as many axes as the size, and can be read."""
    return weight.reason is None and weight.kind == f"conv{len(convolution.size)}d"


def check_size(convolution: Convolution, weights: Sequence[StoredWeight]) -> str | None:
    """Check that a size fits some convolution of a file; returns what it will cost, in words, where that is much.

    Raises:
        ValueError: no convolution has as many axes, or none takes inputs of the size.
    """
    size = convolution.size
    kinds = sorted({weight.kind for weight in weights if weight.kind.startswith("conv")})
    if f"conv{len(size)}d" not in kinds:
        holds = f"only {' and '.join(kinds)}" if kinds else "no convolutions"
        raise ValueError(
            f"an operator's size has one number for each spatial axis: {'x'.join(map(str, size))} fits "
            f"conv{len(size)}d weights, and the file holds {holds}"
        )
    mine = [weight for weight in weights if has_operator(weight, convolution)]
    outputs = [output_size(weight.shape[2:], convolution) for weight in mine]
    if mine and not any(outputs):
        stored_operator(torch.zeros(mine[0].shape), convolution)  # raises, with torch's reason
    return _cost(convolution, [(weight.shape, out) for weight, out in zip(mine, outputs, strict=True) if out])


def output_size(kernel: tuple[int, ...], convolution: Convolution) -> tuple[int, ...]:
    """Spatial size of the outputs; empty where the kernel does not take inputs of the size."""
    sizes = []
    for side, length in zip(kernel, convolution.size, strict=True):
        reach = convolution.dilation * (side - 1)
        padding = reach // 2 if convolution.padding is None else convolution.padding
        left = length + 2 * padding - reach - 1
        if left < 0 or (convolution.padding_mode != "zeros" and padding > length):
            return ()
        sizes.append(left // convolution.stride + 1)
    return tuple(sizes)


def _cost(convolution: Convolution, maps: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> str | None:
    """In words, what maps cost at most, given as (kernel, size of the outputs); None where it is little."""
    work, largest = 0.0, (0, 0)
    for shape, out in maps:
        sides = (shape[0] * math.prod(out), shape[1] * math.prod(convolution.size))
        products = min(MOST_PRODUCTS, *sides)
        # The adjoint is a forward and a backward pass; each block is orthogonalized twice against all before it.
        work += products * 3 * math.prod(shape) * math.prod(out) + products**2 * sum(sides)
        largest = max(largest, sides, key=math.prod)
    seconds = work / PER_SECOND / torch.get_num_threads()
    if seconds < WORTH_SAYING:
        return None
    time = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    return (
        f"{len(maps)} convolution{'s' if len(maps) > 1 else ''} as linear maps at "
        f"{'x'.join(map(str, convolution.size))}, the largest {largest[0]} x {largest[1]}: about {time} at most; "
        "a smaller size, a larger --tol (1e-3) or --k 1 costs less"
    )

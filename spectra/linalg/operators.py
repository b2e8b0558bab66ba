"""Linear operators: what the iterative estimators need of a matrix, and the convolution as the linear map it is.

A convolution's weight reshaped to out x rest (what Spectral Normalization divides by and the paper's spectra show) is
not the map the layer applies to an image: that one has a row per output pixel and channel. Its largest singular value
is the layer's Lipschitz constant, and it depends on the spatial size, the stride, the padding and the dilation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@runtime_checkable
class LinearOperator(Protocol):
    """A real linear map from ``shape[1]`` to ``shape[0]`` dimensions, applied to many vectors at once.

    Vectors are rows, so that a batch of them is contiguous: ``forward`` takes (b, shape[1]) to (b, shape[0]) and
    ``adjoint`` takes (b, shape[0]) to (b, shape[1]). Both compute in ``dtype`` (float32 or float64) on ``device``.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def forward(self, vectors: Tensor) -> Tensor: ...

    def adjoint(self, vectors: Tensor) -> Tensor: ...


class ImageOperator:
    """A linear map between images, given as a function of a batch (b, channels, *size); its transpose is the
    function's gradient.

    Args:
        function: linear in its argument, without a bias.
        in_shape: (channels, *size) of one input.
        dtype: float32 or float64; the function's weights must have it.
        device: where the function computes.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        in_shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._function = function
        self.in_shape = tuple(in_shape)
        self.dtype = dtype
        self.device = torch.device(device)
        with torch.no_grad():
            out = function(torch.zeros(1, *self.in_shape, dtype=dtype, device=device))
        self.out_shape = tuple(out.shape[1:])
        self.shape = (math.prod(self.out_shape), math.prod(self.in_shape))

    def forward(self, vectors: Tensor) -> Tensor:
        """Rows of flattened inputs to rows of flattened outputs."""
        with torch.no_grad():
            return self._function(vectors.reshape(-1, *self.in_shape)).reshape(len(vectors), -1)

    def adjoint(self, vectors: Tensor) -> Tensor:
        """Rows of flattened outputs to rows of flattened inputs, by the transposed map."""
        inputs = vectors.new_zeros(len(vectors), *self.in_shape).requires_grad_()
        with torch.enable_grad():
            outputs = self._function(inputs)
        (gradient,) = torch.autograd.grad(outputs, inputs, vectors.reshape(outputs.shape))
        return gradient.reshape(len(vectors), -1)

    def dense(self) -> Tensor:
        """The matrix itself, shape[0] x shape[1], column by column. For small cases: it has shape[0] * shape[1]
        entries."""
        columns = [
            self.forward(block) for block in torch.eye(self.shape[1], dtype=self.dtype, device=self.device).split(256)
        ]
        return torch.cat(columns).T.contiguous()


def convolution_operator(
    layer: nn.Module,
    size: int | Sequence[int],
    weight: Tensor | None = None,
) -> ImageOperator:
    """The linear map of a convolution (1-D to 3-D, transposed or not) on inputs of the given spatial size, without
    its bias.

    Stride, padding (zeros, circular, reflect, replicate, 'same', 'valid'), dilation, groups and output_padding are
    the layer's.

    Args:
        layer: ``nn.Conv1d/2d/3d`` or ``nn.ConvTranspose1d/2d/3d``.
        size: of the input, one number for every spatial axis or one each.
        weight: used in place of ``layer.weight``, for example the normalized one. float16 and bfloat16 become float32.

    Raises:
        TypeError: the layer is not a convolution.
        ValueError: the size is missing, does not fit the layer's number of axes, or is too small for its kernel.
    """
    if not isinstance(layer, CONVOLUTIONS):
        raise TypeError(
            f"a convolution operator needs a convolution, and this layer is a {type(layer).__name__}; for other layers "
            "the weight matrix is the operator"
        )
    weight = (layer.weight if weight is None else weight).detach()
    axes = weight.dim() - 2
    size = _full_size(size, axes)
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    weight = weight.to(dtype)
    apply = _transposed(layer, weight, axes) if layer.transposed else _plain(layer, weight, axes)
    try:
        return ImageOperator(apply, (layer.in_channels, *size), dtype, weight.device)
    except RuntimeError as error:
        raise ValueError(
            f"a {type(layer).__name__} with kernel {tuple(layer.kernel_size)} does not take inputs of "
            f"{'x'.join(map(str, size))}: {str(error).splitlines()[0]}"
        ) from error


def _full_size(size: int | Sequence[int], axes: int) -> tuple[int, ...]:
    if size is None:
        raise ValueError(
            f"a convolution is an operator only for a given input size: pass size, one number or {axes} of them"
        )
    full = (size,) * axes if isinstance(size, int) else tuple(int(part) for part in size)
    if len(full) != axes or min(full) < 1:
        raise ValueError(
            f"this convolution has {axes} spatial {'axis' if axes == 1 else 'axes'}, so its input size is {axes} "
            f"positive number{'' if axes == 1 else 's'}; got {size!r}"
        )
    return full


def _plain(layer: Any, weight: Tensor, axes: int) -> Callable[[Tensor], Tensor]:
    convolve = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    mode = layer.padding_mode
    padding = layer.padding if mode == "zeros" else 0

    def apply(images: Tensor) -> Tensor:
        if mode != "zeros":
            images = F.pad(images, layer._reversed_padding_repeated_twice, mode=mode)
        return convolve(images, weight, None, layer.stride, padding, layer.dilation, layer.groups)

    return apply


def _transposed(layer: Any, weight: Tensor, axes: int) -> Callable[[Tensor], Tensor]:
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[axes - 1]

    def apply(images: Tensor) -> Tensor:
        return convolve(
            images, weight, None, layer.stride, layer.padding, layer.output_padding, layer.groups, layer.dilation
        )

    return apply


class Scaled:
    """An operator divided by a number: keeps products of very large or very small operators within floating point."""

    def __init__(self, operator: LinearOperator, scale: float) -> None:
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self._operator, self._scale = operator, scale

    def forward(self, vectors: Tensor) -> Tensor:
        """Rows to rows."""
        return self._operator.forward(vectors) / self._scale

    def adjoint(self, vectors: Tensor) -> Tensor:
        """Rows to rows, by the transpose."""
        return self._operator.adjoint(vectors) / self._scale

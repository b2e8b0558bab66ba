"""The convolution as a linear map: against a matrix built entry by entry, and against the Fourier formula."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from spectra import convolution_operator, top_singular_values


def explicit_matrix(layer: nn.Module, size: tuple[int, ...]) -> np.ndarray:
    """The matrix of a convolution on inputs of a size, from the definition: zeros or circular padding, numbers only.

    A transposed convolution is the transpose of the convolution that has its weight; its input is that one's output.
    """
    weight = layer.weight.detach().double().numpy()
    kernel, axes = weight.shape[2:], weight.ndim - 2
    stride, dilation, groups = layer.stride, layer.dilation, layer.groups
    padding = layer.padding
    if padding == "same":
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    if layer.transposed:
        inner = size
        extra = layer.output_padding
        outer = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + e + 1
            for n, s, p, d, k, e in zip(size, stride, padding, dilation, kernel, extra, strict=True)
        )
    else:
        outer = size
        inner = tuple(
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, s, p, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        )
    many, few = weight.shape[0], weight.shape[1] * groups  # channels of the convolution's output and input
    matrix = np.zeros((many, *inner, few, *outer))
    per_group = many // groups
    for out in range(many):
        first = (out // per_group) * weight.shape[1]
        for into, place, offset in itertools.product(range(weight.shape[1]), np.ndindex(*inner), np.ndindex(*kernel)):
            at = [p * s - pad + o * d for p, s, pad, o, d in zip(place, stride, padding, offset, dilation, strict=True)]
            if layer.padding_mode == "circular":
                at = [a % n for a, n in zip(at, outer, strict=True)]
            if all(0 <= a < n for a, n in zip(at, outer, strict=True)):
                matrix[(out, *place, first + into, *at)] += weight[(out, into, *offset)]
    flat = matrix.reshape(many * int(np.prod(inner)), few * int(np.prod(outer)))
    assert axes == len(size)
    return flat.T if layer.transposed else flat


CASES = [
    (nn.Conv1d(2, 3, 3), (7,)),
    (nn.Conv1d(2, 4, 4, stride=3, padding=2, dilation=2), (11,)),
    (nn.Conv2d(2, 3, 3), (6, 5)),
    (nn.Conv2d(2, 3, 3, padding=1), (5, 5)),
    (nn.Conv2d(3, 2, (3, 2), stride=(2, 1), padding=(0, 1)), (6, 5)),
    (nn.Conv2d(2, 2, 3, stride=2, padding=1), (7, 6)),
    (nn.Conv2d(2, 3, 3, dilation=2, padding=2), (6, 7)),
    (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (6, 5)),
    (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 5)),
    (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (5, 6)),
    (nn.Conv2d(2, 3, 3, padding=1, stride=2, padding_mode="circular"), (6, 6)),
    (nn.Conv2d(3, 5, 1), (3, 3)),
    (nn.Conv3d(1, 2, 2, padding=1, stride=2), (3, 4, 3)),
    (nn.ConvTranspose1d(3, 2, 4, stride=2, padding=1), (5,)),
    (nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), (4, 3)),
    (nn.ConvTranspose2d(2, 3, 3, dilation=2), (3, 4)),
    (nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), (3, 3)),
    (nn.ConvTranspose3d(1, 2, 2, stride=2), (2, 3, 2)),
]


def name(case: tuple[nn.Module, tuple[int, ...]]) -> str:
    return repr(case[0]).replace("kernel_size", "k") + "x".join(map(str, case[1]))


@pytest.mark.parametrize("case", CASES, ids=name)
def test_forward_adjoint_and_spectrum_against_the_explicit_matrix(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    layer, size = case
    layer = copy.deepcopy(layer).double()
    torch.manual_seed(0)
    nn.init.normal_(layer.weight)
    matrix = torch.from_numpy(explicit_matrix(layer, size).copy())
    operator = convolution_operator(layer, size)
    assert operator.shape == tuple(matrix.shape)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, matrix.shape[1], generator=generator, dtype=torch.float64)
    y = torch.randn(4, matrix.shape[0], generator=generator, dtype=torch.float64)
    assert torch.allclose(operator.forward(x), x @ matrix.T, atol=1e-12)
    assert torch.allclose(operator.adjoint(y), y @ matrix, atol=1e-12)
    assert torch.allclose(operator.dense(), matrix, atol=1e-12)
    truth = torch.linalg.svdvals(matrix)
    for method in ("exact", "krylov", "svds"):
        found = top_singular_values(operator, 3, method, 1e-6)
        assert found.converged or method == "svds"  # ARPACK misses copies: dilation makes several equal maps of one
        if found.converged:
            assert float((found.values - truth[:3]).abs().max()) <= 1e-6 * float(truth[0]), method
        assert found.left.shape == (matrix.shape[0], 3)
        assert found.right.shape == (matrix.shape[1], 3)


@pytest.mark.parametrize(
    ("channels", "size", "kernel"), [((3, 5), (8, 8), 3), ((4, 2), (7, 9), 5), ((1, 1), (16, 4), 3)]
)
def test_circular_padding_against_the_fourier_formula(
    channels: tuple[int, int], size: tuple[int, int], kernel: int
) -> None:
    """The singular values are those of the kernel's Fourier transform, an out x in matrix at each frequency."""
    layer = nn.Conv2d(*channels, kernel, padding=kernel // 2, padding_mode="circular").double()
    transform = np.fft.fft2(layer.weight.detach().numpy(), size, axes=(2, 3)).transpose(2, 3, 0, 1)
    truth = np.sort(np.linalg.svd(transform, compute_uv=False).ravel())[::-1]
    for method in ("exact", "krylov"):
        found = top_singular_values(convolution_operator(layer, size), 6, method, 1e-8)
        assert found.converged
        assert np.abs(found.values.numpy() - truth[:6]).max() <= 1e-8 * truth[0]


def test_the_layers_gain_on_images_is_bounded_by_the_operator_and_not_by_the_matrix() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1, bias=False).double()
    nn.init.constant_(layer.weight, 0.1)
    operator = float(top_singular_values(convolution_operator(layer, 16)).values[0])
    matrix = float(top_singular_values(layer.weight.flatten(1)).values[0])
    images = torch.ones(1, 3, 16, 16, dtype=torch.float64)
    gain = float(layer(images).detach().norm() / images.norm())
    assert matrix < gain <= operator * (1 + 1e-5)


def test_float32_and_half_weights_and_another_weight() -> None:
    layer = nn.Conv2d(3, 8, 3, padding=1).bfloat16()
    operator = convolution_operator(layer, (12, 12))
    assert operator.dtype == torch.float32
    truth = torch.linalg.svdvals(operator.dense().double())[:3]
    found = top_singular_values(operator, 3, "auto")
    assert found.method == "krylov"
    assert float((found.values - truth).abs().max()) <= 1e-5 * float(truth[0])
    halved = top_singular_values(convolution_operator(layer, 12, layer.weight / 2), 3)
    assert torch.allclose(halved.values, truth / 2, rtol=2e-5)


@pytest.mark.parametrize("scale", [1e18, 1e-18, float("nan"), 0.0])
def test_operators_of_any_scale(scale: float) -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1)
    truth = float(top_singular_values(convolution_operator(layer, 6)).values[0])
    with torch.no_grad():
        layer.weight *= scale
    found = top_singular_values(convolution_operator(layer, 6), 3, "krylov")
    if scale == scale:
        assert found.converged
        assert float(found.values[0]) == pytest.approx(truth * scale, rel=2e-5, abs=0)
    else:
        assert not found.finite


def test_an_operator_that_takes_constant_images_to_zero_is_not_zero() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular", bias=False).double()
    with torch.no_grad():  # the Laplacian, scaled so that it must be rescaled first
        layer.weight[:] = 1e-20 * torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    operator = convolution_operator(layer, 30)
    assert float(operator.forward(torch.ones(1, 900, dtype=torch.float64)).abs().max()) < 1e-30
    found = top_singular_values(operator, 1, "krylov")
    assert found.converged
    assert float(found.values[0]) == pytest.approx(8e-20, rel=1e-5, abs=0)


def test_auto_does_not_write_out_a_large_operator() -> None:
    wide = convolution_operator(nn.Conv2d(64, 1, 3, stride=8), 130)  # 256 x 1,081,600
    assert min(wide.shape) <= 384
    assert top_singular_values(wide, 1, tol=1e-2).method == "krylov"


def test_reading_an_operator_leaves_the_layer_alone() -> None:
    layer = nn.Conv2d(2, 3, 3, padding=1)
    layer.train()
    before = layer.weight.detach().clone()
    with torch.no_grad():
        top_singular_values(convolution_operator(layer, 6), 3, "krylov")
    assert layer.weight.grad is None
    assert layer.bias.grad is None
    assert layer.training
    assert torch.equal(layer.weight.detach(), before)


def test_bad_input() -> None:
    layer = nn.Conv2d(2, 3, 3)
    with pytest.raises(ValueError, match="pass size"):
        convolution_operator(layer, None)
    with pytest.raises(ValueError, match="2 spatial axes"):
        convolution_operator(layer, (4,))
    with pytest.raises(ValueError, match="positive"):
        convolution_operator(layer, 0)
    with pytest.raises(ValueError, match="does not take inputs of 2x2"):
        convolution_operator(layer, 2)
    with pytest.raises(TypeError, match="Linear"):
        convolution_operator(nn.Linear(2, 2), 4)
    large = convolution_operator(nn.Conv2d(16, 16, 3, padding=1), 64)
    with pytest.raises(ValueError, match="krylov"):
        top_singular_values(large, 3, "exact")

"""Normalization and attention against plain float64 references, and what may change state and what may not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from biggan.config import ModelConfig
from biggan.evaluation.standing import sampling_copy
from biggan.networks.batched_spectral_norm import normalized_weights
from biggan.networks.batchnorm import (
    Affine,
    AffineBatchNorm,
    BatchNorm,
    ConditionalAffine,
    ConditionalBatchNorm,
    collecting,
    move_running_statistics,
    not_collecting,
)
from biggan.networks.blocks import NonLocalBlock
from biggan.networks.factory import LayerFactory
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize
from biggan.networks.spectral_norm import SNConv2d, SNLinear, normalized


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("layer", [SNConv2d(5, 7, 3), SNConv2d(40, 3, 3), SNLinear(9, 200), SNLinear(30, 1)])
def test_spectral_norm_agrees_with_a_full_svd(layer: nn.Module) -> None:
    layer = layer.double()
    layer.prepare_spectral_norm(1e-4)
    layer.weight.data = normal(*layer.weight.shape, seed=1)
    layer.u.copy_(torch.nn.functional.normalize(normal(layer.weight.shape[0], seed=2), dim=0))
    for _ in range(3000):
        layer.normalized_weight(iterate=True)
    matrix = layer.weight.detach().flatten(1).numpy()
    assert layer.sigma_estimate().item() == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-9)
    assert np.linalg.svd(layer.normalized_weight().detach().flatten(1).numpy(), compute_uv=False)[0] == pytest.approx(1)


def test_spectral_norm_gradient_is_that_of_the_quotient() -> None:
    """d(W / u^T W v) with u, v constant: (g - <g, W/s> u v^T) / s."""
    layer = SNLinear(6, 4, bias=False).double()
    layer.prepare_spectral_norm(1e-4)
    start = torch.nn.functional.normalize(normal(4, seed=3), dim=0)
    layer.u.copy_(start)
    g, W = normal(4, 6, seed=4), layer.weight.detach()
    v = W.t() @ start / (W.t() @ start).norm()
    u = W @ v / (W @ v).norm()
    s = u @ W @ v
    with normalized(layer, iterate=True):
        torch.testing.assert_close(layer.applied, W / s)
        (layer.applied * g).sum().backward()
    torch.testing.assert_close(layer.u, u)
    torch.testing.assert_close(layer.weight.grad, (g - (g * W / s).sum() * torch.outer(u, v)) / s)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 1.0])
def test_spectral_norm_divides_by_epsilon_where_a_norm_is_smaller(scale: float, batched: bool) -> None:
    """v = W^T u / max(|W^T u|, eps), u = W v / max(|W v|, eps), sigma = u^T W v: eps far above a tiny W's norms."""
    eps, layer = 1e-3, SNLinear(6, 4, bias=False).double()
    layer.prepare_spectral_norm(eps)
    W, u = scale * normal(4, 6, seed=1).numpy(), torch.nn.functional.normalize(normal(4, seed=3), dim=0)
    layer.weight.data, layer.u = torch.from_numpy(W), u.clone()
    v = W.T @ u.numpy()
    v /= max(np.linalg.norm(v), eps)
    image = W @ v
    left = image / max(np.linalg.norm(image), eps)
    (weight,) = normalized_weights([layer], iterate=True) if batched else (layer.normalized_weight(iterate=True),)
    np.testing.assert_allclose(weight.detach().numpy(), W / (left @ image), rtol=1e-10)
    np.testing.assert_allclose(layer.u.numpy(), left, rtol=1e-10)


def test_the_epsilons_of_the_configuration_reach_every_layer() -> None:
    G = Generator(ModelConfig(resolution=8, ch=4, spectral_norm_eps=0.5, batchnorm_eps=0.25))
    layers = list(G.modules())
    assert {layer.eps_sn for layer in layers if hasattr(layer, "eps_sn")} == {0.5}
    assert {layer.eps for layer in layers if isinstance(layer, BatchNorm)} == {0.25}


@pytest.mark.parametrize("kind", ["plain", "conditional", "unshared"])
def test_batchnorm_in_evaluation_mode_adds_its_epsilon(kind: str) -> None:
    """(x - running mean) / sqrt(running variance + eps), in closed form."""
    x, eps = normal(5, 3, 4, 4, seed=1), 0.25
    if kind == "plain":
        layer = BatchNorm(3, eps=eps, momentum=0.1)
    elif kind == "unshared":
        layer = AffineBatchNorm(3, eps=eps, momentum=0.1)
    else:
        layer = ConditionalBatchNorm(3, nn.Linear(2, 3), nn.Linear(2, 3), eps=eps, momentum=0.1)
        for part in (layer.gain, layer.bias):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    layer = layer.double().eval()
    mean, variance = normal(3, seed=2), torch.tensor([0.01, 0.5, 2.0], dtype=torch.float64)
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)
    out = layer(x, torch.zeros(5, 2, dtype=torch.float64)) if kind == "conditional" else layer(x)
    shape = (1, 3, 1, 1)
    torch.testing.assert_close(out, (x - mean.view(shape)) / (variance + eps).sqrt().view(shape))


def test_normalized_weights_are_computed_once_and_only_training_mode_iterates() -> None:
    G = Generator(ModelConfig(resolution=8, ch=4))
    initialize(G, "normal", 0, "G")
    before = {name: buffer.clone() for name, buffer in G.named_buffers()}
    z, y = normal(4, 24, dtype=torch.float32), torch.arange(4)
    with torch.no_grad():
        G(z, y)  # outside a block: nothing moves, also in training mode
        G.eval()
        with normalized(G, iterate=True):
            G(z, y)
        assert all(torch.equal(buffer, before[name]) for name, buffer in G.named_buffers())
        G.train()
        with normalized(G, iterate=True):
            moved = {name: buffer.clone() for name, buffer in G.named_buffers()}
            G(z, y)
            G(z, y)
    assert not torch.equal(moved["linear.u"], before["linear.u"])
    assert all(torch.equal(buffer, moved[name]) for name, buffer in G.named_buffers())


def test_conditional_batchnorm_against_float64() -> None:
    make = LayerFactory(spectral_norm=False, sn_eps=1e-4, bn_eps=1e-4)
    layer = make.conditional_batchnorm(5, 7, table=False).double()
    x, c = normal(6, 5, 4, 3).requires_grad_(), normal(6, 7, seed=1)
    out = layer(x, c)
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    gain, bias = 1 + c @ layer.gain.weight.t(), c @ layer.bias.weight.t()
    expected = (x - mean) / (variance + 1e-4).sqrt() * gain[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(out, expected)
    weights = normal(*out.shape, seed=2)
    mine, theirs = (torch.autograd.grad((o * weights).sum(), x)[0] for o in (out, expected))
    torch.testing.assert_close(mine, theirs)


def test_unshared_batchnorm_looks_gains_and_biases_up_by_class() -> None:
    layer = LayerFactory(spectral_norm=True, sn_eps=1e-4).conditional_batchnorm(3, 10, table=True)
    assert isinstance(layer, ConditionalBatchNorm)
    x, y = normal(4, 3, 2, 2, dtype=torch.float32), torch.tensor([1, 5, 5, 9])
    gain, bias = 1 + layer.gain.weight[y], layer.bias.weight[y]
    expected = BatchNorm(3, eps=1e-4, momentum=0.1)(x) * gain[:, :, None, None] + bias[:, :, None, None]
    torch.testing.assert_close(layer(x, y), expected)


def test_non_local_block_against_float64() -> None:
    block = NonLocalBlock(LayerFactory(spectral_norm=False, sn_eps=1e-4), 16).double()
    block.gain.data.fill_(0.7)
    x = normal(2, 16, 4, 6)
    out = block(x)
    for image in range(2):
        flat = x[image].flatten(1).numpy()  # C, HW
        weights = {name: getattr(block, name).weight.detach().flatten(1).numpy() for name in ("theta", "phi", "g", "o")}

        def pooled(values: np.ndarray) -> np.ndarray:
            return values.reshape(-1, 2, 2, 3, 2).max(axis=(2, 4)).reshape(len(values), -1)

        phi, g = pooled(weights["phi"] @ flat), pooled(weights["g"] @ flat)
        scores = (weights["theta"] @ flat).T @ phi  # HW, HW/4
        attention = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        expected = flat + 0.7 * weights["o"] @ (g @ attention.T)
        np.testing.assert_allclose(out[image].flatten(1).detach().numpy(), expected, rtol=1e-10)


def test_a_new_non_local_block_changes_nothing() -> None:
    x = normal(2, 8, 4, 4, dtype=torch.float32)
    assert torch.equal(NonLocalBlock(LayerFactory(spectral_norm=True, sn_eps=1e-4), 8)(x), x)


def test_running_statistics_move_once_an_update_from_pooled_moments() -> None:
    layer = BatchNorm(3, eps=1e-4, momentum=0.25).double()
    parts = [normal(4, 3, 2, 2, seed=seed) * (seed + 1) for seed in range(3)]
    layer(parts[0])
    assert torch.equal(layer.running_mean, torch.zeros(3, dtype=torch.float64)), "moved outside `collecting`"
    with collecting(layer):
        for part in parts:
            layer(part)
        move_running_statistics(layer)
    whole = torch.cat(parts).transpose(0, 1).flatten(1)
    torch.testing.assert_close(layer.running_mean, 0.25 * whole.mean(dim=1))
    torch.testing.assert_close(layer.running_var, 0.75 + 0.25 * whole.var(dim=1, unbiased=False))


def test_standing_statistics_free_the_output_from_the_batch() -> None:
    G = Generator(ModelConfig(resolution=16, ch=4))
    initialize(G, "orthogonal", 0, "G")
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    network = sampling_copy(G, distribution="normal", passes=10, batch=16)
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    assert G.training
    assert not network.training
    z, y = normal(64, 24, dtype=torch.float32), torch.arange(64) % 10
    whole = network(z, y)
    for size in (1, 7):
        parts = torch.cat([network(a, b) for a, b in zip(z.split(size), y.split(size), strict=True)])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-5)


def test_the_averages_sigma_is_that_of_its_own_weights() -> None:
    G = Generator(ModelConfig(resolution=8, ch=4))
    initialize(G, "normal", 0, "G")
    network = sampling_copy(G, distribution="normal", passes=1, batch=8)
    sigma = torch.linalg.matrix_norm(G.linear.weight.double(), 2).item()
    assert network.linear.sigma_estimate().item() == pytest.approx(sigma, rel=1e-3)
    assert not math.isclose(G.linear.sigma_estimate().item(), sigma, rel_tol=1e-3)


def test_a_trained_network_keeps_the_graph_of_its_normalized_weights() -> None:
    layer = SNLinear(4, 3)
    layer.prepare_spectral_norm(1e-4)
    network = nn.Sequential(layer)
    x = normal(2, 4, dtype=torch.float32)
    with normalized(network, iterate=False):
        network(x).sum().backward()
    assert layer.weight.grad is not None
    assert float(layer.weight.grad.norm()) > 0
    with normalized(network, iterate=False, grad=False):
        assert not layer.current_weight().requires_grad
    with torch.no_grad(), normalized(network, iterate=False):
        assert not layer.current_weight().requires_grad


def test_running_statistics_stay_where_nothing_was_collected() -> None:
    layer = BatchNorm(3, eps=1e-4, momentum=0.1)
    network = nn.Sequential(layer)
    before = layer.running_mean.clone(), layer.running_var.clone()
    move_running_statistics(network)
    with collecting(network):
        move_running_statistics(network)
    assert torch.equal(layer.running_mean, before[0])
    assert torch.equal(layer.running_var, before[1])


def test_moments_go_again_where_they_went_before() -> None:
    layer = BatchNorm(3, eps=1e-4, momentum=0.1)
    network = nn.Sequential(layer)
    with collecting(network):
        outer = layer.collected
        assert outer is not None
        with not_collecting(network):
            assert layer.collected is None
        assert layer.collected is outer
    assert layer.collected is None


@pytest.mark.parametrize("batched", [False, True])
def test_weights_are_normalized_together_only_where_that_is_asked_for(batched: bool, monkeypatch) -> None:  # noqa: ANN001
    """The two ways differ in their last bits."""
    layer = SNLinear(4, 3)
    layer.prepare_spectral_norm(1e-4)
    network = nn.Sequential(layer)
    together = []
    monkeypatch.setattr(
        "biggan.networks.spectral_norm.normalized_weights",
        lambda layers, iterate: together.extend(layers) or normalized_weights(layers, iterate=iterate),
    )
    if batched:
        network.batched_power_iteration = True
    with normalized(network, iterate=False):
        assert layer.applied is not None
    assert together == ([layer] if batched else [])


def test_gains_without_a_normalization_are_projected_around_1() -> None:
    layer, x, condition = ConditionalAffine(nn.Linear(2, 3), nn.Linear(2, 3)), normal(4, 3, 5, 5), normal(4, 2, seed=1)
    layer = layer.double()
    expected = x * (1 + layer.gain(condition))[:, :, None, None] + layer.bias(condition)[:, :, None, None]
    torch.testing.assert_close(layer(x, condition), expected)
    plain = Affine(3).double()
    plain.weight.data, plain.bias.data = normal(3, seed=2), normal(3, seed=3)
    torch.testing.assert_close(plain(x), x * plain.weight[:, None, None] + plain.bias[:, None, None])

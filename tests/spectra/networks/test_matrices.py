"""Weight matrices of networks that are not ours: found by type, in order, raw and normalized, and nothing disturbed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import spectra
from spectra import NormalizedLayer, top_singular_values, weight_matrices


class Halved(nn.Linear):
    """A layer that normalizes its own weight and says so."""

    def normalized_weight(self) -> Tensor:
        return self.weight / 2

    def sigma_estimate(self) -> Tensor:
        return torch.tensor(2.0)


class Exotic(nn.Module):
    """A layer type that nobody knows."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 5, 6))
        self.bias = nn.Parameter(torch.zeros(4))


def test_kinds_names_order_and_shapes() -> None:
    network = nn.Sequential()
    network.add_module("embed", nn.Embedding(11, 6))
    network.add_module("line", nn.Sequential(nn.Conv1d(6, 7, 3), nn.ConvTranspose1d(7, 5, 4)))
    network.add_module("plane", nn.Conv2d(5, 8, (3, 2), groups=1))
    network.add_module("up", nn.ConvTranspose2d(8, 3, 3))
    network.add_module("volume", nn.Conv3d(3, 2, 2))
    network.add_module("lift", nn.ConvTranspose3d(2, 9, 2))
    network.add_module("norm", nn.BatchNorm3d(9))
    network.add_module("bag", nn.EmbeddingBag(13, 4))
    network.add_module("memory", nn.LSTM(4, 3))
    network.add_module("exotic", Exotic())
    network.add_module("out", nn.Linear(3, 1))
    found = [(m.name, m.kind, m.shape) for m in weight_matrices(network)]
    assert found == [
        ("embed", "embedding", (11, 6)),
        ("line.0", "conv1d", (7, 18)),
        ("line.1", "conv_transpose1d", (5, 28)),
        ("plane", "conv2d", (8, 30)),
        ("up", "conv_transpose2d", (3, 72)),
        ("volume", "conv3d", (2, 24)),
        ("lift", "conv_transpose3d", (9, 16)),
        ("bag", "embedding", (13, 4)),
        ("memory.weight_ih_l0", "recurrent", (12, 4)),
        ("memory.weight_hh_l0", "recurrent", (12, 3)),
        ("exotic.kernel", "unknown", (4, 30)),
        ("out", "linear", (1, 3)),
    ]
    matrices = weight_matrices(network)
    assert [m.depth for m in matrices] == list(range(12))
    assert matrices[10].layer_type == "Exotic"
    assert not any(m.is_normalized for m in matrices)
    for matrix in matrices:
        assert matrix.raw().shape == matrix.shape
        assert torch.equal(matrix.raw(), matrix.normalized())
        assert not matrix.raw().requires_grad
        assert matrix.sigma_estimate() is None
    assert torch.equal(matrices[4].raw(), network.up.weight.detach().transpose(0, 1).reshape(3, 72))
    assert matrices[3].raw().data_ptr() == network.plane.weight.data_ptr(), "no copy where none is needed"


def test_a_transformer_from_torch() -> None:
    """Every parameter of two or more dimensions is there; the spectra are LAPACK's; the model is as it was."""
    torch.manual_seed(0)
    model = nn.Transformer(32, 4, num_encoder_layers=2, num_decoder_layers=1, dim_feedforward=64, batch_first=True)
    model.train()
    before = copy.deepcopy(model.state_dict())
    matrices = weight_matrices(model)
    sizes = [p.numel() for p in model.parameters() if p.dim() >= 2]
    assert sum(m.shape[0] * m.shape[1] for m in matrices) == sum(sizes)
    assert len(matrices) == len(sizes)
    assert [m.name for m in matrices][:4] == [
        "encoder.layers.0.self_attn.in_proj_weight",
        "encoder.layers.0.self_attn.out_proj",
        "encoder.layers.0.linear1",
        "encoder.layers.0.linear2",
    ]
    assert {m.kind for m in matrices} == {"attention", "linear"}
    assert matrices[0].shape == (96, 32)
    found = spectra.top_singular_values_batch([m.raw() for m in matrices])
    for matrix, spectrum in zip(matrices, found, strict=True):
        truth = torch.linalg.svdvals(matrix.raw().double())[:3]
        assert spectrum.converged
        assert float((spectrum.values - truth).abs().max()) <= 1e-5 * float(truth[0])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_attention_with_separate_projections_and_extra_biases() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, add_bias_kv=True)
    found = {m.name: (m.kind, m.shape) for m in weight_matrices(attention)}
    assert found == {
        "q_proj_weight": ("attention", (8, 8)),
        "k_proj_weight": ("attention", (8, 6)),
        "v_proj_weight": ("attention", (8, 4)),
        "out_proj": ("linear", (8, 8)),
    }


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


NORMALIZATIONS = {
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized orthogonal": parametrizations.orthogonal,
    "hooked spectral_norm": torch.nn.utils.spectral_norm,
    "hooked weight_norm": torch.nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("how", NORMALIZATIONS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["linear", "conv", "transposed"])
def test_torch_normalizations(how: str, training: bool, kind: str) -> None:
    """Raw is the stored parameter, normalized is what eval mode applies, and reading changes no buffer and no mode."""
    torch.manual_seed(1)
    layer, x = {
        "linear": (nn.Linear(12, 7), torch.randn(5, 12)),
        "conv": (nn.Conv2d(3, 4, 3, padding=1), torch.randn(2, 3, 6, 6)),
        "transposed": (nn.ConvTranspose2d(3, 4, 3, padding=1), torch.randn(2, 3, 6, 6)),
    }[kind]
    layer = NORMALIZATIONS[how](layer)
    with torch.no_grad():  # move away from the state right after initialisation
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layer.train()
    layer(x)
    layer.train(training)
    before = state_of(layer)
    (matrix,) = weight_matrices(layer)
    matrix.raw()
    normalized = matrix.normalized()
    sigma = matrix.sigma_estimate()
    assert layer.training == training
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert matrix.is_normalized
    stored = [spectra.as_matrix(p.detach(), kind == "transposed") for p in layer.parameters() if p.dim() >= 2]
    assert any(torch.equal(matrix.raw(), parameter) for parameter in stored)
    layer.eval()
    layer(x)  # the older hooks compute their weight in the forward pass
    applied = spectra.as_matrix(layer.weight.detach(), kind == "transposed")
    assert torch.allclose(normalized, applied, atol=1e-6)
    assert not torch.allclose(normalized, matrix.raw(), atol=1e-3)
    assert (sigma is not None) == ("spectral" in how)
    if sigma is not None:
        assert torch.allclose(matrix.raw() / sigma, normalized, atol=1e-5)


def test_reading_torch_spectral_norm_through_its_attribute_would_have_iterated() -> None:
    """The trap that the copy avoids: without it the test above would prove nothing."""
    layer = parametrizations.spectral_norm(nn.Linear(12, 7)).train()
    before = state_of(layer)
    _ = layer.weight
    assert any(not torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_chained_and_own_parametrizations() -> None:
    class Double(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "weight", Double())
    parametrize.register_parametrization(layer, "weight", Double())
    (matrix,) = weight_matrices(layer)
    assert torch.allclose(matrix.normalized(), 4 * matrix.raw())
    assert matrix.layer_type == "Linear"
    assert matrix.kind == "linear"
    assert matrix.sigma_estimate() is None


def test_layers_that_normalize_themselves() -> None:
    layer = Halved(5, 4)
    assert isinstance(layer, NormalizedLayer)
    (matrix,) = weight_matrices(layer)
    assert matrix.kind == "linear"
    assert matrix.is_normalized
    assert torch.equal(matrix.raw(), layer.weight.detach())
    assert torch.equal(matrix.normalized(), layer.weight.detach() / 2)
    assert not matrix.normalized().requires_grad
    assert matrix.sigma_estimate() == 2.0
    assert not isinstance(nn.Linear(2, 2), NormalizedLayer)


class NowAndThen(nn.Linear):
    """Applies half of its weight, while it is told to; has no estimate of sigma."""

    is_mapped = True

    def normalized_weight(self) -> Tensor:
        return self.weight / 2


def test_a_layer_may_have_no_estimate_and_may_stop_normalizing() -> None:
    layer = NowAndThen(3, 4)
    (matrix,) = weight_matrices(layer)
    assert torch.equal(matrix.normalized(), layer.weight.detach() / 2)
    assert matrix.sigma_estimate() is None
    layer.is_mapped = False
    (matrix,) = weight_matrices(layer)
    assert not matrix.is_normalized
    assert torch.equal(matrix.normalized(), layer.weight.detach())


def test_named_networks_and_shared_weights() -> None:
    generator, discriminator = nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 1))
    matrices = weight_matrices({"G": generator, "D": discriminator})
    assert [(m.name, m.network, m.depth) for m in matrices] == [("G.0", "G", 0), ("D.0", "D", 0), ("D.1", "D", 1)]
    tied = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    tied.head.weight = tied.embed.weight
    (matrix,) = weight_matrices(tied)
    assert (matrix.name, matrix.kind, matrix.shared_with) == ("embed", "embedding", ("head",))


def test_the_operator_of_a_normalized_convolution() -> None:
    layer = parametrizations.spectral_norm(nn.Conv2d(2, 3, 3, padding=1), n_power_iterations=30)
    (matrix,) = weight_matrices(layer)
    raw = float(top_singular_values(matrix.operator(8)).values[0])
    normalized = float(top_singular_values(matrix.operator(8, normalized=True)).values[0])
    assert raw / normalized == pytest.approx(matrix.sigma_estimate(), rel=1e-4)
    assert float(top_singular_values(matrix.normalized()).values[0]) == pytest.approx(1, abs=1e-3)
    with pytest.raises(TypeError, match="needs a convolution"):
        weight_matrices(nn.Linear(2, 2))[0].operator(8)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="BatchNorm2d has no weight matrix"):
        weight_matrices(nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="no weight matrix"):
        weight_matrices({})
    with pytest.raises(TypeError, match="torch module"):
        weight_matrices([nn.Linear(2, 2)])
    with pytest.raises(ValueError, match="lazy"):
        weight_matrices(nn.Sequential(nn.LazyLinear(3)))

"""sigma_0: its derivative, regularization, clamping in both modes, and folding Spectral Normalization away."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from biggan.config import ClampConfig, Config, RegularizerConfig, SigmaConfig, from_dict, to_dict
from biggan.errors import UserError
from biggan.evaluation.pictures.grids import load_generator
from biggan.evaluation.standing import sampling_copy
from biggan.networks.reparametrization import matrix_names
from biggan.networks.sigma_control import SigmaClamp, WarmStarts, project, sigma_and_target, start_shape, top_two
from biggan.networks.spectral_norm import SpectrallyNormalized, normalized
from biggan.objective.weight_penalties import penalties
from biggan.run.folding import fold_spectral_norm
from biggan.training.estimate import estimate
from biggan.training.state import TrainingState

Play = Callable[..., tuple[TrainingState, list[dict[str, float]]]]
SHAPES = [(5, 8), (8, 5), (6, 6), (2, 7), (7, 2)]
VALUES = [3.0, 1.7, 0.9, 0.5, 0.2, 0.1]


def with_values(shape: tuple[int, int], values: list[float] = VALUES, seed: int = 0) -> Tensor:
    """A matrix with these singular values, as far as its shape has room."""
    random = torch.Generator().manual_seed(seed)
    count = min(shape)
    left, right = (torch.linalg.qr(torch.randn(side, count, dtype=torch.float64, generator=random)).Q for side in shape)
    return left @ torch.diag(torch.tensor(values[:count], dtype=torch.float64)) @ right.t()


def configuration(**sections: dict) -> Config:
    values: dict = {
        "steps": 2,
        "device": "cpu",
        "model": {"resolution": 8, "ch": 4, "z_dim": 12},
        "train": {"batch": 8},
        "optim": {"G": {"lr": 1e-3}, "D": {"lr": 1e-3}},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section} if isinstance(section, dict) else section
    return from_dict(values)


@pytest.mark.parametrize("shape", SHAPES)
def test_top_two_against_a_full_decomposition(shape: tuple[int, int]) -> None:
    W = with_values(shape)
    (found,) = top_two([W], [None])
    torch.testing.assert_close(found.values, torch.tensor(VALUES[:2], dtype=torch.float64))
    torch.testing.assert_close(W @ found.right, found.left * found.values)
    torch.testing.assert_close(W.t() @ found.left, found.right * found.values)
    assert found.short.shape == start_shape(W)
    torch.testing.assert_close(top_two([W], [found.short])[0].values, found.values)


@pytest.mark.parametrize("shape", [(400, 450), (500, 390)])
def test_top_two_of_a_large_matrix_from_wherever_it_starts(shape: tuple[int, int]) -> None:
    """Beyond a few hundred rows the values come from an iteration, and the vectors that it starts from matter."""
    random = torch.Generator().manual_seed(0)
    W = torch.randn(shape, generator=random)
    wanted = torch.linalg.svdvals(W.double())[:2].float()
    starts: list[Tensor | None] = [None, torch.randn(start_shape(W), generator=random), torch.eye(*start_shape(W))]
    starts.append(top_two([W], [None])[0].short)
    for start in starts:
        (found,) = top_two([W], [start])
        torch.testing.assert_close(found.values, wanted, rtol=1e-5, atol=0)
        (again,) = top_two([W], [start])
        assert torch.equal(again.left, found.left)
    assert SigmaClamp(W, ClampConfig(ratio=1.0))(W, iterate=True).shape == W.shape


@pytest.mark.parametrize("shape", SHAPES)
def test_derivative_of_sigma_is_u_v_by_finite_differences(shape: tuple[int, int]) -> None:
    W = with_values(shape).requires_grad_()
    (found,) = top_two([W], [None])
    sigma, _ = sigma_and_target(W, found, 1.0, None)
    (gradient,) = torch.autograd.grad(sigma, W)
    torch.testing.assert_close(gradient, torch.outer(found.left[:, 0], found.right[:, 0]))
    differences = torch.zeros_like(W)
    for i in range(shape[0]):
        for j in range(shape[1]):
            step = torch.zeros_like(W)
            step[i, j] = 1e-6
            above, below = (torch.linalg.svdvals(W.detach() + sign * step)[0] for sign in (1, -1))
            differences[i, j] = (above - below) / 2e-6
    torch.testing.assert_close(gradient, differences, atol=1e-8, rtol=1e-6)


class OneLayer(nn.Module):
    """A network of one linear layer, named `linear`."""

    def __init__(self, W: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(W.shape[1], W.shape[0], dtype=W.dtype)
        self.linear.weight.data.copy_(W)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("target", [{"target": 1.0}, {"target": 5.0}, {"ratio": 1.0}, {"ratio": 1.5}])
def test_sigma_regularization(shape: tuple[int, int], target: dict) -> None:
    network = OneLayer(with_values(shape))
    config = RegularizerConfig(sigma_G=SigmaConfig(strength=0.3, **target))
    wanted = target.get("target", target.get("ratio", 0) * VALUES[1])
    (value,) = penalties(network, "G", config).values()
    assert value.item() == pytest.approx(0.3 * (VALUES[0] - wanted) ** 2)
    value.backward()
    U, _, V = torch.linalg.svd(network.linear.weight.detach(), full_matrices=False)
    # sigma_1 is a constant: only the first direction moves.
    torch.testing.assert_close(network.linear.weight.grad, 0.6 * (VALUES[0] - wanted) * torch.outer(U[:, 0], V[0]))
    assert penalties(network, "D", config) == {}


def clamped(W: Tensor, **config: float) -> Tensor:
    return SigmaClamp(W, ClampConfig(**config)).double()(W, iterate=False)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "config", [{"value": 2.0}, {"value": 1.7}, {"value": 10.0}, {"ratio": 1.0}, {"ratio": 1.5}, {"ratio": 4.0}]
)
def test_clamping_moves_sigma_0_alone(shape: tuple[int, int], config: dict) -> None:
    W = with_values(shape)
    limit = config.get("value", config.get("ratio", 0) * VALUES[1])
    found = clamped(W, **config)
    values = torch.linalg.svdvals(found)
    assert values[0].item() <= limit * (1 + 1e-4)
    expected = torch.tensor([min(VALUES[0], limit), *VALUES[1 : min(shape)]], dtype=torch.float64)
    torch.testing.assert_close(values, expected.sort(descending=True).values, atol=1e-10, rtol=1e-10)
    if limit >= VALUES[0]:
        assert torch.equal(found, W)
    U, S, V = torch.linalg.svd(W, full_matrices=False)
    torch.testing.assert_close(found, W - max(0, S[0].item() - limit) * torch.outer(U[:, 0], V[0]))


def test_clamping_in_single_precision_to_1e_4() -> None:
    network = TrainingState(configuration(model={"init": "xavier"})).D
    for name, weight in matrix_names(network).items():
        W = weight.detach().flatten(1)
        values = torch.linalg.svdvals(W.double())
        limit = 0.5 * (values[0] + values[min(1, len(values) - 1)] * (len(values) > 1)).item()
        found = torch.linalg.svdvals(SigmaClamp(W, ClampConfig(value=limit))(W, iterate=False).double())
        assert found[0].item() <= limit * (1 + 1e-4), name
        torch.testing.assert_close(found[1:], values[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", [{"value": 2.0}, {"ratio": 1.1}])
def test_gradient_through_the_clamp_loses_its_first_direction(config: dict) -> None:
    W = with_values((5, 8)).requires_grad_()
    upstream = with_values((5, 8), [1.0] * 5, seed=3)
    (gradient,) = torch.autograd.grad((clamped(W, **config) * upstream).sum(), W)
    U, _, V = torch.linalg.svd(W.detach(), full_matrices=False)
    first = torch.outer(U[:, 0], V[0])
    # c, and with it sigma_1, is a constant; else a term along u1 v1^T would be left.
    torch.testing.assert_close(gradient, upstream - (upstream * first).sum() * first)
    W = W.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((clamped(W, value=4.0) * upstream).sum(), W)
    assert torch.equal(gradient, upstream)


def test_the_clamp_stands_before_spectral_normalization() -> None:
    plain, state = (
        TrainingState(configuration(model={"init": "xavier", **extra})).G
        for extra in ({}, {"clamp_G": {"value": 0.5, "layers": ["linear"]}})
    )
    layer = state.linear
    W = layer.weight.detach().flatten(1)
    assert torch.linalg.svdvals(W)[0] > 0.6
    for _ in range(100):
        with normalized(state, iterate=True):
            applied = layer.current_weight().detach()
    values, before = torch.linalg.svdvals(applied), torch.linalg.svdvals(W)
    top = max(0.5, before[1].item())
    torch.testing.assert_close(values[0], torch.tensor(1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer.sigma_estimate(), torch.tensor(top), atol=1e-4, rtol=0)
    rest = torch.cat([before[1:], torch.tensor([min(0.5, before[0].item())])]).sort(descending=True).values / top
    torch.testing.assert_close(values, rest, atol=1e-4, rtol=0)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, state.get_parameter(name))
    assert [name for name in state.state_dict() if name.endswith("clamp.start")] == ["linear.clamp.start"]


@pytest.mark.parametrize("spectral_norm", [True, False])
def test_projection_after_each_update(play: Play, spectral_norm: bool) -> None:
    clamp = {"value": 0.95, "mode": "project"}
    state, _ = play(configuration(model={"clamp_G": clamp, "spectral_norm_G": spectral_norm}, steps=1))
    free, _ = play(configuration(model={"spectral_norm_G": spectral_norm}, steps=1))
    for name, weight in matrix_names(state.G).items():
        # Without the feature the first update is the same; then the projection comes on top.
        before = torch.linalg.svd(free.G.get_parameter(f"{name}.weight").detach().double().flatten(1))
        after = torch.linalg.svdvals(weight.detach().double().flatten(1))
        wanted = before.S.clone()
        wanted[0] = min(wanted[0].item(), 0.95)
        torch.testing.assert_close(after, wanted.sort(descending=True).values, rtol=1e-4, atol=1e-5)
    for name, parameter in state.D.named_parameters():
        assert torch.equal(parameter, free.D.get_parameter(name))


def test_projection_is_idempotent_and_off_in_mode_forward() -> None:
    network = OneLayer(with_values((5, 8)))
    project(network, "G", ClampConfig(value=1.0), WarmStarts())
    torch.testing.assert_close(torch.linalg.svdvals(network.linear.weight.detach())[0].item(), 3.0)
    for _ in range(2):
        project(network, "G", ClampConfig(value=2.0, mode="project"), WarmStarts())
        values = torch.linalg.svdvals(network.linear.weight.detach())
        torch.testing.assert_close(values, torch.tensor([2.0, *VALUES[1:5]], dtype=torch.float64))


def test_regularization_draws_sigma_to_its_target(play: Play) -> None:
    """60 steps under a strong penalty, without Spectral Normalization: every sigma_0 of G nears the target."""
    config = configuration(
        steps=60,
        model={"spectral_norm_G": False},
        regularizers={"sigma_G": {"strength": 100.0, "target": 0.8}},
        train={"batch": 2, "freeze": "D"},
        optim={"G": {"lr": 5e-3}},
    )
    state, _ = play(config)
    values = [torch.linalg.svdvals(w.detach().flatten(1))[0].item() for w in matrix_names(state.G).values()]
    assert max(abs(value - 0.8) for value in values) < 0.08


SIGMA = {"sigma_G": {"strength": 0.1, "ratio": 1.0}, "sigma_D": {"strength": 0.1, "target": 1.0, "layers": ["linear"]}}


def test_start_vectors_are_state_only_where_they_are_needed(play: Play) -> None:
    plain = TrainingState(configuration())
    assert not [name for name in plain.tensors() if "start" in name]
    state = TrainingState(configuration(regularizers=SIGMA))
    starts = {name for name in state.tensors() if name.startswith("sigma_start.")}
    # A ratio of sigma_1 needs two singular values.
    several = {name for name, w in matrix_names(state.G).items() if min(w.flatten(1).shape) > 1}
    assert starts == {f"sigma_start.G.{name}" for name in several} | {"sigma_start.D.linear"}
    before = {name: tensor.clone() for name, tensor in state.warm_starts.tensors().items()}
    play(configuration(regularizers=SIGMA, steps=1), state)
    assert not [name for name, tensor in state.warm_starts.tensors().items() if torch.equal(tensor, before[name])]
    frozen = configuration(regularizers=SIGMA, steps=1, train={"batch": 8, "freeze": "G"})
    state, history = play(frozen)
    assert history[0]["penalty/G_sigma"] >= 0
    assert all(torch.equal(t, before[name]) for name, t in state.warm_starts.tensors().items() if ".G." in name)


def test_a_change_of_configuration_turns_regularization_on_and_off(play: Play) -> None:
    plain, _ = play(configuration(steps=1))
    state = TrainingState(configuration(regularizers=SIGMA, model={"clamp_D": {"value": 1.0}}))
    state.load(plain.tensors(), plain.step)
    assert torch.equal(state.G.linear.weight, plain.G.linear.weight)
    off = TrainingState(configuration())
    off.load(state.tensors(), 1)
    assert torch.equal(off.D.linear.weight, plain.D.linear.weight)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"regularizers": {"sigma_G": {"strength": 1, "target": 1, "layers": ["lineer"]}}}, "did you mean 'linear'"),
        ({"model": {"clamp_D": {"value": 1, "layers": ["blocks.0.conv"]}}}, "did you mean 'blocks.0.conv[12]'"),
        ({"model": {"clamp_D": {"value": 1, "mode": "project", "layers": ["embedding"]}}}, "model.clamp_D.layers"),
        ({"model": {"clamp_D": {"ratio": 1, "layers": ["linear"]}}}, "single row or column"),
        ({"model": {"clamp_D": {"ratio": 0.5}}}, "model.clamp_D.ratio is 0.5, expected at least 1"),
        ({"model": {"clamp_D": {"ratio": 1, "value": 1}}}, "model.clamp_D.value is 1 and ratio is 1"),
        ({"regularizers": {"sigma_G": {"strength": 1}}}, "regularizers.sigma_G.strength is 1.*target"),
    ],
)
def test_bad_layers_and_targets_are_explained(sections: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainingState(configuration(**sections))


def test_a_run_with_clamping_can_be_estimated_and_sampled(play: Play) -> None:
    config = configuration(model={"clamp_G": {"ratio": 1.0}})
    assert estimate(config)["memory_bytes"] > 0
    state, _ = play(config)
    copy_ = sampling_copy(state.ema.network, distribution=config.latents, passes=1, batch=4)
    applied = torch.linalg.svdvals(copy_.linear.current_weight().flatten(1))
    torch.testing.assert_close(applied[:2], torch.ones(2), atol=1e-3, rtol=0)  # sigma_0 = sigma_1, then both over it
    checkpoint = type("Checkpoint", (), {"config": config, "tensors": state.tensors()})
    loaded = load_generator(checkpoint)
    assert torch.equal(loaded.linear.clamp.start, state.ema.network.linear.clamp.start)


def test_numbers_that_are_not_finite_go_through() -> None:
    W = torch.full((3, 4), math.nan)
    assert torch.isnan(SigmaClamp(W, ClampConfig(value=1.0))(W, iterate=False)).all()
    network = OneLayer(W)
    (value,) = penalties(network, "G", RegularizerConfig(sigma_G=SigmaConfig(1.0, target=1.0))).values()
    assert torch.isnan(value)


# --- folding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["G", "D"])
@pytest.mark.parametrize("model", [{}, {"norm_G": "weight"}, {"clamp_G": {"ratio": 1.0}, "clamp_D": {"ratio": 1.0}}])
def test_folding_leaves_the_function_where_it_is(network: str, model: dict, play: Play) -> None:
    config = configuration(model=model, steps=3)
    state, _ = play(config)
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    values = to_dict(config)
    values["model"][f"spectral_norm_{network}"] = False
    without = from_dict(values)
    folded = TrainingState(without)
    folded.load(fold_spectral_norm(state, network), state.step)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.tensors().items())
    assert not [m for m in folded.networks()[network].modules() if isinstance(m, SpectrallyNormalized)]

    random = torch.Generator().manual_seed(0)
    z, x = torch.randn(6, 12, generator=random), torch.rand(6, 3, 8, 8, generator=random)
    y = torch.arange(6)
    with torch.no_grad():
        torch.testing.assert_close(folded.G(z, y), state.G(z, y), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(folded.D(x, y), state.D(x, y), rtol=1e-4, atol=1e-4)
        averages = [
            sampling_copy(s.ema.network, distribution="normal", passes=2, batch=8)(z, y) for s in (state, folded)
        ]
    torch.testing.assert_close(*averages, rtol=1e-3, atol=1e-4)
    _, history = play(from_dict({**values, "steps": 5}), folded)
    assert all(math.isfinite(value) for stats in history for value in stats.values())


def test_folding_scales_adams_moments_as_the_gradient(play: Play) -> None:
    state, _ = play(configuration(steps=1))
    sigma = state.D.linear.sigma_estimate()
    tensors = fold_spectral_norm(state, "D")
    for key, factor in (("exp_avg", sigma), ("exp_avg_sq", sigma**2), ("step", 1)):
        name = f"optim_D.linear.weight.{key}"
        torch.testing.assert_close(tensors[name], state.tensors()[name] * factor)
    name = "optim_D.linear.bias.exp_avg"
    assert torch.equal(tensors[name], state.tensors()[name])


def test_folding_refuses_what_would_jump() -> None:
    with pytest.raises(UserError, match="ratio of sigma_1"):
        fold_spectral_norm(TrainingState(configuration(model={"clamp_G": {"value": 1.0}})), "G")
    with pytest.raises(UserError, match="D has no Spectral Normalization"):
        fold_spectral_norm(TrainingState(configuration(model={"spectral_norm_D": False})), "D")


def test_copies_of_a_clamped_network_are_whole() -> None:
    G = TrainingState(configuration(model={"clamp_G": {"value": 0.9}})).G
    twin = copy.deepcopy(G)
    z, y = torch.randn(2, 12), torch.tensor([0, 1])
    assert torch.equal(twin(z, y), G(z, y))
    assert twin.linear.clamp.start.data_ptr() != G.linear.clamp.start.data_ptr()

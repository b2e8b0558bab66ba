"""Losses, penalties, dropout and clipping: values and gradients against explicit float64 references."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from biggan import rng
from biggan.config import Config, LossConfig, RegularizerConfig, from_dict
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.errors import UserError
from biggan.networks.reparametrization import matrix_names
from biggan.networks.spectral_norm import SpectrallyNormalized, normalized
from biggan.objective.gradient_penalties import (
    Batch,
    between,
    gradient_penalties,
    r1,
    squared_gradient_norms,
    strengths,
)
from biggan.objective.losses import LOSSES, make_loss
from biggan.objective.weight_penalties import fully_orthogonal, orthogonal, penalties
from biggan.training.optimizers import clip_gradients
from biggan.training.state import TrainingState
from biggan.training.step import Updater

SHAPES = [(4, 9), (9, 4), (1, 5), (5, 1), (6, 6)]


def configuration(**sections: dict) -> Config:
    values = {"device": "cpu", "model": {"resolution": 8, "ch": 4, "z_dim": 12}, "train": {"batch": 8}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return from_dict(values)


def softplus(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# (real or fake) logit -> loss and derivative, one image.
BY_HAND: dict[str, dict[str, Callable[[float], tuple[float, float]]]] = {
    "hinge": {
        "real": lambda t: (max(0, 1.5 - t), -1.0 if t < 1.5 else 0.0),
        "fake": lambda t: (max(0, 1.5 + t), 1.0 if t > -1.5 else 0.0),
        "G": lambda t: (-t, -1.0),
    },
    "non_saturating": {
        "real": lambda t: (softplus(-t), -sigmoid(-t)),
        "fake": lambda t: (softplus(t), sigmoid(t)),
        "G": lambda t: (softplus(-t), -sigmoid(-t)),
    },
    "wasserstein": {"real": lambda t: (-t, -1.0), "fake": lambda t: (t, 1.0), "G": lambda t: (-t, -1.0)},
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_by_hand(name: str) -> None:
    loss = make_loss(LossConfig(name, margin=1.5))
    logits = [-40.0, -2.0, -0.3, 0.0, 0.7, 1.4, 3.0, 50.0]
    for part in ("real", "fake", "G"):
        t = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
        value = loss.generator(t) if part == "G" else loss.discriminator(t, t)[part == "fake"]
        wanted = [BY_HAND[name][part](x) for x in logits]
        assert value.item() == pytest.approx(np.mean([v for v, _ in wanted]), rel=1e-12)
        (gradient,) = torch.autograd.grad(value, t)
        np.testing.assert_allclose(gradient * len(logits), [d for _, d in wanted], atol=1e-12)


def matrix(shape: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["eq. 2", "eq. 3"])
def test_orthogonal_regularization_by_loops(shape: tuple[int, int], form: str) -> None:
    W = matrix(shape)
    value = fully_orthogonal(W) if form == "eq. 2" else orthogonal(W)
    rows = W.detach().numpy()
    wanted = 0.0
    for i in range(shape[0]):
        for j in range(shape[0]):
            product = float(rows[i] @ rows[j])
            if i != j:
                wanted += product**2
            elif form == "eq. 2":
                wanted += (product - 1) ** 2
    assert value.item() == pytest.approx(wanted, rel=1e-10)
    eye = np.eye(shape[0])
    defect = rows @ rows.T - eye if form == "eq. 2" else (rows @ rows.T) * (1 - eye)
    (gradient,) = torch.autograd.grad(value, W)
    np.testing.assert_allclose(gradient, 4 * defect @ rows, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("network", ["G", "D"])
@pytest.mark.parametrize(
    ("name", "fields", "value", "slope"),
    [
        ("l2", {"l2": 0.3}, lambda w: 0.3 * w.square().sum(), lambda w: 0.6 * w),
        (
            "orthogonal",
            {"orthogonal": 0.2, "orthogonal_form": "full"},
            lambda w: 0.2 * (w @ w.t() - torch.eye(len(w), dtype=w.dtype)).square().sum(),
            lambda w: 0.8 * (w @ w.t() - torch.eye(len(w), dtype=w.dtype)) @ w,
        ),
    ],
)
def test_weight_penalties_on_a_network(network: str, name: str, fields: dict, value: Callable, slope: Callable) -> None:
    state = TrainingState(configuration(model={"init": "xavier"}))
    own = state.networks()[network].double()
    config = RegularizerConfig(**{f"{key}_{network}": setting for key, setting in fields.items()})
    found = penalties(own, network, config)
    assert set(found) == {name}
    weights = {path: p for path, p in own.named_parameters() if p.ndim >= 2 and not path.startswith("embedding")}
    assert len(weights) == len(matrix_names(own))
    assert found[name].item() == pytest.approx(sum(value(w.detach().flatten(1)).item() for w in weights.values()))
    found[name].backward()
    for path, parameter in own.named_parameters():
        if path in weights:
            torch.testing.assert_close(parameter.grad.flatten(1), slope(parameter.detach().flatten(1)))
        else:
            assert parameter.grad is None
    assert penalties(own, "D" if network == "G" else "G", config) == {}


def test_embedding_decay_is_on_the_shared_embedding_alone() -> None:
    state = TrainingState(configuration())
    (penalty,) = penalties(state.G, "G", RegularizerConfig(embedding_decay=0.5)).values()
    penalty.backward()
    torch.testing.assert_close(state.G.embedding.weight.grad, 0.5 * state.G.embedding.weight.detach())
    assert [name for name, p in state.G.named_parameters() if p.grad is not None] == ["embedding.weight"]
    assert penalties(state.D, "D", RegularizerConfig(embedding_decay=0.5)) == {}
    with pytest.raises(UserError, match=r"embedding_decay.*shared_embedding is off"):
        configuration(model={"shared_embedding": False, "skip_z": False}, regularizers={"embedding_decay": 1e-6})


class LinearD(nn.Module):
    """D(x, y) = a_y . x: the gradient is a_y, whatever x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(matrix((3, 12)).detach())

    def forward(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        return (self.a[y] * x.flatten(1)).sum(dim=1)


def images(count: int, side: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_gradient_penalties_of_a_linear_D() -> None:
    D, y = LinearD(), torch.tensor([0, 1, 1, 2])
    fake_y = torch.tensor([2, 2, 0, 0])  # the penalty is under the real labels
    batch = Batch(images(4), fake_y, images(4, seed=2), y, mix=torch.linspace(0.1, 0.9, 4, dtype=torch.float64))
    a = D.a.detach()
    counts = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)[:, None] / 4
    norms = a.norm(dim=1, keepdim=True)

    value = r1(D, batch)
    assert value.item() == pytest.approx((a[y].square().sum(dim=1).mean() / 2).item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, D.a)[0], counts * a)

    value = between(D, batch)
    assert value.item() == pytest.approx(((norms[y] - 1) ** 2).mean().item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(value, D.a)[0], counts * 2 * (norms - 1) * a / norms)


def test_a_vanishing_gradient_costs_one_and_pulls_nowhere() -> None:
    D, y = LinearD(), torch.tensor([0, 1])
    nn.init.zeros_(D.a)
    batch = Batch(images(2), y, images(2), y, mix=torch.full((2,), 0.5, dtype=torch.float64))
    value = between(D, batch)
    assert value.item() == 1.0
    assert torch.equal(torch.autograd.grad(value, D.a)[0], torch.zeros_like(D.a))


def double_D(**model: object) -> nn.Module:
    D = TrainingState(configuration(model={"init": "xavier", **model})).D.double()
    for module in D.modules():
        if isinstance(module, SpectrallyNormalized):
            module.u.copy_(nn.functional.normalize(module.u, dim=0))
    return D


@pytest.mark.parametrize("penalty", [r1, between])
def test_gradient_penalties_of_the_real_D(penalty: Callable) -> None:
    """Values image by image with the gradient by differences in x; the weights' gradient by differences in W."""
    D, y = double_D(attention_D=[4]), torch.tensor([3, 1, 4])
    batch = Batch(images(3, 8), y, images(3, 8, seed=2), y, mix=torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64))
    with normalized(D, iterate=False):
        value = penalty(D, batch)
        share = batch.mix[:, None, None, None]
        points = batch.real if penalty is r1 else share * batch.real + (1 - share) * batch.fake
        wanted = []
        for i in range(3):
            x = points[i : i + 1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(D(x, y[i : i + 1]), x)
            norm = slope.norm().item()
            wanted.append(norm**2 / 2 if penalty is r1 else (norm - 1) ** 2)
        assert value.item() == pytest.approx(np.mean(wanted), rel=1e-10)
        value.backward()
    weight = D.blocks[1].conv1.weight
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    sides = []
    with torch.no_grad():
        for sign in (1, -1):
            # sigma = u^T W v with u and v held: what the gradient is taken of.
            v = nn.functional.normalize(weight.flatten(1).t() @ D.blocks[1].conv1.u, dim=0)
            weight.add_(sign * 1e-6 * direction)
            moved = torch.dot(D.blocks[1].conv1.u, weight.flatten(1) @ v)
            with normalized(D, iterate=False):
                D.blocks[1].conv1.applied = weight / moved
                with torch.enable_grad():
                    sides.append(penalty(D, batch).item())
            weight.sub_(sign * 1e-6 * direction)
    slope = (weight.grad * direction).sum().item()
    assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_penalties_use_the_normalized_weights_of_the_update() -> None:
    D = double_D()
    batch = Batch(images(2, 8), torch.tensor([0, 1]), images(2, 8, seed=2), torch.tensor([0, 1]))
    with normalized(D, iterate=False):
        D.linear.applied = 2 * D.linear.applied
        D.embedding.applied = 2 * D.embedding.applied
        doubled = r1(D, batch)
    assert doubled.item() == pytest.approx(4 * r1(D, batch).item())


def test_one_forward_has_fake_images_first_with_their_labels_and_masks() -> None:
    fake, real = torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)
    labels, masks = (torch.tensor([1, 2]), torch.tensor([3, 4])), (torch.full((2, 5), 7.0), torch.full((2, 5), 8.0))
    x, y, mask = Batch(fake, labels[0], real, labels[1], *masks).both
    assert torch.equal(x, torch.cat([fake, real]))
    assert y.tolist() == [1, 2, 3, 4]
    assert mask is not None
    assert mask[:, 0].tolist() == [7, 7, 8, 8]
    assert Batch(fake, labels[0], real, labels[1]).both[2] is None


def test_penalties_use_the_dropout_masks_of_the_update() -> None:
    D, y = double_D(), torch.tensor([0, 1])
    mask = torch.zeros(2, D.width, dtype=torch.float64)
    mask[0] = 2.0
    plain = Batch(images(2, 8), y, images(2, 8, seed=2), y)
    masked = Batch(plain.fake, y, plain.real, y, mask_fake=mask, mask_real=mask)
    alone = Batch(plain.fake[:1], y[:1], plain.real[:1], y[:1])
    # One image's features are dropped, the other's doubled: 4 times its square, in a mean of two.
    assert r1(D, masked).item() == pytest.approx(4 * r1(D, alone).item() / 2)
    mix = torch.tensor([0.3, 0.6], dtype=torch.float64)
    masked = Batch(plain.fake, y, plain.real, y, mask_fake=torch.ones_like(mask), mask_real=mask, mix=mix)
    point = 0.3 * plain.real[:1] + 0.7 * plain.fake[:1]
    slope = squared_gradient_norms(D, point, y[:1], None).sqrt().item()
    # Between them, the real images' masks: the slope is doubled for one, and 0, which costs 1, for the other.
    assert between(D, masked).item() == pytest.approx(((2 * slope - 1) ** 2 + 1) / 2)


def test_which_penalties_are_on() -> None:
    assert strengths(configuration()) == {}
    assert strengths(configuration(loss={"name": "wasserstein"})) == {"gradient": 10.0}
    assert strengths(configuration(loss={"name": "wasserstein"}, regularizers={"gradient_penalty": 0.0})) == {}
    assert strengths(configuration(regularizers={"r1": 2.0, "gradient_penalty": 3.0})) == {"r1": 2.0, "gradient": 3.0}
    D = LinearD()
    batch = Batch(images(2), torch.tensor([0, 1]), images(2), torch.tensor([0, 1]))
    assert gradient_penalties(D, batch, {}) == {}
    (value,) = gradient_penalties(D, batch, {"r1": 3.0}).values()
    assert value.item() == pytest.approx(3 * r1(D, batch).item())


def silent(network: str, k: int) -> None:
    """A hook that does nothing."""


def one_update(config: Config, after: Callable[[str, int], None] = silent) -> tuple[TrainingState, dict[str, Tensor]]:
    """D's first update: the state behind it (gradients still there), and its numbers."""
    state = TrainingState(config)
    updater = Updater(config, state, silent, after)
    return state, updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))


@pytest.mark.parametrize(
    "regularizers", [{"r1": 10.0}, {"gradient_penalty": 5.0}, {"dropout_keep": 0.5}, {"dropout_keep": 0.6, "r1": 1.0}]
)
def test_accumulation_adds_up(regularizers: dict) -> None:
    whole, stats = one_update(configuration(regularizers=regularizers))
    parts, stats_of_parts = one_update(configuration(regularizers=regularizers, train={"accumulate": 4}))
    for name, parameter in whole.D.named_parameters():
        torch.testing.assert_close(parts.D.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-6)
    assert set(stats) == set(stats_of_parts)
    for name, value in stats.items():
        torch.testing.assert_close(stats_of_parts[name], value, rtol=1e-4, atol=1e-6)


def test_r1_in_training_is_gamma_halves_of_real_images() -> None:
    config = configuration(regularizers={"r1": 10.0})
    state = TrainingState(config)
    watch: dict[str, Tensor] = {}

    def after(network: str, k: int) -> None:
        """The update's own normalized weights are gone; at the first update they are those of the moved vectors."""
        real, labels = next(training_batches(config, open_source(config), 0))
        total = 0.0
        for i in range(len(real)):
            x = real[i : i + 1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(state.D(x, labels[i : i + 1]), x)
            total += slope.square().sum().item()
        watch["r1"] = torch.tensor(10.0 / 2 * total / len(real))

    updater = Updater(config, state, silent, after)
    stats = updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))
    torch.testing.assert_close(stats["penalty/D_r1"], watch["r1"], rtol=1e-5, atol=1e-8)


def test_dropout_drops_features_by_their_place_in_the_batch() -> None:
    keep = 0.75
    config = configuration(regularizers={"dropout_keep": keep}, train={"batch": 512})
    updater = Updater(config, TrainingState(config), silent, silent)
    (mask,) = updater.draws.masks("D/real", 0, 1)
    assert mask.shape == (512, 16)
    assert mask.unique().tolist() == [0.0, pytest.approx(1 / keep)]
    share = (mask > 0).float().mean().item()
    assert share == pytest.approx(keep, abs=4 * math.sqrt(keep * (1 - keep) / mask.numel()))
    assert torch.equal(torch.cat(list(updater.draws.masks("D/real", 0, 4))), mask)
    others = [
        updater.draws.masks("D/fake", 0, 1)[0],
        updater.draws.masks("D/real", 1, 1)[0],
        updater.draws.masks("G", 0, 1)[0],
    ]
    updater.state.step = 1
    others.append(updater.draws.masks("D/real", 0, 1)[0])
    assert not [other for other in others if torch.equal(other, mask)]


def test_a_mask_multiplies_the_features_before_both_parts_of_the_last_layer() -> None:
    D = double_D()
    x, y = images(4, 8), torch.tensor([0, 1, 2, 3])
    mask = torch.from_numpy(rng.generator(0, "test").random((4, D.width)))
    h = D.features(x) * mask
    wanted = D.linear(h).squeeze(1) + (D.embedding(y) * h).sum(dim=1)
    torch.testing.assert_close(D(x, y, mask), wanted)


def gradients(seed: int = 0) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random) * scale for shape, scale in (((3, 4), 1.0), ((5,), 0.01), ((2,), 9.0))]


def test_clipping_globally_and_by_tensor() -> None:
    before = gradients()
    total = math.sqrt(sum(g.square().sum().item() for g in before))
    clip_gradients(found := gradients(), each=None, total=0.5 * total)
    for one, other in zip(found, before, strict=True):
        torch.testing.assert_close(one, 0.5 * other)
    clip_gradients(found := gradients(), each=None, total=1.01 * total)
    assert all(map(torch.equal, found, before))
    clip_gradients(found := gradients(), each=0.7, total=None)
    for one, other in zip(found, before, strict=True):
        torch.testing.assert_close(one, other * min(1, 0.7 / other.norm().item()))
    assert torch.equal(found[1], before[1])
    clip_gradients(found := gradients(), each=0.7, total=0.1)
    assert math.sqrt(sum(g.square().sum().item() for g in found)) == pytest.approx(0.1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_clipping_hides_nothing_that_is_not_finite(bad: float) -> None:
    clip_gradients(found := [*gradients(), torch.full((3,), bad)], each=1.0, total=None)
    assert torch.isnan(found[-1]).all()
    assert torch.isfinite(found[0]).all()
    clip_gradients(found := [*gradients(), torch.tensor([bad, 1.0])], each=None, total=1.0)
    assert all(torch.isnan(one).all() for one in found)


def test_clipping_measures_gradients_whose_squares_overflow() -> None:
    clip_gradients(found := [torch.full((4,), 1e25), torch.zeros(2)], each=None, total=1.0)
    torch.testing.assert_close(found[0], torch.full((4,), 0.5))
    assert torch.equal(found[1], torch.zeros(2))


def test_recorded_and_observed_gradients_are_those_before_clipping() -> None:
    seen: dict[str, float] = {}

    def watched(clip: float | None) -> tuple[TrainingState, dict[str, Tensor]]:
        config = configuration(optim={"D": {"lr": 1e-3, "clip_global": clip}})
        state = TrainingState(config)

        def after(network: str, k: int) -> None:
            seen[str(clip)] = nn.utils.get_total_norm([p.grad for p in state.D.parameters()]).item()

        updater = Updater(config, state, silent, after)
        return state, updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))

    free, stats = watched(None)
    clipped, stats_clipped = watched(0.01)
    assert seen["None"] == seen["0.01"] == stats["gradient_norm/D"].item() == stats_clipped["gradient_norm/D"].item()
    assert nn.utils.get_total_norm([p.grad for p in clipped.D.parameters()]).item() == pytest.approx(0.01, rel=1e-5)
    assert nn.utils.get_total_norm([p.grad for p in free.D.parameters()]).item() > 0.01

"""One training step against hand-computed values and slow references."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from biggan.config import AdamConfig, EMAConfig, LossConfig, ModelConfig, RegularizerConfig
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.errors import UserError
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize
from biggan.objective.losses import make_loss
from biggan.objective.weight_penalties import orthogonal, penalized_matrices, penalties
from biggan.training.average import EMA
from biggan.training.optimizers import make_adam
from biggan.training.state import TrainingState
from biggan.training.step import Updater


def silent(network: str, k: int) -> None:
    """A hook that does nothing."""


def test_hinge_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.25, 1.0])
    hinge = make_loss(LossConfig())
    loss_real, loss_fake = hinge.discriminator(real, fake)
    assert loss_real.item() == pytest.approx((0 + 0.5 + 2) / 3)
    assert loss_fake.item() == pytest.approx((0 + 1.25 + 2) / 3)
    assert hinge.generator(fake).item() == pytest.approx(1.75 / 3)
    wide, _ = make_loss(LossConfig(margin=3.0)).discriminator(real, fake)
    assert wide.item() == pytest.approx((1 + 2.5 + 4) / 3)


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'hinge'"):
        make_loss(LossConfig(name="hinged"))


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (1, 5), (5, 1), (6, 6)])
def test_orthogonal_regularization_against_eq_3(shape: tuple[int, int]) -> None:
    W = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = 1 - torch.eye(shape[0], dtype=torch.float64)
    value = orthogonal(W)
    torch.testing.assert_close(value, (W @ W.t() * mask).square().sum(), atol=1e-12, rtol=1e-10)
    gradient = torch.autograd.grad(value, W)[0]
    torch.testing.assert_close(gradient, 4 * (W @ W.t() * mask) @ W, atol=1e-10, rtol=1e-10)


def test_penalties_leave_class_embeddings_and_vectors_alone() -> None:
    G = Generator(ModelConfig(resolution=8, ch=4))
    initialize(G, "normal", 0, "G")
    matrices = penalized_matrices(G)
    names = [name for name, p in G.named_parameters() if p.ndim >= 2 and not name.startswith("embedding")]
    assert len(matrices) == len(names)
    total = sum(orthogonal(G.get_parameter(name).flatten(1)) for name in names)
    assert penalties(G, "G", RegularizerConfig(orthogonal_G=0.5))["orthogonal"].item() == pytest.approx(
        0.5 * total.item()
    )
    assert penalties(G, "D", RegularizerConfig(orthogonal_G=0.5)) == {}


@pytest.mark.parametrize(("beta1", "beta2", "eps"), [(0.0, 0.999, 1e-8), (0.5, 0.9, 1e-3)])
def test_adams_first_steps_by_hand(beta1: float, beta2: float, eps: float) -> None:
    layer = torch.nn.Linear(3, 2, bias=False)
    adam = make_adam(layer, AdamConfig(lr=0.01, beta1=beta1, beta2=beta2, eps=eps))
    weight = layer.weight.detach().double().numpy().copy()
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t in range(1, 4):
        gradient = np.random.default_rng(t).normal(size=weight.shape)
        layer.weight.grad = torch.from_numpy(gradient).float()
        adam.step()
        m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
        weight -= 0.01 * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-5, atol=1e-7)


def test_the_average_is_a_copy_until_its_start_and_leaves_buffers_unaveraged() -> None:
    G = Generator(ModelConfig(resolution=8, ch=4))
    ema = EMA(G, EMAConfig(decay=0.9, start=2))
    expected = {name: p.detach().double().clone() for name, p in G.named_parameters()}
    for step in range(1, 5):
        for name, p in G.named_parameters():
            p.data.add_(torch.full_like(p, float(step)))
            value = p.detach().double()
            expected[name] = value.clone() if step <= 2 else 0.9 * expected[name] + 0.1 * value
        G.norm.running_mean.add_(1)
        ema.update(G, step)
    for name, p in ema.network.named_parameters():
        torch.testing.assert_close(p.double(), expected[name], rtol=1e-6, atol=1e-6)
    assert torch.equal(ema.network.norm.running_mean, G.norm.running_mean)
    assert not any(p.requires_grad for p in ema.network.parameters())


def test_the_trainer_averages_after_each_step_by_its_number(tiny, play) -> None:  # noqa: ANN001
    """decay 0.9 from step 2 on: after 1 and 2 a copy, after 3 nine tenths of the copy and a tenth of G."""
    state = TrainingState(tiny())
    weights = {}
    for steps in (1, 2, 3):
        state, _ = play(tiny(steps=steps), state)
        tensors = state.tensors()
        weights[steps] = (tensors["G.linear.weight"].clone(), tensors["G_ema.linear.weight"].clone())
    for steps in (1, 2):
        assert torch.equal(*weights[steps])
    torch.testing.assert_close(weights[3][1], 0.9 * weights[2][0] + 0.1 * weights[3][0])
    assert not torch.equal(weights[3][0], weights[2][0])


def first_updates(config, watch: dict) -> TrainingState:  # noqa: ANN001
    """One D update, then one G update, noting what D saw and the gradients."""
    state = TrainingState(config)

    def hook(network: str, k: int) -> None:
        parameters = state.networks()[network].named_parameters()
        watch[network] = {name: p.grad.clone() for name, p in parameters}

    state.D.blocks[0].register_forward_pre_hook(
        lambda module, inputs: watch["seen"].append([t.detach() for t in inputs])
    )
    updater = Updater(config, state, silent, hook)
    watch["stats"] = updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))
    updater.update_generator()
    return state


def test_accumulation_in_d_equals_the_whole_batch(tiny) -> None:  # noqa: ANN001
    """2 x 16 against 32: the same images, noise and labels; gradients, losses and weights to 1e-6."""
    whole, parts = {"seen": []}, {"seen": []}
    penalty = {"orthogonal_D": 1e-3}
    one = first_updates(tiny(train={"batch": 32, "d_steps": 1}, regularizers=penalty), whole)
    two = first_updates(tiny(train={"batch": 32, "d_steps": 1, "accumulate": 2}, regularizers=penalty), parts)
    fake, real = (torch.cat([part[0].chunk(2)[half] for part in parts["seen"][:2]]) for half in (0, 1))
    assert torch.equal(torch.cat([fake, real]), whole["seen"][0][0])
    fake, real = (torch.cat([part[1].chunk(2)[half] for part in parts["seen"][:2]]) for half in (0, 1))
    assert torch.equal(torch.cat([fake, real]), whole["seen"][0][1])
    for name, gradient in whole["D"].items():
        torch.testing.assert_close(parts["D"][name], gradient, rtol=1e-5, atol=1e-6 * gradient.norm().item() + 1e-9)
    for name, value in whole["stats"].items():
        assert parts["stats"][name].item() == pytest.approx(value.item(), rel=1e-6, abs=1e-7)
    for (name, a), b in zip(one.D.named_parameters(), two.D.parameters(), strict=True):
        # Adam's first step has the size of the rate whatever the gradient: where it is all rounding, the sign may turn.
        sure = whole["D"][name].abs() > 1e-5 * whole["D"][name].abs().max()
        torch.testing.assert_close(a[sure], b[sure], rtol=0, atol=1e-6)


def test_g_moves_its_running_statistics_once_an_update_and_d_never(tiny) -> None:  # noqa: ANN001
    config = tiny(train={"accumulate": 4, "d_steps": 1})
    state = TrainingState(config)
    updater = Updater(config, state, silent, silent)
    start = state.G.norm.running_mean.clone()
    updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))
    assert torch.equal(state.G.norm.running_mean, start)
    inputs = []
    state.G.norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0].detach()))
    updater.update_generator()
    assert len(inputs) == 4
    mean = torch.cat(inputs).transpose(0, 1).flatten(1).mean(dim=1)
    torch.testing.assert_close(state.G.norm.running_mean, config.model.batchnorm_momentum * mean)


def test_gs_update_leaves_no_gradient_in_d(tiny) -> None:  # noqa: ANN001
    config = tiny()
    state = TrainingState(config)
    Updater(config, state, silent, silent).update_generator()
    assert all(p.grad is None for p in state.D.parameters())
    assert all(p.grad is not None for p in state.G.parameters())


@pytest.mark.parametrize("frozen", ["G", "D"])
def test_a_frozen_network_is_a_constant_function(frozen: str, tiny, play) -> None:  # noqa: ANN001
    config = tiny(train={"freeze": frozen})
    state = TrainingState(config)
    before = copy.deepcopy(state.tensors())
    state, history = play(config, state)
    prefixes = {"G": ("G.", "G_ema.", "optim_G."), "D": ("D.", "optim_D.")}
    still = [name for name in before if name.startswith(prefixes[frozen])]
    after = state.tensors()
    assert all(torch.equal(before[name], after[name]) for name in still)
    other = "D" if frozen == "G" else "G"
    assert all(
        not torch.equal(before[f"{other}.{n}"], after[f"{other}.{n}"])
        for n, p in state.networks()[other].named_parameters()
        if p.ndim > 1
    )
    for name in ("loss/D_real", "loss/D_fake", "loss/G", f"gradient_norm/{frozen}"):
        assert all(math.isfinite(step[name]) for step in history), name
    assert history[-1][f"gradient_norm/{frozen}"] > 0

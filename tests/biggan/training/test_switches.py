"""Every switch: trains, changes what it says and nothing else, and resumes bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from biggan.config import Config, ModelConfig, from_dict, to_dict
from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.errors import UserError
from biggan.networks.batchnorm import BatchNorm, ConditionalBatchNorm
from biggan.networks.blocks import DBlock
from biggan.networks.discriminator import Discriminator
from biggan.networks.factory import LayerFactory
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize
from biggan.networks.resampling import upsample_bilinear
from biggan.run.checkpoint import read_checkpoint, save_checkpoint
from biggan.run.session import config_notes
from biggan.training.estimate import estimate
from biggan.training.state import TrainingState
from biggan.training.step import Updater

Play = Callable[..., tuple[TrainingState, list[dict[str, float]]]]
W, CLASSES, CONDITION = 16, 10, 12 + 32  # width of every block at 8x8 with ch 4; a chunk of z joined to the embedding
CONVS_3X3 = {"G": 4 * W * W + 3 * W, "D": 3 * W + 5 * W * W}  # filter by filter, without their 9 positions
MODEL = {"resolution": 8, "ch": 4, "z_dim": 36}

# Section, fields, parameters more in G and in D, and the networks whose function at initialisation differs.
SWITCHES: dict[str, tuple[str, dict, int, int, str]] = {
    "weightnorm": ("model", {"norm_G": "weight"}, 16 * W + 5 * W + 3, 0, "G"),
    "no norm": ("model", {"norm_G": "none"}, 0, 0, "G"),
    "batchnorm in D": ("model", {"norm_D": "batch"}, 0, 6 * 2 * W, "D"),
    "conditional batchnorm in D": ("model", {"norm_D": "conditional"}, 0, 6 * 2 * W * CLASSES, "D"),
    "embedding shared with D": ("model", {"share_embedding_with_D": True}, 0, 32 * W - CLASSES * W, "D"),
    "filters of 5 in G": ("model", {"kernel_size_G": 5}, (25 - 9) * CONVS_3X3["G"], 0, "G"),
    "filters of 7 in D": ("model", {"kernel_size_D": 7}, 0, (49 - 9) * CONVS_3X3["D"], "D"),
    "dilation in G": ("model", {"dilation_G": 2}, 0, 0, "G"),
    "dilation in D": ("model", {"dilation_D": 3}, 0, 0, "D"),
    "bilinear": ("model", {"upsampling": "bilinear"}, 0, 0, "G"),
    "non-local": (
        "model",
        {"attention_G": [4, 8], "attention_D": [4]},
        2 * (2 * 2 * W + 2 * 8 * W + 1),
        2 * 2 * W + 2 * 8 * W + 1,
        "G",  # D's stands at the end, with a gain of 0; G's first one shifts the names that later blocks are drawn by
    ),
    "doubled depth": (
        "model",
        {"double_depth": True},
        2 * (9 * W * W + W) + 4 * CONDITION * W,
        2 * (9 * W * W + W),
        "GD",
    ),
    "mlp": ("model", {"projection": "mlp"}, 8 * (CONDITION**2 + CONDITION), 0, "G"),
    "mlp, bare, with bias": (
        "model",
        {"projection": "mlp", "projection_bias": True, "projection_spectral_norm": False, "projection_hidden": 5},
        8 * (5 * CONDITION + 5 + 5 * W + W - CONDITION * W),
        0,
        "G",
    ),
    "projection bias": ("model", {"projection_bias": True}, 8 * W, 0, ""),
    "bare projections": ("model", {"projection_spectral_norm": False}, 0, 0, "G"),
    "clamp G": ("model", {"clamp_G": {"value": 0.9}}, 0, 0, "G"),
    "clamp D, ratio, without SN": ("model", {"clamp_D": {"ratio": 1.0}, "spectral_norm_D": False}, 0, 0, "D"),
    "project G": ("model", {"clamp_G": {"value": 0.9, "mode": "project"}}, 0, 0, ""),
    "project D, one layer": (
        "model",
        {"clamp_D": {"ratio": 1.0, "mode": "project", "layers": ["blocks.0.conv1"]}},
        0,
        0,
        "",
    ),
    "sigma G": ("regularizers", {"sigma_G": {"strength": 0.1, "target": 0.5}}, 0, 0, ""),
    "sigma D": ("regularizers", {"sigma_D": {"strength": 0.1, "ratio": 1.0}}, 0, 0, ""),
    "non-saturating": ("loss", {"name": "non_saturating"}, 0, 0, ""),
    "wasserstein": ("loss", {"name": "wasserstein"}, 0, 0, ""),
    "r1": ("regularizers", {"r1": 10.0}, 0, 0, ""),
    "gradient penalty": ("regularizers", {"gradient_penalty": 1.0}, 0, 0, ""),
    "dropout": ("regularizers", {"dropout_keep": 0.8}, 0, 0, ""),
    "l2": ("regularizers", {"l2_G": 1e-4, "l2_D": 1e-4}, 0, 0, ""),
    "eq. 2": ("regularizers", {"orthogonal_D": 1e-4, "orthogonal_form_D": "full"}, 0, 0, ""),
    "embedding decay": ("regularizers", {"embedding_decay": 1e-2}, 0, 0, ""),
    "clipping": ("optim", {"G": {"lr": 1e-3, "clip_global": 0.1}, "D": {"lr": 1e-3, "clip_tensor": 0.1}}, 0, 0, ""),
    "annealed latents": ("latents", {"distribution": "annealed_normal", "anneal_steps": 4}, 0, 0, ""),
    "margin": ("loss", {"margin": 2.0}, 0, 0, ""),
}


# Second examples of a field: as thorough, and left to the slow tests.
SECOND = {
    *("filters of 7 in D", "dilation in D", "mlp", "bare projections"),
    *("eq. 2", "gradient penalty", "margin", "non-saturating", "projection bias"),
    "project D, one layer",
}
QUICK_FIRST = [pytest.param(name, marks=pytest.mark.slow if name in SECOND else ()) for name in SWITCHES]


def configuration(section: str = "model", change: dict | None = None, **top: object) -> Config:
    """8x8, four channels, a batch of eight."""
    values: dict = {
        "steps": 20,
        "device": "cpu",
        "model": dict(MODEL),
        "train": {"batch": 8},
        "optim": {"G": {"lr": 1e-3}, "D": {"lr": 1e-3}},
        "ema": {"decay": 0.9, "start": 2},
        **top,
    }
    values[section] = {**values.get(section, {}), **(change or {})}
    return from_dict(values)


def network_inputs(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    z = torch.randn(count, MODEL["z_dim"], generator=random)
    return z, torch.rand(count, 3, 8, 8, generator=random) * 2 - 1, torch.arange(count) % 3


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_switch_trains_and_resumes_bit_for_bit(name: str, play: Play, tmp_path: Path) -> None:
    section, change, *_ = SWITCHES[name]
    early, whole = (configuration(section, change, steps=steps) for steps in (3, 5))
    straight, first = play(early)
    save_checkpoint(tmp_path / "early.safetensors", straight.tensors(), straight.step, to_dict(early))
    _, second = play(whole, straight)
    history = [*first, *second]
    assert len(history) == 5
    assert all(math.isfinite(value) for stats in history for value in stats.values())
    assert all(torch.isfinite(tensor).all() for tensor in straight.tensors().values())

    resumed = TrainingState(whole)
    checkpoint = read_checkpoint(tmp_path / "early.safetensors")
    resumed.load(checkpoint.tensors, checkpoint.step)
    _, again = play(whole, resumed)
    assert again == second
    one, other = straight.tensors(), resumed.tensors()
    assert set(one) == set(other)
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


@pytest.fixture(scope="module")
def untrained() -> TrainingState:
    """The state at step 0 without any switch."""
    return TrainingState(configuration())


@pytest.mark.parametrize("name", SWITCHES)
def test_switch_changes_what_it_says_and_nothing_else(name: str, untrained: TrainingState) -> None:
    section, change, more_G, more_D, changed = SWITCHES[name]
    plain, switched = untrained, TrainingState(configuration(section, change))
    for network, more in (("G", more_G), ("D", more_D)):
        counts = [sum(p.numel() for p in state.networks()[network].parameters()) for state in (plain, switched)]
        assert counts[1] - counts[0] == more
    z, x, y = network_inputs()
    with torch.no_grad():
        same = {
            "G": torch.equal(plain.G(z, y), switched.G(z, y)),
            "D": torch.equal(plain.D(x, y), switched.D(x, y)),
        }
    assert same == {network: network not in changed for network in "GD"}


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    """The state after two steps without any switch."""
    config = configuration(steps=2)
    state = TrainingState(config)
    updater = Updater(config, state, lambda network, k: None, lambda network, k: None)
    batches = training_batches(config, open_source(config), 0)
    for _ in range(2):
        updater.update_discriminator(0, *next(batches))
        updater.update_generator()
        state.step += 1
    return state.tensors()


@pytest.mark.parametrize("name", [name for name, (section, *_) in SWITCHES.items() if section != "model"])
def test_objectives_change_the_training(name: str, play: Play, plain: dict[str, torch.Tensor]) -> None:
    section, change, *_ = SWITCHES[name]
    switched, _ = play(configuration(section, change, steps=2))
    one, other = plain, switched.tensors()
    assert [key for key in one if key.startswith("G.") and not torch.equal(one[key], other[key])]


@pytest.mark.parametrize(
    "change",
    [
        {"norm_G": "weight", "kernel_size_G": 5},
        {"norm_G": "none", "upsampling": "bilinear"},
        {"norm_D": "conditional", "double_depth": True},
        {"share_embedding_with_D": True, "projection": "mlp", "dilation_D": 2},
        {"clamp_G": {"ratio": 1.0}, "clamp_D": {"value": 0.9, "mode": "project"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_switches_in_biggan_deep(change: dict, play: Play) -> None:
    config = configuration("model", {"family": "biggan-deep", "resolution": 32, "z_dim": 8, **change}, steps=2)
    _, history = play(config)
    assert all(math.isfinite(value) for stats in history for value in stats.values())


def made(model: dict, kind: type = Generator, name: str = "G") -> nn.Module:
    network = kind(from_dict({"model": {**MODEL, **model}}).model)
    initialize(network, "orthogonal", 0, name)
    return network


def test_every_parameter_belongs_to_one_network() -> None:
    state = TrainingState(configuration("model", {"share_embedding_with_D": True}))
    of_G, of_D = ({id(p) for p in network.parameters()} for network in (state.G, state.D))
    assert not of_G & of_D


def test_weightnorm_gives_every_filter_the_length_of_its_gain() -> None:
    G = made({"norm_G": "weight", "spectral_norm_G": False})
    with torch.no_grad():
        G.to_rgb.weight_norm.gain.copy_(torch.tensor([0.5, 2.0, 3.0]))
    lengths = G.to_rgb.current_weight().flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([0.5, 2.0, 3.0]))
    plain = made({"norm_G": "none", "spectral_norm_G": False})
    direction = plain.to_rgb.weight.flatten(1) / plain.to_rgb.weight.flatten(1).norm(dim=1, keepdim=True)
    torch.testing.assert_close(G.to_rgb.current_weight().flatten(1) / lengths[:, None], direction)
    assert not [m for m in G.modules() if isinstance(m, BatchNorm)]
    # Conditional projections are no layers of the main path: they stay as they were.
    assert not G.blocks[0].norm1.gain.is_mapped


def test_without_batchnorm_gains_and_biases_still_tell_the_class() -> None:
    G = made({"norm_G": "none"})
    z, _, _ = network_inputs(2)
    z = z[:1].expand(2, -1)
    with torch.no_grad():
        images = G(z, torch.tensor([0, 1]))
        alone = torch.cat([G(z[:1], torch.tensor([c])) for c in (0, 1)])
    assert not torch.equal(images[0], images[1])
    torch.testing.assert_close(images, alone)  # no statistics of the batch


def test_batchnorm_in_D_normalizes_fake_and_real_together(play: Play) -> None:
    config = configuration("model", {"norm_D": "batch"}, steps=1)
    state = TrainingState(config)
    seen: list[torch.Tensor] = []
    norm = state.D.blocks[1].norm1
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    play(config, state)
    first = seen[0]  # D's update; the second is G's, which moves nothing
    assert [len(x) for x in seen] == [16, 8]
    mean, variance = first.mean(dim=(0, 2, 3)), first.var(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance)


def test_a_penaltys_own_pass_leaves_running_statistics_alone(play: Play) -> None:
    one, _ = play(configuration("model", {"norm_D": "batch"}, steps=1))
    other, _ = play(configuration("model", {"norm_D": "batch"}, steps=1, regularizers={"r1": 1.0}))
    torch.testing.assert_close(one.D.norm.running_mean, other.D.norm.running_mean, rtol=0, atol=0)


def test_batchnorm_in_D_keeps_still_while_D_is_frozen(play: Play) -> None:
    config = configuration("model", {"norm_D": "conditional", "share_embedding_with_D": True}, steps=3)
    frozen = from_dict({**to_dict(config), "train": {"batch": 8, "freeze": "D"}})
    state = TrainingState(frozen)
    before = {name: tensor.clone() for name, tensor in state.D.state_dict().items()}
    play(frozen, state)
    assert [name for name, tensor in state.D.state_dict().items() if not torch.equal(tensor, before[name])] == []


def test_conditional_batchnorm_in_D_stands_before_every_relu_but_the_images() -> None:
    D = made({"norm_D": "conditional"}, Discriminator, "D")
    blocks = [block for block in D.blocks if isinstance(block, DBlock)]
    kinds = [isinstance(n, ConditionalBatchNorm) for block in blocks for n in (block.norm1, block.norm2)]
    assert kinds == [False, True, True, True, True, True]
    assert isinstance(D.norm, ConditionalBatchNorm)


def test_the_shared_embedding_is_trained_by_G_alone(play: Play) -> None:
    config = configuration("model", {"share_embedding_with_D": True}, steps=1)
    state = TrainingState(config)
    at_first = state.G.embedding.weight.detach().clone()
    assert torch.equal(state.D.embedding.classes, at_first)
    play(config, state)
    assert not torch.equal(state.G.embedding.weight, at_first)
    assert torch.equal(state.D.embedding.classes, at_first)  # as it was at D's update
    play(from_dict({**to_dict(config), "steps": 2}), state)
    assert not torch.equal(state.D.embedding.classes, at_first)
    # No gradient reaches the embedding by way of D's classes.
    _, x, y = network_inputs()
    state.G.zero_grad(set_to_none=True)
    state.D(x, y).sum().backward()
    assert state.G.embedding.weight.grad is None
    assert state.D.embedding.projection.weight.grad is not None


def test_bilinear_upsampling_against_its_weights() -> None:
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=torch.float64)  # near and far pixel, by parity
    wanted = torch.zeros(2, 3, 10, 10, dtype=torch.float64)
    for i in range(10):
        for j in range(10):
            top, left = (i + 1) // 2, (j + 1) // 2
            a, b = kernel[1 - i % 2], kernel[1 - j % 2]
            wanted[:, :, i, j] = torch.einsum("ncij,i,j->nc", padded[:, :, top : top + 2, left : left + 2], a, b)
    torch.testing.assert_close(upsample_bilinear(x), wanted)


@pytest.mark.parametrize(("size", "dilation"), [(3, 1), (5, 1), (7, 1), (3, 2), (5, 3)])
def test_filters_keep_the_resolution_and_see_as_far_as_they_say(size: int, dilation: int) -> None:
    conv = LayerFactory(spectral_norm=False, sn_eps=1e-4, size=size, dilation=dilation).conv(1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        x = torch.zeros(1, 1, 33, 33)
        x[0, 0, 16, 16] = 1
        out = conv(x)
    assert out.shape == x.shape
    rows = out[0, 0].any(dim=1).nonzero().flatten()
    assert rows.tolist() == [16 + dilation * step for step in range(-(size // 2), size // 2 + 1)]


def test_extra_blocks_take_the_condition_of_the_block_they_follow() -> None:
    G = Generator(ModelConfig(resolution=16, ch=4, double_depth=True))
    assert G.condition_of == [0, 0, 1, 1]
    assert G.chunk == 8  # z is cut as without the extra blocks
    assert Generator(ModelConfig(resolution=16, ch=4)).condition_of == [0, 1]
    seen: list[torch.Tensor] = []
    for block in G.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    z, c = torch.randn(2, 24), torch.randn(2, 32)
    G.synthesize(z, c)
    for index, chunk in enumerate((z[:, 8:16], z[:, 8:16], z[:, 16:], z[:, 16:])):
        assert torch.equal(seen[index], torch.cat([chunk, c], dim=1))


def test_choices_are_checked_however_a_configuration_is_made() -> None:
    with pytest.raises(UserError, match=r"model.norm_G is 'bach', expected one of batch, .*did you mean 'batch'"):
        configuration("model", {"norm_G": "bach"})
    with pytest.raises(UserError, match=r"model\.kernel_size_D is 4, expected one of 3, 5, 7"):
        configuration("model", {"kernel_size_D": 4})


def test_estimate_counts_the_pass_of_a_gradient_penalty_and_checks_layers() -> None:
    plain, penalized = (estimate(from_dict({"model": {"ch_G": 4}, "regularizers": {"r1": r1}})) for r1 in (0.0, 1.0))
    assert penalized["memory"]["activations"] > 1.2 * plain["memory"]["activations"]
    with pytest.raises(UserError, match="did you mean 'linear'"):
        estimate(configuration("model", {"clamp_G": {"value": 1.0, "mode": "project", "layers": ["linaer"]}}))


def test_notes_name_the_networks_that_normalize_micro_batches() -> None:
    accumulating = {"train": {"batch": 8, "accumulate": 2}}
    (note,) = config_notes(configuration("model", {"norm_D": "batch"}, **accumulating))
    assert "in G's and D's updates" in note
    assert config_notes(configuration("model", {"norm_G": "none"}, **accumulating)) == []


@pytest.mark.parametrize("field", ["share_embedding_with_D", "projection_bias"])
def test_what_builds_on_the_shared_embedding_needs_it(field: str) -> None:
    with pytest.raises(UserError, match=rf"{field}.*shared_embedding is off"):
        TrainingState(configuration("model", {field: True, "shared_embedding": False, "skip_z": False}))

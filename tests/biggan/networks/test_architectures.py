"""The networks are the paper's: parameter counts, shapes, and who owns which parameter."""

from __future__ import annotations

import pytest
import torch

from biggan.config import ModelConfig
from biggan.errors import UserError
from biggan.networks.architectures import TABLE
from biggan.networks.discriminator import Discriminator
from biggan.networks.generator import Generator
from biggan.networks.initialization import initialize


def millions(network: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def on_meta(**settings: object) -> tuple[Generator, Discriminator]:
    with torch.device("meta"):
        model = ModelConfig(**settings)
        return Generator(model), Discriminator(model)


UNSHARED = {"shared_embedding": False, "skip_z": False, "z_dim": 128}


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"ch": 64, **UNSHARED}, 81.5),
        ({"ch": 96, **UNSHARED}, 173.5),
        ({"ch": 96, "skip_z": False, "z_dim": 128}, 160.6),
        ({"ch": 96}, 158.3),
        ({"ch": 64}, 71.3),
    ],
)
def test_table_1_counts(settings: dict, total: float) -> None:
    G, D = on_meta(resolution=128, classes=1000, **settings)
    embedding = 0 if G.embedding is None else millions(G.embedding)  # Table 1 leaves it out
    assert millions(G) + millions(D) - embedding == pytest.approx(total, abs=0.06)


def test_counts_of_each_network() -> None:
    G, D = on_meta(resolution=128, classes=1000, ch=96)
    assert millions(G) == pytest.approx(70.4, abs=0.06)
    assert millions(D) == pytest.approx(88.0, abs=0.06)
    G, D = on_meta(family="biggan-deep", resolution=128, classes=1000, ch=128)
    assert millions(G) == pytest.approx(50.24, abs=0.06)  # printed 50.4 with a last convolution that is cut to 3
    assert millions(D) == pytest.approx(34.6, abs=0.06)


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"ch": 64, "shared_embedding": False, "skip_z": False}, 317.1),
        ({"ch": 64}, 99.4),
        ({"ch": 96}, 207.9),
        ({"ch": 128}, 355.7),
    ],
)
def test_table_3_counts_at_256(settings: dict, total: float) -> None:
    G, D = on_meta(resolution=256, classes=18291, **settings)
    embedding = 0 if G.embedding is None else millions(G.embedding)
    assert millions(G) + millions(D) - embedding == pytest.approx(total, rel=1.2e-3)


@pytest.mark.parametrize(("family", "resolution"), sorted(TABLE))
def test_every_row_builds_and_fits_together(family: str, resolution: int) -> None:
    norms = dict.fromkeys(("spectral_norm_G", "spectral_norm_D"), resolution <= 64)  # most of the time of the others
    G, D = on_meta(family=family, resolution=resolution, classes=7, ch=8, **norms)
    y = torch.zeros(2, dtype=torch.int64, device="meta")
    images = G(torch.empty(2, G.z_dim, device="meta"), y)
    assert images.shape == (2, 3, resolution, resolution)
    assert D(images, y).shape == (2,)


@pytest.mark.parametrize(
    "settings",
    [
        {"resolution": 16},
        {"resolution": 8, "shared_embedding": False, "skip_z": False},
        {"resolution": 16, "spectral_norm_G": False, "conv1_width_D": "in"},
        {"resolution": 32, "attention_G": [16], "attention_D": [16], "ch": 4},
        {"resolution": 32, "family": "biggan-deep", "attention_G": [8, 16], "ch": 4},
    ],
)
@pytest.mark.parametrize("init", ["orthogonal", "normal", "xavier"])
def test_images_lie_in_range_and_depend_on_z_and_y(settings: dict, init: str) -> None:
    G = Generator(ModelConfig(**{"ch": 4, "init": init, **settings}))
    initialize(G, init, 0, "G")
    z, y = torch.randn(6, G.z_dim, generator=torch.Generator().manual_seed(0)), torch.arange(6)
    images = G(z, y)
    assert images.abs().max() <= 1
    assert not torch.equal(images, G(z.flip(0), y))
    assert not torch.equal(images, G(z, y.flip(0)))


def test_every_parameter_is_in_exactly_one_network() -> None:
    G, D = on_meta(resolution=32, ch=4, attention_G=[16], attention_D=[16])
    assert {id(p) for p in G.parameters()}.isdisjoint({id(p) for p in D.parameters()})
    for network in (G, D):
        ids = [id(p) for _, p in network.named_parameters(remove_duplicate=False)]
        assert len(ids) == len(set(ids))


def test_skip_z_gives_each_block_its_own_chunk() -> None:
    G = Generator(ModelConfig(resolution=16, ch=4))
    z, y = torch.randn(4, 24, generator=torch.Generator().manual_seed(0)), torch.zeros(4, dtype=torch.int64)
    seen = []
    for block in G.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    G(z, y)
    assert torch.equal(seen[0][:, :8], z[:, 8:16])
    assert torch.equal(seen[1][:, :8], z[:, 16:])
    assert torch.equal(seen[0][:, 8:], G.embedding(y))


def test_widths_can_be_set_for_each_network() -> None:
    model = ModelConfig(resolution=16, ch=8, ch_D=12)
    assert Generator(model).to_rgb.weight.shape[1] == 16
    assert Discriminator(model).linear.weight.shape[1] == 48


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resolution": 24}, "has tables for"),
        ({"resolution": 16, "z_dim": 25}, "Take 24 or 27"),
        ({"resolution": 16, "shared_embedding": False}, "Turn skip_z off"),
        ({"resolution": 128, "family": "biggan-deep", "skip_z": False}, "cannot be off"),
        ({"resolution": 32, "family": "biggan-deep", "ch": 6}, "multiple of"),
        ({"resolution": 16, "attention_G": [12]}, r"non-local block at \[12\]"),
        ({"resolution": 16, "ch": 1, "attention_D": [8]}, "needs 8 at least"),
    ],
)
def test_what_cannot_be_built_says_why(settings: dict, words: str) -> None:
    model = ModelConfig(**settings)
    with pytest.raises(UserError, match=words):
        Generator(model)


def attention_after(D: Discriminator) -> list[int]:
    """The numbers of D's blocks that a non-local block follows."""
    found, blocks = [], -1
    for module in D.blocks:
        if type(module).__name__ == "NonLocalBlock":
            found.append(blocks)
        else:
            blocks += 1
    return found


def test_attention_stands_after_the_blocks_of_D_that_are_named() -> None:
    assert attention_after(on_meta(resolution=32, ch=8, attention_D=[16, 8])[1]) == [0, 3]
    assert attention_after(on_meta(resolution=32, ch=8, attention_D=[16], attention_blocks_D=[0, 1, 2, 3])[1]) == [
        *(0, 1, 2, 3)
    ]
    assert attention_after(on_meta(resolution=128, ch=8, attention_blocks_D=[])[1]) == []
    with pytest.raises(UserError, match=r"attention_blocks_D names \[4\].*0 to 3"):
        on_meta(resolution=32, ch=8, attention_blocks_D=[4])


def test_the_last_layers_of_G_have_settings_of_their_own() -> None:
    G = on_meta(resolution=32, ch=8, batchnorm_eps=1e-4, batchnorm_eps_last=1e-5, spectral_norm_rgb=False)[0]
    assert (G.norm.eps, G.blocks[0].norm1.eps, G.blocks[-1].norm2.eps) == (1e-5, 1e-4, 1e-4)
    assert [name for name in G.state_dict() if name.startswith("to_rgb.")] == ["to_rgb.weight", "to_rgb.bias"]
    assert "to_rgb.u" in on_meta(resolution=32, ch=8)[0].state_dict()

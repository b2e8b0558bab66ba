"""Published BigGAN-deep in the layout of pytorch-pretrained-biggan: the same images, by a reference of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_layouts import trained_state
from scipy.stats import kstest, truncnorm
from torch import Tensor, nn

from biggan.cli.import_weights import import_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import from_dict
from biggan.evaluation.pictures.grids import load_generator
from biggan.evaluation.stored_statistics import stored_at, with_stored_statistics
from biggan.networks.base import GeneratorNetwork
from biggan.objective.latents import truncated_latents
from biggan.rng import generator
from biggan.run.checkpoint import read_checkpoint

MODEL: dict[str, Any] = {"family": "biggan-deep", "resolution": 32, "ch": 4, "z_dim": 6, "embedding_dim": 6}
MODEL |= {"classes": 3, "attention_G": [16], "spectral_norm_rgb": False}
LAYERS = [[False, 4, 4], [True, 4, 4]] * 3
STATISTICS = 51


def hub_name(name: str) -> str:
    """Our name of G's tensor -> the package's."""
    parts = name.split(".")
    if parts[0] == "blocks":
        inner = {"theta": "snconv1x1_theta", "phi": "snconv1x1_phi", "g": "snconv1x1_g", "o": "snconv1x1_o_conv"}
        layer = inner.get(parts[2], parts[2])
        for ours, theirs in (("norm", "bn_"), ("conv", "conv_")):
            if layer.startswith(ours):
                layer = f"{theirs}{int(layer[len(ours) :]) - 1}"
        rest = [{"gain": "scale", "bias": "offset"}.get(part, part) for part in parts[3:-1]]
        end = "gamma" if layer == "gain" else parts[-1]
        return ".".join(["generator.layers", parts[1], *([] if layer == "gain" else [layer]), *rest, end])
    heads = {"embedding": "embeddings", "linear": "generator.gen_z", "norm": "generator.bn"}
    return ".".join([heads.get(parts[0], "generator.conv_to_rgb"), *parts[1:]])


def write_hub(G: nn.Module, folder: Path) -> dict[str, Tensor]:
    """G in the package's layout, its last convolution with 4 filters; returns the tables of statistics by our names."""
    random = torch.Generator().manual_seed(3)
    own, theirs, tables = G.state_dict(), {}, {}
    for name, tensor in own.items():
        if name.endswith("running_mean") or name.endswith("running_var"):
            table = torch.rand(STATISTICS, len(tensor), generator=random) + 0.5
            tables[name] = table
            theirs[hub_name(name).replace("running_mean", "running_means").replace("running_var", "running_vars")] = (
                table
            )
            continue
        if name.startswith("linear."):  # rows by place, then channel
            tensor = tensor.unflatten(0, (-1, 4, 4)).movedim(0, 2).flatten(0, 2)
        if name == "embedding.weight":
            tensor = tensor.t()
        if name.startswith("to_rgb."):
            tensor = torch.cat([tensor, torch.randn(1, *tensor.shape[1:], generator=random)])
        theirs[hub_name(name)] = tensor.contiguous()
    for name in [name for name in theirs if name.endswith(".u")]:
        layer = name.removesuffix(".u")
        theirs[f"{layer}.weight_u"] = theirs.pop(name)
        theirs[f"{layer}.weight_orig"] = theirs.pop(f"{layer}.weight")
        theirs[f"{layer}.weight_v"] = torch.randn(5, generator=random)
    filters = theirs.pop("generator.conv_to_rgb.weight")
    left, _, right = torch.linalg.svd(filters.flatten(1), full_matrices=False)
    theirs["generator.conv_to_rgb.weight_orig"] = filters
    theirs["generator.conv_to_rgb.weight_u"], theirs["generator.conv_to_rgb.weight_v"] = left[:, 0], right[0]
    folder.mkdir()
    torch.save(theirs, folder / "pytorch_model.bin")
    config = {"output_dim": 32, "z_dim": 6, "class_embed_dim": 6, "channel_width": 4, "num_classes": 3}
    config |= {"layers": LAYERS, "attention_layer_position": 4, "eps": 1e-4, "n_stats": STATISTICS}
    (folder / "config.json").write_text(json.dumps(config))
    return tables


@pytest.fixture
def original() -> GeneratorNetwork:
    return trained_state(from_dict({"model": MODEL})).G


def reference(G: GeneratorNetwork, folder: Path, tables: dict[str, Tensor], truncation: float) -> nn.Module:
    """The original with the package's last convolution, W / sigma of all filters, and statistics between two rows."""
    filters = torch.load(folder / "pytorch_model.bin", weights_only=True)["generator.conv_to_rgb.weight_orig"]
    sigma = np.linalg.svd(filters.flatten(1).numpy(), compute_uv=False)[0]
    state = G.state_dict()
    state["to_rgb.weight"] = filters[:3] / float(sigma)
    for name, table in tables.items():
        rows = [np.interp(truncation, np.linspace(0, 1, STATISTICS), column) for column in table.double().numpy().T]
        state[name] = torch.tensor(np.array(rows), dtype=torch.float32)
    G.load_state_dict(state)
    for layer in G.modules():  # sigma of the weights themselves
        if hasattr(layer, "eps_sn"):
            layer.u.copy_(torch.linalg.svd(layer.weight.flatten(1), full_matrices=False)[0][:, 0])  # type: ignore[attr-defined]
    return G.eval()


@pytest.mark.parametrize("truncation", [1.0, 0.413, pytest.param(0.4, marks=pytest.mark.slow)])
def test_its_images_are_those_of_the_original(truncation: float, original: GeneratorNetwork, tmp_path: Path) -> None:
    tables = write_hub(original, tmp_path / "hub")
    assert import_main([str(tmp_path / "hub"), "--out", str(tmp_path / "run")]) == 0
    checkpoint = read_checkpoint(tmp_path / "run/checkpoints/step-00000000.safetensors")
    model = checkpoint.config.model
    assert (model.family, model.resolution, model.ch, model.attention_G) == ("biggan-deep", 32, 4, [16])
    z, y = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
    ours = with_stored_statistics(load_generator(checkpoint), checkpoint.tensors, truncation, checkpoint.path)(z, y)
    with torch.no_grad():
        wanted = reference(original, tmp_path / "hub", tables, truncation)(z, y)
    torch.testing.assert_close(ours, wanted, atol=5e-6, rtol=0)
    assert (wanted.max() - wanted.min()).item() > 0.1


def test_it_is_sampled_scored_and_scanned_and_not_trained(
    original: GeneratorNetwork, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_hub(original, tmp_path / "hub")
    run = tmp_path / "run"
    assert import_main([str(tmp_path / "hub"), "--out", str(run)]) == 0
    assert "cannot be trained further" in capsys.readouterr().out
    line = ["--ckpt", str(run), "--truncation=0.4", "--truncation-kind=scaled", "--statistics=stored"]
    assert sample_main([*line, "--per-class=1", "--out", str(tmp_path / "grid.png")]) == 0
    npz = tmp_path / "images.npz"
    assert sample_main([*line, "--num=6", "--out", str(npz)]) == 0
    assert sample_main(["--ckpt", str(run), "--num=6", "--standing-passes=1", "--out", str(npz)]) == 2
    assert "truncation_kind: scaled there, threshold now" in " ".join(capsys.readouterr().err.split())
    assert sample_main(["--ckpt", str(run), "--truncation=1.5", "--statistics=stored"]) == 2
    assert "up to 1" in " ".join(capsys.readouterr().err.split())
    data = ["--data.source=digits", "--data.top_classes=3", "--allow-change"]
    assert train_main(["--resume", str(run), "--steps=3", *data]) == 2
    assert "imported without G, D, G's optimizer, D's optimizer" in " ".join(capsys.readouterr().err.split())


def test_the_configuration_must_be_of_these_weights(
    original: GeneratorNetwork, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_hub(original, tmp_path / "hub")
    path = tmp_path / "hub/config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"layers": LAYERS[1:]}))
    assert import_main([str(tmp_path / "hub"), "--out", str(tmp_path / "run")]) == 2
    assert "has the layers" in capsys.readouterr().err.replace("\n", " ")
    path.write_text(json.dumps(config | {"num_classes": 1000}))
    assert import_main([str(tmp_path / "hub"), "--out", str(tmp_path / "run")]) == 2
    assert "num_classes 1000, and the tensors are of 3" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_statistics_between_two_are_in_proportion() -> None:
    table = torch.arange(51.0)[:, None] * torch.tensor([[1.0, -2.0]])
    for truncation in (0.0, 0.02, 0.413, 0.999, 1.0):
        wanted = truncation * 50 * torch.tensor([1.0, -2.0])
        torch.testing.assert_close(stored_at(table, truncation), wanted, atol=1e-4, rtol=0)


def test_scaled_latents_are_t_times_a_normal_cut_at_2() -> None:
    z = truncated_latents("normal", generator(0, "test"), 2000, 8, 0.4, kind="scaled")
    assert float(z.abs().max()) <= 0.8
    assert kstest(z.flatten().numpy() / 0.4, truncnorm(-2, 2).cdf).pvalue > 1e-3
    other = truncated_latents("normal", generator(0, "test"), 2000, 8, 0.4)
    assert float(other.abs().max()) <= 0.4

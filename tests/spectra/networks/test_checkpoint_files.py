"""What checkpoints are read: formats, nests, folders; a tensor that cannot be taken is a row with its reason."""

from __future__ import annotations

import argparse
import datetime
import io
import json
import pathlib
import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import spectra
from spectra.networks.scan import Spectrum, scan


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(path: Path, **options: object) -> dict[str, Spectrum]:
    return {row.name: row for row in scan(path, **options)[0]}


def truth(weight: Tensor) -> list[float]:
    """LAPACK's leading three in float64."""
    return torch.linalg.svdvals(weight.detach().double().flatten(1))[:3].tolist()


WEIGHT = draw(5, 4)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_harmless_values_beside_the_weights(tmp_path: Path, old: bool, protocol: int) -> None:
    content = {
        "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("runs/x"), nested=argparse.Namespace(a=1)),
        "extra": SimpleNamespace(epoch=3),
        "best": np.float64(0.25),
        "count": np.int64(7),
        "history": np.arange(6.0),
        "when": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "took": datetime.timedelta(seconds=3),
        "path": pathlib.Path("a/b"),
        "sets": {1, 2},
        "frozen": frozenset([3]),
        "complex": 1 + 2j,
        "counts": defaultdict(list, {"a": [1]}),
        "dtype": torch.bfloat16,
        "types": [int, str, range, bytes, dict],
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "version": torch.__version__,
        "random": np.random.RandomState(0).get_state(),
        "model": OrderedDict(a=WEIGHT, b=nn.Parameter(draw(3, 3))),
    }
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    found = rows(tmp_path / "c.pt")
    assert list(found) == ["model.a", "model.b"]
    assert found["model.a"].sigma == pytest.approx(truth(WEIGHT), rel=1e-5)


def test_configurations_of_lightning_and_omegaconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.nodes.AnyNode",
        "lightning.fabric.utilities.data.AttributeDict",
    )
    content: dict = {"state_dict": {"a.weight": WEIGHT}}
    for path in names:
        module, _, name = path.rpartition(".")
        kind = type(name, (dict,), {"__module__": module})
        for end in range(1, len(module.split(".")) + 1):  # stand-ins for packages that need not be installed
            part = ".".join(module.split(".")[:end])
            monkeypatch.setitem(sys.modules, part, ModuleType(part))
        monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
        content[name] = kind(lr=1e-3)
    torch.save(content, tmp_path / "c.ckpt")
    assert list(rows(tmp_path / "c.ckpt")) == ["state_dict.a"]
    other = type("Config", (dict,), {"__module__": "omegaconf.nodes"})
    monkeypatch.setattr(sys.modules["omegaconf.nodes"], "Config", other, raising=False)
    torch.save({**content, "other": other()}, tmp_path / "c.ckpt")
    with pytest.raises(spectra.WeightFileError, match=r"asks for 'omegaconf\.nodes\.Config'"):
        rows(tmp_path / "c.ckpt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_of_tensors_and_arrays(tmp_path: Path, protocol: int) -> None:
    content = {
        "t": WEIGHT,
        "a": WEIGHT.numpy(),
        "f": np.asfortranarray(WEIGHT.numpy()),
        "swapped": WEIGHT.numpy().astype(">f8"),
    }
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(content, protocol))
    found = rows(tmp_path / "c.pkl")
    assert set(found) == set(content)
    for name, row in found.items():
        assert row.shape == (5, 4), name
        assert row.sigma == pytest.approx(truth(WEIGHT), rel=1e-5), name


@pytest.mark.parametrize("old", [False, True])
def test_views_and_types_of_torch_are_what_torch_loads(tmp_path: Path, old: bool) -> None:
    base = draw(8, 6)
    content = {
        "whole": base,
        "part": base[2:5, 1:4],
        "turned": base.T,
        "negated": base.half(),
        "brain": base.to(torch.bfloat16),
        "double": base.double(),
        "channels_last": draw(4, 3, 2, 2).to(memory_format=torch.channels_last),
    }
    if not old:
        content |= {"e4m3": base.to(torch.float8_e4m3fn), "e5m2": base.to(torch.float8_e5m2)}
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=not old)
    loaded = torch.load(tmp_path / "c.pt", weights_only=True)
    read = {weight.name: weight.read() for weight in spectra.read_weights(tmp_path / "c.pt").weights}
    for name, tensor in loaded.items():
        assert torch.equal(read[name].double(), tensor.double()), name
    found = rows(tmp_path / "c.pt")
    for name, tensor in loaded.items():
        assert found[name].sigma == pytest.approx(truth(tensor), rel=1e-5), name
        assert found[name].reason is None


def test_wrappers_are_not_part_of_names(tmp_path: Path) -> None:
    state = {"a.weight": WEIGHT, "module.b.weight": WEIGHT.clone()}
    named = {
        "ddp": {f"module.{name}": tensor for name, tensor in state.items()},
        "compiled": {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        "both": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()},
        "inside": {f"net._orig_mod.{name}": tensor for name, tensor in state.items()},
        "fsdp": {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in state.items()},
        "neither": state,
    }
    expected = {"inside": ["net.a", "net.module.b"]}
    for name, wrapped in named.items():
        save_file(wrapped, tmp_path / "c.safetensors")
        torch.save({"G": wrapped, "epoch": 1}, tmp_path / "c.pt")
        np.savez(tmp_path / "c.npz", **{key: tensor.numpy() for key, tensor in wrapped.items()})
        names = expected.get(name, ["a", "module.b"])
        assert list(rows(tmp_path / "c.safetensors")) == names, name
        assert list(rows(tmp_path / "c.npz")) == names, name
        assert list(rows(tmp_path / "c.pt")) == [f"G.{one}" for one in names], name


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_a_tensor_that_cannot_be_taken_is_a_row(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(draw(3, 4), 0.1, 0, torch.qint8)
    content = {
        "good.weight": WEIGHT,
        "empty.weight": torch.empty(0, 4),
        "sparse": torch.eye(3).to_sparse(),
        "csr": torch.eye(3).to_sparse_csr(),
        "meta": torch.empty(6, 5, device="meta"),
        "complex": torch.ones(2, 3, dtype=torch.complex64),
        "quantized": quantized,
        "packed.weight": torch.ones(4, 2, dtype=torch.int8),
        "expanded": torch.ones(1).expand(1000, 1000),
        "indices": torch.ones(4, 4, dtype=torch.int64),
        "last.weight": WEIGHT * 2,
    }
    torch.save(content, tmp_path / "c.pt")
    found = rows(tmp_path / "c.pt")
    words = {
        **{"empty": "empty", "sparse": "sparse", "csr": "sparse", "meta": "meta", "complex": "complex"},
        **{"quantized": "quantized", "packed": "int8", "expanded": "expanded"},
    }
    assert set(found) == {"good", "last", *words}, "indices are no weight"
    for name, word in words.items():
        row = found[name].as_dict()
        assert word in row["reason"], name
        assert (row["sigma"], row["frobenius"], row["converged"], row["finite"]) == ([], None, False, None)
    assert found["meta"].shape == (6, 5)
    assert found["good"].reason is None
    assert found["good"].sigma == pytest.approx(truth(WEIGHT), rel=1e-5)
    assert found["last"].sigma == pytest.approx(truth(WEIGHT * 2), rel=1e-5)
    assert {row.reason for row in scan(tmp_path / "c.pt", sort="sigma")[0][-2:]} == {None}


def test_float8_and_complex_in_safetensors(tmp_path: Path) -> None:
    content = {
        "e4m3.weight": WEIGHT.to(torch.float8_e4m3fn),
        "e5m2": WEIGHT.to(torch.float8_e5m2),
        "b": WEIGHT.bfloat16(),
    }
    scale = {"e4m3.weight_scale_inv": torch.ones(1, 1), "idx": torch.ones(2, 2, dtype=torch.int32)}
    save_file(
        {**content, **scale, "z": torch.empty(0, 3), "int.weight": torch.ones(2, 2, dtype=torch.int8)},
        tmp_path / "c.safetensors",
    )
    found = rows(tmp_path / "c.safetensors")
    assert set(found) == {"e4m3", "e5m2", "b", "z", "int"}, "scales and indices are no weights"
    for name, tensor in content.items():
        assert found[name.removesuffix(".weight")].sigma == pytest.approx(truth(tensor), rel=1e-5)
    assert "empty" in str(found["z"].reason)
    assert "int8" in str(found["int"].reason)


def test_arrays_of_numpy(tmp_path: Path) -> None:
    kernel = draw(3, 2, 5, 7)  # Flax: height, width, in, out
    arrays = {
        "params/a": WEIGHT.numpy(),
        "f": np.asfortranarray(WEIGHT.numpy()),
        "swapped": WEIGHT.numpy().astype(">f4"),
        "params/conv/kernel": kernel.numpy(),
        "objects": np.array([[{}, {}]], dtype=object),
        "complex": np.ones((2, 2), dtype=np.complex64),
        "text": np.array([["a", "b"]]),
        "ids": np.ones((3, 3), dtype=np.int64),
        "bias": np.ones(4),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "c.npz", **arrays)
        found = rows(tmp_path / "c.npz")
        assert set(found) == set(arrays) - {"ids", "bias"}
        for name in ("params/a", "f", "swapped"):
            assert found[name].sigma == pytest.approx(truth(WEIGHT), rel=1e-5), name
        conv = found["params/conv/kernel"]
        assert (conv.kind, conv.shape) == ("conv2d", (7, 30))
        assert conv.sigma == pytest.approx(truth(kernel.permute(3, 2, 0, 1)), rel=1e-5)
        assert "objects" not in str(found["complex"].reason)
        assert all(found[name].reason for name in ("objects", "complex", "text"))
    np.save(tmp_path / "one.npy", WEIGHT.numpy())
    assert rows(tmp_path / "one.npy")["array"].sigma == pytest.approx(truth(WEIGHT), rel=1e-5)


def test_an_array_that_is_cut_off_after_it_was_listed(tmp_path: Path) -> None:
    path = tmp_path / "one.npy"
    np.save(path, WEIGHT.numpy())
    (weight,) = spectra.read_weights(path).weights
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(spectra.WeightFileError, match="not all in the file"):
        weight.read()
    (row,) = rows(path).values()
    assert row.reason == "its entries are not in the file, which is cut off or damaged"


def shards(folder: Path) -> dict[str, Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    state = {f"layers.{i}.weight": draw(4, 3, seed=i) for i in range(12)}
    names = list(state)
    files = {"m-1.safetensors": names[:5], "m-2.safetensors": names[5:]}
    for file, held in files.items():
        save_file({name: state[name] for name in held}, folder / file)
    where = {name: file for file, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return state


def test_shards_by_their_index_and_in_folders(tmp_path: Path) -> None:
    state = shards(tmp_path / "m")
    for path in (tmp_path / "m", tmp_path / "m" / "model.safetensors.index.json"):
        found = rows(path)
        assert list(found) == [f"layers.{i}" for i in range(12)]
        for name, row in found.items():
            assert row.sigma == pytest.approx(truth(state[f"{name}.weight"]), rel=1e-5)
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    assert len(rows(tmp_path / "m")) == 12
    torch.save({"a": 1}, tmp_path / "m" / "optimizer.pt")
    assert len(rows(tmp_path / "m")) == 12
    save_file({"x.weight": WEIGHT}, _made(tmp_path / "pipe" / "unet") / "u.safetensors")
    torch.save({"y.weight": WEIGHT, "rng": torch.ones(3)}, _made(tmp_path / "pipe" / "vae") / "pytorch_model.bin")
    _made(tmp_path / "pipe" / "scheduler")
    assert list(rows(tmp_path / "pipe")) == ["unet.x", "vae.y"]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_a_broken_set_of_shards_is_said(tmp_path: Path) -> None:
    shards(tmp_path / "m")
    index = tmp_path / "m" / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["gone.weight"] = "m-1.safetensors"
    index.write_text(json.dumps(listed))
    found = rows(index)
    assert len(found) == 13
    assert "m-1.safetensors" in str(found["gone"].reason)
    (tmp_path / "secret.safetensors").write_bytes(b"")
    for bad in ("../secret.safetensors", "/etc/passwd", "sub/x", ".."):
        index.write_text(json.dumps({"weight_map": {"a": bad}}))
        with pytest.raises(spectra.WeightFileError, match="names the file"):
            spectra.read_weights(index)
    index.write_text(json.dumps({"weight_map": {"a": "m-9.safetensors", "b": "m-1.safetensors"}}))
    with pytest.raises(spectra.WeightFileError, match=r"1 are missing \(m-9"):
        spectra.read_weights(index)
    for text in ("{", "[]", '{"weight_map": 3}', "[" * 100_000):
        index.write_text(text)
        with pytest.raises(spectra.WeightFileError, match="not an index"):
            spectra.read_weights(index)
    index.unlink()
    save_file({"layers.0.weight": WEIGHT}, tmp_path / "m" / "step-2.safetensors")
    with pytest.raises(spectra.WeightFileError, match=r"both hold layers\.0\.weight"):
        spectra.read_weights(tmp_path / "m")


def test_power_iterations_vectors_are_no_layers(tmp_path: Path) -> None:
    """BigGAN-PyTorch keeps u as 1 x out, beside weight."""
    state = {
        "conv.weight": draw(6, 3, 3, 3),
        "conv.u0": draw(1, 6),
        "conv.sv0": draw(1),
        "fc.weight": WEIGHT,
        "fc.sn_u": draw(1, 5),
        "mixed.weight_bar": WEIGHT,
        "mixed.weight_v": draw(1, 4),
        "other.u0": draw(1, 6),
        "last.weight": draw(1, 6),
    }
    torch.save(state, tmp_path / "G.pth")
    assert list(rows(tmp_path / "G.pth")) == ["conv", "fc", "mixed.weight_bar", "other.u0", "last"]


def test_queries_keys_and_values_apart(tmp_path: Path) -> None:
    attention = nn.MultiheadAttention(4, 2)
    fused = draw(12, 4)
    content = {
        "attn.in_proj_weight": attention.in_proj_weight.detach(),
        "b.qkv.weight": fused,
        "h.c_attn.weight": fused.T,
    }
    content |= {"x.qkv.weight": draw(8, 4), "n.query_key_value.weight": fused}
    torch.save(content, tmp_path / "c.pt")
    found = rows(tmp_path / "c.pt", split_qkv=True)
    whole = ["x.qkv", "n.query_key_value"]
    names = [f"{name}.{part}" for name in ("attn.in_proj_weight", "b.qkv", "h.c_attn") for part in "qkv"]
    assert list(found) == names + whole
    for i, part in enumerate("qkv"):
        third = truth(fused[4 * i : 4 * i + 4])
        assert found[f"b.qkv.{part}"].sigma == pytest.approx(third, rel=1e-5)
        assert found[f"h.c_attn.{part}"].sigma == pytest.approx(third, rel=1e-5)
        part_of = attention.in_proj_weight[4 * i : 4 * i + 4]
        assert found[f"attn.in_proj_weight.{part}"].sigma == pytest.approx(truth(part_of), rel=1e-5)
    torch.save({"a": WEIGHT}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="no fused attention"):
        scan(tmp_path / "c.pt", split_qkv=True)


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "what", "todo"),
    [
        ("m.gguf", b"GGUF" + bytes(60), "GGUF", "safetensors"),
        ("m.onnx", b"\x08\x07\x12\x07pytorch" + bytes(60), "ONNX", "exported from"),
        ("m.bin", b"\x08\x07\x12\x07pytorch" + bytes(60), "ONNX", "exported from"),
        ("__0_0.distcp", b"PK\x03\x04" + bytes(60), "DCP", "dcp_to_torch"),
        ("m.h5", b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5", "numpy.savez"),
        ("m.keras", _zip("model.weights.h5", "config.json"), "Keras", "numpy.savez"),
        ("m.pt2", _zip("archive_format", "m/data.pkl"), "torch.export", "torch.export.load"),
        ("m.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS", "git lfs pull"),
        ("m.pt", b"\x1f\x8b\x08" + bytes(60), "gzip", "gunzip"),
        ("m.pt", b"<!DOCTYPE html><html>", "web page", "download"),
        ("m.tflite", b"\x1c\x00\x00\x00TFL3" + bytes(60), "TensorFlow Lite", "converted"),
        ("model.ckpt-7.data-00000-of-00001", b"\x00" * 60, "TensorFlow checkpoint", "savez"),
        ("m.pt", _zip("m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"), "TorchScript", "torch.jit.load"),
        ("m.pt", _zip("readme.txt"), "zip archive", "unpack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, name: str, content: bytes, what: str, todo: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(spectra.WeightFileError, match=what) as error:
        spectra.read_weights(tmp_path / name)
    assert todo in str(error.value)
    assert "cut off" not in str(error.value)


@pytest.mark.slow
def test_a_program_of_torchscript_is_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "m.pt"))
    with pytest.raises(spectra.WeightFileError, match=r"TorchScript.*torch\.jit\.load"):
        spectra.read_weights(tmp_path / "m.pt")


def test_folders_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name, files, what in (
        ("dcp", [".metadata", "__0_0.distcp"], r"DCP.*dcp_to_torch"),
        ("ds", ["zero_to_fp32.py", "latest"], "DeepSpeed"),
        ("tf", ["saved_model.pb"], "SavedModel"),
        ("flax", ["_CHECKPOINT_METADATA"], "Orbax"),
        ("two", ["a.pt", "b.pt"], r"2 checkpoints \(a\.pt, b\.pt\): name one"),
    ):
        _made(tmp_path / name)
        for file in files:
            (tmp_path / name / file).write_bytes(b"")
        with pytest.raises(spectra.WeightFileError, match=what):
            spectra.read_weights(tmp_path / name)

"""`spectra scan` on files: what is listed and left out, the output's forms, and every way a file can be wrong."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations

import spectra
from spectra.cli.commands import main
from spectra.networks.scan import scan


class Malicious:
    """Unpickling it would run a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(30, 8), nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 2), nn.Conv1d(2, 4, 3)
    )


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = main(["scan", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def records(capsys: pytest.CaptureFixture, *arguments: object) -> list[dict]:
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(out, parse_constant=refuse)


@pytest.fixture
def state_dict(tmp_path: Path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    return path


@pytest.mark.parametrize("method", ["auto", "exact", "krylov", "svds"])
def test_json_of_a_state_dict(state_dict: Path, capsys: pytest.CaptureFixture, method: str) -> None:
    found = records(capsys, state_dict, "--method", method)
    assert [(r["name"], r["kind"], r["shape"]) for r in found] == [
        ("0", "linear", [30, 8]),
        ("1", "conv2d", [5, 27]),
        ("3", "linear", [2, 5]),
        ("4", "conv1d", [4, 6]),
    ]
    for record, weight in zip(found, [p for p in network().parameters() if p.dim() > 1], strict=True):
        truth = torch.linalg.svdvals(weight.detach().flatten(1).double())
        assert record["sigma"] == pytest.approx(truth[:3].tolist(), rel=2e-5)
        assert record["frobenius"] == pytest.approx(float(truth.norm()), rel=1e-6)
        assert record["ratio"] == pytest.approx(float(truth[0] / truth[1]), rel=4e-5)
        assert record["stable_rank"] == pytest.approx(float((truth.norm() / truth[0]) ** 2), rel=4e-5)
        assert record["converged"] is True
        assert record["finite"] is True
        assert 0 <= record["residual"] <= 1e-2 * record["sigma"][0]
    assert len(found[2]["sigma"]) == 2, "two rows have two singular values"


def test_safetensors_in_network_order(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = {f"blocks.{i}.weight": torch.eye(3) * (i + 1) for i in range(12)}
    save_file(state, tmp_path / "model.safetensors")
    found = records(capsys, tmp_path / "model.safetensors", "--k", 1)
    assert [record["name"] for record in found] == [f"blocks.{i}" for i in range(12)]
    assert [record["sigma"] for record in found] == [[pytest.approx(i + 1)] for i in range(12)]
    renamed = tmp_path / "model.bin"  # the content decides, not the name
    (tmp_path / "model.safetensors").rename(renamed)
    assert len(records(capsys, renamed)) == 12


def test_our_own_checkpoints_show_g_and_d_only(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tensors = {}
    for part in ("G", "D", "G_ema", "optim_G", "optim_D"):
        tensors[f"{part}.linear.weight"] = torch.randn(4, 3)
        tensors[f"{part}.linear.u"] = torch.randn(4)
    path = tmp_path / "step-00000010.safetensors"
    save_file(tensors, path, metadata={"format": "biggan 1", "step": "10", "config": "{}", "finite": "true"})
    assert [r["name"] for r in records(capsys, path)] == ["D.linear", "G.linear"]
    assert {r["name"] for r in records(capsys, path, "--all")} == {
        f"{part}.linear" for part in ("G", "D", "G_ema", "optim_G", "optim_D")
    }
    _, table, _ = run(capsys, path)
    assert "3 further tensors" in table
    save_file(tensors, path)  # without the metadata it is anybody's file: nothing is left out
    assert len(records(capsys, path)) == 5


def test_nested_checkpoints_leave_the_optimizer_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    assert [r["name"] for r in records(capsys, path)] == ["model"]
    assert len(records(capsys, path, "--all")) == 3
    torch.save({"optimizer": optimizer.state_dict()}, path)
    code, _, err = run(capsys, path)
    assert code == 2
    assert "--all" in err


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_normalized_layers_in_a_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleDict(
        {
            "a": parametrizations.spectral_norm(nn.Linear(4, 3)),
            "b": parametrizations.weight_norm(nn.Conv2d(2, 3, 3)),
            "c": torch.nn.utils.spectral_norm(nn.Linear(4, 3)),
            "d": torch.nn.utils.weight_norm(nn.Linear(4, 3)),
        }
    )
    path = tmp_path / "model.pt"
    torch.save(layers.state_dict(), path)
    found = records(capsys, path)
    listed = {m.name: m for m in spectra.weight_matrices(layers)}
    assert sorted(r["name"] for r in found) == sorted(listed)
    for record in found:
        truth = torch.linalg.svdvals(listed[record["name"]].raw().double())[:3]
        assert record["sigma"] == pytest.approx(truth.tolist(), rel=2e-5)


class Every(nn.Module):
    """Layers of every kind, as out x rest not what a file's first dimension says for all of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.lift = nn.ConvTranspose1d(6, 4, 3)
        self.up = nn.ConvTranspose2d(16, 8, 4)
        self.grouped = nn.ConvTranspose2d(8, 6, 3, groups=2)
        self.volume = nn.ConvTranspose3d(5, 3, 2)
        self.plain = nn.Conv2d(8, 4, 3, groups=4)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6)
        self.line = nn.Conv1d(3, 9, 5)
        self.old = nn.utils.spectral_norm(nn.ConvTranspose2d(10, 4, 3, bias=False))
        self.new = parametrizations.spectral_norm(nn.ConvTranspose2d(12, 4, 3, bias=False))
        self.weighted = parametrizations.weight_norm(nn.ConvTranspose2d(7, 5, 3))
        self.linear, self.embedding = nn.Linear(4, 6), nn.Embedding(9, 3)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True)
        self.bilinear = nn.Bilinear(3, 4, 2)


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_a_file_and_a_live_network_have_the_same_matrices(tmp_path: Path, ending: str) -> None:
    net, path = Every(), tmp_path / f"model.{ending}"
    state = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    torch.save(state, path) if ending == "pt" else save_file(state, path)
    live = {matrix.name: matrix for matrix in spectra.weight_matrices(net)}
    assert live["up"].shape == (8, 256)
    scanned = {one.name: one for one in scan(path, k=1)[0]}
    assert set(scanned) == set(live)
    for name, matrix in live.items():
        assert scanned[name].shape == matrix.shape, name
        expected = torch.linalg.svdvals(matrix.raw().double())[0].item()
        assert scanned[name].sigma[0] == pytest.approx(expected, rel=1e-5), name
    for name in ("lift", "up", "grouped", "volume", "old", "new", "weighted"):
        assert scanned[name].kind == live[name].kind


def test_a_transposed_convolution_that_its_file_does_not_tell_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    up = nn.ConvTranspose2d(6, 4, 3, bias=False)
    torch.save({"net.up1.weight": up.weight.detach(), "net.a.weight": torch.ones(2, 3)}, tmp_path / "model.pt")
    (stored,) = (one for one in records(capsys, tmp_path / "model.pt") if one["name"] == "net.up1")
    assert (stored["kind"], stored["shape"]) == ("conv2d", [6, 36])
    (named,) = (
        one for one in records(capsys, tmp_path / "model.pt", "--transposed", "net.up*") if one["name"] == "net.up1"
    )
    assert (named["kind"], named["shape"]) == ("conv_transpose2d", [4, 54])
    expected = torch.linalg.svdvals(up.weight.detach().transpose(0, 1).flatten(1))[0].item()
    assert named["sigma"][0] == pytest.approx(expected, rel=1e-5)
    code, _, error = run(capsys, tmp_path / "model.pt", "--transposed", "net.down")
    assert code == 2
    assert "no convolution is called 'net.down'; the file holds net.up1" in error


def test_what_is_not_finite_is_valid_json_and_plain_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    state = {"good": torch.eye(3), "nan": torch.full((3, 4), float("nan")), "zero": torch.zeros(2, 2)}
    state["inf"] = torch.tensor([[1.0, float("inf")]])
    path = tmp_path / "model.pt"
    torch.save(state, path)
    found = {r["name"]: r for r in records(capsys, path)}
    for name, count in (("nan", 3), ("inf", 1)):
        assert found[name]["sigma"] == [None] * count
        assert found[name]["frobenius"] is None
        assert found[name]["finite"] is False
        assert found[name]["converged"] is False
    assert found["zero"]["sigma"] == [0.0, 0.0]
    assert found["zero"]["ratio"] is None
    assert found["zero"]["converged"] is True
    code, table, _ = run(capsys, path, "--sort", "sigma")
    assert code == 0
    assert "2 of 4 weights hold NaN or Inf" in table
    assert table.splitlines()[1].startswith(("nan", "inf")), "what is broken comes first"


def test_sorting_and_csv(state_dict: Path, capsys: pytest.CaptureFixture) -> None:
    for key in ("sigma", "ratio", "frobenius", "stable_rank"):
        values = [r["sigma"][0] if key == "sigma" else r[key] for r in records(capsys, state_dict, "--sort", key)]
        assert values == sorted(values, reverse=True)
    code, out, _ = run(capsys, state_dict, "--csv", "--k", 4)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    wanted = records(capsys, state_dict, "--k", 4)
    assert [float(row["sigma_0"]) for row in rows] == [r["sigma"][0] for r in wanted]
    assert rows[2]["sigma_2"] == ""
    assert rows[0]["rows"] == "30"


def test_the_table_is_plain_where_there_is_no_terminal(state_dict: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, err = run(capsys, state_dict)
    assert code == 0
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "shape",
        "sigma_0",
        "sigma_1",
        "sigma_2",
        "ratio",
        "frobenius",
        "stable",
        "rank",
    ]
    assert len(lines) == 5
    assert out.isascii()


def test_operators(state_dict: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "conv.pt"
    layer = nn.Conv2d(3, 5, 3, padding=1)
    torch.save({"conv.weight": layer.weight.detach(), "fc.weight": torch.eye(2)}, path)
    conv, fc = records(capsys, path, "--operator", "6x8")
    truth = torch.linalg.svdvals(spectra.convolution_operator(layer, (6, 8)).dense().double())[:3]
    assert conv["operator_sigma"] == pytest.approx(truth.tolist(), rel=2e-5)
    assert conv["operator_converged"] is True
    assert "operator_sigma" not in fc
    strided = nn.Conv2d(3, 5, 3, stride=2, padding=2, dilation=2, padding_mode="circular")
    strided.weight = layer.weight
    truth = torch.linalg.svdvals(spectra.convolution_operator(strided, (6, 8)).dense().double())[:3]
    found = records(capsys, state_dict, "--operator", 9)  # one number: the file's 1-D convolution alone
    assert [r["kind"] for r in found if "operator_sigma" in r] == ["conv1d"]
    options = ("--operator", "6x8", "--stride", 2, "--dilation", 2, "--padding", 2, "--circular")
    assert records(capsys, path, *options)[0]["operator_sigma"] == pytest.approx(truth.tolist(), rel=2e-5)
    _, table, _ = run(capsys, path, "--operator", "6X8")
    assert "operator_0" in table
    _, out, _ = run(capsys, path, "--operator", "6x8", "--csv")
    assert "operator_sigma_2" in out.splitlines()[0]


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    marker = tmp_path / "executed"
    for name, save in {
        "zip.pt": lambda path: torch.save({"a": Malicious(marker)}, path),
        "old.pt": lambda path: torch.save({"a": Malicious(marker)}, path, _use_new_zipfile_serialization=False),
        "bare.pkl": lambda path: path.write_bytes(pickle.dumps({"a": Malicious(marker)})),
        "module.pt": lambda path: torch.save(nn.Linear(2, 2), path),
    }.items():
        save(tmp_path / name)
        code, out, err = run(capsys, tmp_path / name)
        assert code == 2
        assert out == ""
        assert "refused" in err
        assert "run code" in err
        assert "state_dict" in err
        assert not marker.exists()


def bad_files(folder: Path) -> dict[str, bytes]:
    save_file({"a": torch.eye(3)}, folder / "whole.safetensors")
    torch.save({"a": torch.eye(3)}, folder / "whole.pt")
    torch.save({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.int64)}, folder / "flat.pt")
    return {
        "is not a": b"hello, this is text",
        "is not a complete checkpoint": b"",
        "is not a ": b"\x89PNG\r\n\x1a\n" + bytes(64),
        "cut off": (folder / "whole.pt").read_bytes()[:200],
        "damaged": (folder / "whole.safetensors").read_bytes()[:-20],
        "no weight matrix": (folder / "flat.pt").read_bytes(),
    }


def test_files_that_are_no_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for message, content in bad_files(tmp_path).items():
        path = tmp_path / "bad.pt"
        path.write_bytes(content)
        code, out, err = run(capsys, path)
        assert code == 2, message
        assert out == ""
        assert message.strip() in err
        assert "bad.pt" in err
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == 1, "one paragraph"
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in (0, 4, 100, len(whole) - 20):
        path = tmp_path / "cut.safetensors"
        path.write_bytes(whole[:length])
        code, _, err = run(capsys, path)
        assert code == 2, length
        assert "cut.safetensors is not a complete safetensors file" in err
    pickled = (tmp_path / "whole.pt").read_bytes()
    for length in (50, len(pickled) - 50):
        path = tmp_path / "cut.pt"
        path.write_bytes(pickled[:length])
        code, _, err = run(capsys, path)
        assert code == 2, length
        assert "cut.pt is not a" in err
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "nothing.pt", "does not exist"), (tmp_path / "empty", "is a directory")):
        code, _, err = run(capsys, path)
        assert code == 2
        assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "0"], "at least 1"),
        (["--method", "exakt"], "did you mean 'exact'"),
        (["--tol", "0"], "tol"),
        (["--sort", "size"], "sort is one of"),
        (["--operator", "2x2x2"], "fits conv3d weights, and the file holds only conv1d and conv2d"),
        (["--operator", "2x2", "--padding", "0"], "does not take inputs of 2x2"),
        (["--operator", "axb"], "HxW"),
        (["--operator", "0x4"], "HxW"),
        (["--stride", "2"], "need a spatial size: add --operator HxW"),
        (["--circular"], "--operator HxW"),
        (["--operator", "8x8", "--stride", "0"], "at least 1"),
    ],
)
def test_bad_options(state_dict: Path, capsys: pytest.CaptureFixture, options: list[str], message: str) -> None:
    code, out, err = run(capsys, state_dict, *options)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_unknown_options_and_commands_exit_with_2(state_dict: Path, capsys: pytest.CaptureFixture) -> None:
    for arguments in (
        ["scan"],
        ["scam", str(state_dict)],
        ["scan", str(state_dict), "--jsn"],
        ["scan", str(state_dict), "--k", "x"],
    ):
        with pytest.raises(SystemExit) as error:
            main(arguments)
        assert error.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_importing_spectra_and_asking_for_help_does_not_import_torch() -> None:
    code = (
        "import sys, spectra, spectra.cli.commands\n"
        "try:\n    spectra.cli.commands.main(['scan', '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'scipy', 'pandas', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(spectra.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "--operator" in done.stdout


def test_every_public_name_exists() -> None:
    for name in spectra.__all__:
        assert getattr(spectra, name).__doc__, name
    assert set(spectra.__all__) <= set(dir(spectra))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = spectra.nothing

"""`spectra scan --compare A B` against LAPACK and scipy, and every row that has nothing to compare."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from spectra.cli.commands import main
from spectra.networks.compare import LayerChange, compare_checkpoints, largest_angle


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spiked(rows: int, columns: int, seed: int) -> Tensor:
    """A matrix whose leading three values stand apart."""
    left, right = (torch.linalg.qr(draw(side, side, seed=seed + i))[0] for i, side in enumerate((rows, columns)))
    count = min(rows, columns)
    values = torch.cat([torch.tensor([9.0, 7.0, 5.0]), torch.linspace(1, 0.1, count - 3)])
    return left[:, :count] * values @ right[:, :count].T


def saved(folder: Path, name: str, **state: Tensor) -> Path:
    torch.save({key.replace("_", "."): tensor for key, tensor in state.items()}, folder / name)
    return folder / name


@pytest.mark.parametrize(("rows", "columns"), [(12, 20), (20, 12), (8, 8)])
def test_what_changed_is_lapacks(tmp_path: Path, rows: int, columns: int) -> None:
    before = spiked(rows, columns, 0)
    after = before + 0.3 * draw(rows, columns, seed=9)
    paths = saved(tmp_path, "a.pt", w=before), saved(tmp_path, "b.pt", w=after)
    (change,) = compare_checkpoints(*paths)
    u, s, vh = np.linalg.svd(before.numpy())
    u2, s2, vh2 = np.linalg.svd(after.numpy())
    assert change.sigma_before == pytest.approx(s[:3], rel=1e-5)
    assert change.sigma_after == pytest.approx(s2[:3], rel=1e-5)
    assert change.sigma_ratio == pytest.approx(s2[0] / s[0], rel=1e-5)
    angles = [math.degrees(max(subspace_angles(x[:, :3], y[:, :3]))) for x, y in ((u, u2), (vh.T, vh2.T))]
    assert [change.angle_left, change.angle_right] == pytest.approx(angles, abs=0.05)
    norm = np.linalg.norm(after.numpy() - before.numpy())
    assert change.frobenius_change == pytest.approx(norm, rel=1e-9)
    assert change.relative_change == pytest.approx(norm / np.linalg.norm(before.numpy()), rel=1e-9)
    assert change.converged
    assert change.reason is None


@pytest.mark.parametrize("degrees", [0.0, 1e-5, 0.5, 45.0, 89.9, 90.0])
def test_angles_are_right_from_none_to_a_right_one(degrees: float) -> None:
    angle = math.radians(degrees)
    first = torch.eye(5, 2, dtype=torch.float64)
    second = first.clone()
    second[1, 1], second[4, 1] = math.cos(angle), math.sin(angle)
    assert largest_angle(first, second) == pytest.approx(degrees, abs=1e-9)


def test_a_checkpoint_did_not_change_from_itself_and_a_scaled_one_did_not_turn(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.pt", w=spiked(9, 9, 0)), saved(tmp_path, "b.pt", w=-2 * spiked(9, 9, 0))
    (same,) = compare_checkpoints(paths[0], paths[0])
    assert (same.frobenius_change, same.sigma_ratio) == (0, 1)
    assert same.angle_left == pytest.approx(0, abs=1e-3)
    (scaled,) = compare_checkpoints(*paths)
    assert scaled.sigma_ratio == pytest.approx(2, rel=1e-6)
    assert scaled.relative_change == pytest.approx(3, rel=1e-9)
    assert scaled.angle_left == pytest.approx(0, abs=0.01)


def test_no_angle_is_given_that_the_gap_does_not_determine(tmp_path: Path) -> None:
    paths = saved(tmp_path, "a.pt", w=torch.eye(9)), saved(tmp_path, "b.pt", w=torch.eye(9) * 2)
    (change,) = compare_checkpoints(*paths)
    assert math.isnan(change.angle_left)
    assert change.as_dict()["angle_left"] is None
    assert change.reason is None
    (whole,) = compare_checkpoints(*paths, k=9)
    assert whole.angle_left == pytest.approx(0, abs=1e-3), "all vectors: nothing follows them"


def test_rows_without_anything_to_compare(tmp_path: Path) -> None:
    one = torch.ones(2, 3)
    a = saved(tmp_path, "a.pt", same=one, shape=one, old=one, sparse=torch.eye(3).to_sparse(), nan=one, zero=one * 0)
    state = {
        "same": one,
        "shape": torch.ones(4, 3),
        "new": one,
        "sparse": torch.eye(3),
        "nan": one * math.nan,
        "zero": one,
    }
    b = saved(tmp_path, "b.pt", **state)
    changes = {change.name: change for change in compare_checkpoints(a, b)}
    words = {"shape": "2 x 3 in A, 4 x 3 in B", "old": "only in A", "new": "only in B", "nan": "in B: it holds NaN"}
    for name, word in (words | {"sparse": "in A: sparse"}).items():
        assert word in str(changes[name].reason), name
    assert changes["nan"].sigma_before[0] == pytest.approx(math.sqrt(6))
    assert math.isnan(changes["nan"].frobenius_change)
    assert changes["zero"].relative_change == math.inf
    order = [change.name for change in compare_checkpoints(a, b, sort="change")]
    assert order[-2:] == ["zero", "same"]


def test_a_beginning_of_all_names_does_not_part_the_files(tmp_path: Path) -> None:
    state = {"net.0.weight": spiked(6, 6, 0), "net.1.weight": spiked(6, 6, 5)}
    torch.save(state, tmp_path / "a.pt")
    torch.save({"state_dict": state, "ema": {"net.0.weight": state["net.0.weight"]}}, tmp_path / "b.ckpt")
    for paths in ((tmp_path / "a.pt", tmp_path / "b.ckpt"), (tmp_path / "b.ckpt", tmp_path / "a.pt")):
        changes = {change.name: change for change in compare_checkpoints(*paths)}
        assert changes["net.0"].frobenius_change == 0
        assert changes["net.1"].frobenius_change == 0
        assert "only in" in str(changes["ema.net.0"].reason)


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    code = main(["scan", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    a = saved(tmp_path, "a.pt", w=spiked(6, 8, 0), eye=torch.eye(5), only=torch.eye(2))
    b = saved(tmp_path, "b.pt", w=spiked(6, 8, 0) * 3, eye=torch.eye(5))
    expected: list[LayerChange] = compare_checkpoints(a, b)
    for arguments in (("--compare", a, b), (a, "--compare", b)):
        code, out, _ = run(capsys, *arguments, "--json")
        assert code == 0
        assert json.loads(out) == [change.as_dict() for change in expected]
    code, table, err = run(capsys, "--compare", a, b)
    assert (code, err) == (0, "")
    assert table.splitlines()[0].split()[:3] == ["layer", "kind", "shape"]
    assert "27" in table.splitlines()[1]
    assert "?" in table.splitlines()[2]
    assert "1 not compared (only): only in A" in table
    code, out, _ = run(capsys, "--compare", a, b, "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert float(rows[0]["sigma_after_0"]) == pytest.approx(27, rel=1e-5)
    assert rows[2]["reason"] == "only in A"
    for arguments, message in (
        (("--compare", a, b, "--sort", "ratio"), "sort is one of network, name, change"),
        (("--compare", a, b, "--operator", "8x8"), "--operator is for a single file"),
        (("--compare", a, tmp_path / "c.pt"), "does not exist"),
        (("--compare", a, b, "--method", "exakt"), "did you mean 'exact'"),
    ):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert message in err
    for arguments in (["--compare", a], [a, "--compare", a, b], ["--compare", a, b, a], []):
        with pytest.raises(SystemExit) as error:
            main(["scan", *map(str, arguments)])
        assert error.value.code == 2
        assert "expected" in capsys.readouterr().err

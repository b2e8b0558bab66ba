"""Which singular vectors lie beside a record: those that a resume or a branch would need, whatever was saved when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import spectra
from spectra.monitor.vectors import (
    Directions,
    Kept,
    copy_directions,
    keep_directions_of,
    read_directions,
    write_directions,
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Measured at steps 10, 20, 30 and 40; the vectors say when."""
    (tmp_path / "records").mkdir()
    for step in (10, 20, 30, 40):
        vectors = torch.full((3, 1), float(step))
        write_directions(tmp_path, step, {"G.a": Directions(vectors, 2 * vectors)})
    return tmp_path


def steps(run: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in (run / "records").iterdir())


def measured(run: Path, step: int) -> float | None:
    found = read_directions(run, step)
    return found["G.a"].left[0, 0].item() if found else None


def test_the_last_measurement_up_to_a_step_is_read(run: Path) -> None:
    assert [measured(run, step) for step in (9, 10, 19, 20, 100)] == [None, 10, 10, 20, 40]
    assert torch.equal(read_directions(run, 20)["G.a"].right, torch.full((3, 1), 40.0))
    (run / "records/vectors-00000020.safetensors").write_bytes(b"torn")
    assert measured(run, 25) is None  # not an earlier one's: the turn since the last measurement is then not known


def test_what_no_checkpoint_goes_on_from_is_removed(run: Path) -> None:
    keep_directions_of(run, [25, 27, 5])
    assert steps(run) == [20, 40]
    keep_directions_of(run, [])
    assert steps(run) == [40]


def test_going_on_forgets_what_came_after(run: Path) -> None:
    kept = Kept(run, 25, {"G.a": torch.device("cpu")}, None)
    assert kept.last["G.a"].left[0, 0] == 20
    assert steps(run) == [10, 20]  # of an earlier session's saves, which somebody may still go back to
    found = spectra.top_singular_values_batch([torch.eye(3)], k=1)
    kept.keep(26, {"G.a": found[0]})
    assert steps(run) == [10, 20, 26]
    assert Kept(run, 26, {}, None).last == {}  # a matrix that is no longer there


def test_a_branch_begins_with_its_parents(run: Path, tmp_path: Path) -> None:
    branch = tmp_path / "branch"
    copy_directions(run, branch, 35)
    assert steps(branch) == [30]
    assert measured(branch, 35) == 30
    copy_directions(branch, tmp_path / "early", 5)
    assert not (tmp_path / "early").exists()

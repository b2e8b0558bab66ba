"""Runs that broke, that are damaged, or whose names mean something to somebody: compared and drawn all the same."""

from __future__ import annotations

import errno
import math
import shutil
import warnings
from pathlib import Path

import pytest
from branches import BEGIN, LEGEND, change, make_run

import spectra
from biggan.cli.app import EXIT_DONE
from interventions.cli.main import main
from interventions.compare.collect import compare_runs
from interventions.compare.report import write_report
from spectra.draw.figures import draw_figures
from spectra.record.damage import RecordDamage
from spectra.record.segments import RecordWriter, segments

pytestmark = pytest.mark.usefixtures("quick_pictures")


def without_sigma(path: Path, value: float) -> Path:
    """A branch whose every sigma_0 is this."""
    make_run(path, changes=change("lr", value="x2"), last=160)
    shutil.rmtree(path / "records")
    writer = RecordWriter(path, BEGIN, LEGEND)
    for step in range(BEGIN + 1, 161):
        values = {"loss/D_real": math.nan, "loss/D_fake": math.nan}
        if step % 10 == 0:
            values |= {f"sigma{k}/{layer}": value for k in (0, 1) for layer in LEGEND["layers"]}
        writer.append(step, values)
    writer.close()
    return path


SLOW = [pytest.param(value, marks=pytest.mark.slow) for value in (math.inf, -math.inf)]


@pytest.mark.parametrize("value", [math.nan, *SLOW])
def test_a_branch_without_a_finite_sigma_is_compared_and_drawn(tmp_path: Path, value: float) -> None:
    broken = without_sigma(tmp_path / "broken", value)
    control = make_run(tmp_path / "control", last=160)
    assert {path.name for path in draw_figures(broken, ["3", "29"])} == {"figure-3.png", "figure-29.png"}
    found = compare_runs([control, broken])
    numbers = found.rows[1].outcome.numbers
    assert math.isnan(numbers["D_spikes_per_1000"])
    growth = numbers["G_sigma0_growth"]
    assert growth is not None
    assert not math.isfinite(growth)
    assert "report.html" in {path.name for path in write_report(found, tmp_path / "out")}


def test_names_that_would_be_formulas_are_drawn(tmp_path: Path) -> None:
    name = r"$\frac{$"
    places = {rf"G.{name}": {"network": "G", "kind": "linear", "depth": 0, "shape": [8, 4]}}
    run = make_run(tmp_path / name, changes=change("lr", value="x2"), last=160)
    shutil.rmtree(run / "records")
    writer = RecordWriter(run, BEGIN, LEGEND | {"layers": places})
    for step in range(BEGIN + 1, 161):
        writer.append(step, {f"sigma0/G.{name}": 1.0 * step, f"loss/{name}": 1.0, "loss/D_real": 1.0})
    writer.close()
    assert draw_figures(run, ["3", "27"], tmp_path / "figures")
    alone = make_run(tmp_path / rf"{name} alone", last=160)
    (alone / "run.json").write_text('{"changes": []}')
    found = compare_runs([run, alone])
    assert [row.name for row in found.rows if row.is_alone] == [rf"{name} alone"]
    write_report(found, tmp_path / "out")
    assert name in (tmp_path / "out" / "report.html").read_text()


def test_a_comparison_on_a_full_disk_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the new tables appears, and no temporary stays."""
    found = compare_runs([make_run(tmp_path / "a", last=160)])
    out = tmp_path / "out"
    out.mkdir()
    (out / "compare.csv").write_text("before")
    write, written = Path.write_text, []

    def full(path: Path, text: str, **how: str) -> int:
        if path.parent == out:
            written.append(path)
            if len(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, **how)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_report(found, out)
    assert [path.name for path in out.iterdir()] == ["compare.csv"]
    assert (out / "compare.csv").read_text() == "before"


def test_damage_is_said_by_every_command_that_reads_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from spectra.cli.commands import main as spectra_main

    run = make_run(tmp_path / "a", last=160)
    (segment,) = segments(run)
    data = bytearray(segment.read_bytes())
    data[-200] ^= 1
    segment.write_bytes(data)
    said = f"{segment}: the end from batch 1 on (within steps 0 to the last) cannot be read, and is left out"
    for arguments in (["events", str(run)], ["detect", str(run)]):
        spectra_main(arguments)
        assert f"spectra: warning: {said}" in capsys.readouterr().err, arguments
    assert main(["compare", str(run)]) == EXIT_DONE
    captured = capsys.readouterr()
    assert "cannot be read, and is left out" in " ".join(captured.out.split())
    with pytest.warns(RecordDamage, match="cannot be read"):
        spectra.load(run)


def test_a_damaged_run_json_stops_no_figure(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", last=160)
    for text in ("{", "[]", '{"changes": [1], "parent": 3}', '{"changes": [1], "parent": {"step": "x"}}'):
        (run / "run.json").write_text(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordDamage)
            assert draw_figures(run, ["3"])

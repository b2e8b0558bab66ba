"""Branches: the unchanged one is its parent bit for bit; any one can be killed, resumed and branched again."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killing import kill_after_step
from tiny import TINY, assert_same_state

from biggan.cli.train import train_main
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint, step_of
from biggan.run.directory import RunDirectory
from biggan.run.provenance import DECISIVE
from interventions.branch.verify_control import compare_with_parent
from interventions.cli.main import main
from spectra.record.segments import RecordWriter, read_legend, read_record

OPTIONS = [
    *TINY, "--train.d_steps=2", "--regularizers.orthogonal_G=1e-3", "--ema.start=3", "--regularizers.r1=0.1",
    "--regularizers.dropout_keep=0.9", "--checkpoint.every=4", "--checkpoint.keep=9", "--spectra.every=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of twelve steps with a checkpoint every four; nobody writes into it."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("base") / "base"
    assert train_main(["--out", str(run), "--steps=12", "--quiet", *OPTIONS]) == 0
    return run


def state_of(run: Path, step: int | None = None) -> dict[str, torch.Tensor]:
    paths = checkpoint_paths(run)
    return read_checkpoint(paths[-1] if step is None else run / f"checkpoints/step-{step:08d}.safetensors").tensors


def intervene(run: Path | str, out: Path, *options: str) -> int:
    return main(["--ckpt", str(run), "--out", str(out), "--quiet", *options])


def test_the_unchanged_branch_is_its_parent_bit_for_bit(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """State, losses, norms, singular values; and the same from a checkpoint file."""
    file = base / "checkpoints/step-00000004.safetensors"
    assert intervene(file, tmp_path / "control", "--control", "--steps=8") == 0
    said = capsys.readouterr().out
    assert "steps 5 to 12" in said
    assert "at step 8, 12 compared" in said
    assert "The branch equals its parent, bit for bit." in said
    assert_same_state(state_of(base), state_of(tmp_path / "control"))
    one, other = (
        read_record(run).query("step > 4 and not name.str.startswith('monitor')")
        for run in (base, tmp_path / "control")
    )
    assert one.value.tolist() == other.value.tolist()
    facts = json.loads((tmp_path / "control/run.json").read_text())
    digest = read_checkpoint(file).digest
    assert facts["parent"] == {"path": str(file), "digest": digest, "step": 4}
    assert facts["changes"] == []


def test_the_comparison_finds_every_kind_of_difference(base: Path, tmp_path: Path) -> None:
    assert intervene(base, tmp_path / "other", "--at=4", "--seed=1", "--steps=4") == 0
    found = compare_with_parent(tmp_path / "other", base, 4)
    assert not found.equal
    assert any("loss/G is" in line for line in found.differences)
    assert any(line.startswith("state at step 8: G.linear.weight differs") for line in found.differences)
    copy = tmp_path / "copy"
    assert intervene(base, tmp_path / "bare", "--at=4", "--control", "--steps=4", "--set=monitor=none") == 0
    less = compare_with_parent(tmp_path / "bare", base, 4)  # what only one of them records is no difference
    assert less.equal
    assert any("quantities that only the parent records" in line for line in less.notes)
    shutil.copytree(base, copy)
    for path in checkpoint_paths(copy):
        path.unlink()
    alone = compare_with_parent(tmp_path / "other", copy, 12)
    assert (alone.equal, alone.last, alone.states) == (False, None, [])
    assert "Nothing could be compared" in str(alone)


def doctored(base: Path, to: Path, change: Callable[[str, int, float], float]) -> Path:
    """A copy of a run whose recorded numbers went through `change(name, step, value)`."""
    shutil.copytree(base, to)
    record, legend = read_record(base), read_legend(base)
    shutil.rmtree(to / "records")
    writer = RecordWriter(to, 0, legend)
    for step, name, value in zip(record.step, record.name.astype(str), record.value, strict=True):
        writer.append(int(step), {name: change(name, int(step), float(value))})
    writer.close()
    return to


def test_a_control_is_bit_exact_or_it_is_not(base: Path, tmp_path: Path) -> None:
    """One unit in the last place of one singular value, or of one residual, is a difference."""
    for number, wanted in enumerate(("sigma0/G.linear", "residual/D.blocks.0.conv1", "turn0/G.linear")):

        def moved(name: str, step: int, value: float, wanted: str = wanted) -> float:
            return math.nextafter(value, 9.0) if (name, step) == (wanted, 8) else value

        run = doctored(base, tmp_path / str(number), moved)
        found = compare_with_parent(run, base, 4)
        assert not found.equal
        assert len(found.differences) == 1
        assert found.differences[0].startswith(f"step 8: {wanted} is ")
    same = compare_with_parent(doctored(base, tmp_path / "same", lambda name, step, value: value), base, 4)
    assert same.equal
    assert same.singular_values > 0


def test_with_other_settings_of_the_monitor_state_and_training_numbers_are_compared(base: Path, tmp_path: Path) -> None:
    """And it is said; a training number that differs is still found."""

    def other(name: str, step: int, value: float) -> float:
        return value + 1 if "." in name else value  # what is of a layer or a parameter

    run = doctored(base, tmp_path / "other", other)
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("spectra:\n  every: 2\n", "spectra:\n  every: 3\n"))
    found = compare_with_parent(run, base, 4)
    assert found.equal, found.differences
    assert found.singular_values == 0
    assert found.numbers > 100
    assert "(spectra.every is 3 here and 2 in the parent). State and training numbers are." in str(found)
    wrong = doctored(run, tmp_path / "wrong", lambda name, step, value: value + (name == "gradient_norm/G"))
    assert {line.split()[2] for line in compare_with_parent(wrong, base, 4).differences} == {"gradient_norm/G"}


def test_other_versions_are_said(base: Path, tmp_path: Path) -> None:
    """Of every fact in run.json on which bits depend, and of a session that went on under another torch."""
    assert not [note for note in compare_with_parent(base, base, 4).notes if "here and" in note]
    run = tmp_path / "doctored"
    shutil.copytree(base, run)
    facts = json.loads((run / "run.json").read_text())
    assert set(DECISIVE) <= set(facts)
    (run / "run.json").write_text(json.dumps(facts | dict.fromkeys(DECISIVE, "another")))
    RunDirectory(run).append_event(
        {"event": "resumed", "step": 8, "time": 0.0, "other_versions": {"torch": ["2.6.0", "2.13.0"]}}
    )
    notes = compare_with_parent(base, run, 4).notes
    for name in DECISIVE:
        assert f"note: {name} is {facts[name]} here and another in the parent's run.json." in notes
    assert "note: the parent was resumed at step 8 with torch 2.6.0 -> 2.13.0." in notes


def test_a_control_that_differs_exits_with_one(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Here the parent's record is another run's."""
    other = doctored(base, tmp_path / "other", lambda name, step, value: value + (name == "loss/G"))
    assert intervene(other, tmp_path / "control", "--at=4", "--control", "--steps=4") == 1
    assert "The branch differs from its parent" in capsys.readouterr().out


def test_other_continuations_keep_the_split_and_change_the_noise(base: Path, tmp_path: Path) -> None:
    assert intervene(base, tmp_path / "seeded", "--at=4", "--seed=1", "--steps=2") == 0
    one, other = (json.loads((run / "run.json").read_text()) for run in (base, tmp_path / "seeded"))
    assert one["data"] == other["data"]
    record = {
        run: read_record(run).query("step == 5 and name == 'loss/D_real'").value.item()
        for run in (base, tmp_path / "seeded")
    }
    assert len(set(record.values())) == 2


def test_a_branch_takes_over_what_happened_before_it(base: Path, tmp_path: Path) -> None:
    """An alarm makes the monitor measure every step for a while: the branch goes on with that."""
    parent = tmp_path / "parent"
    assert train_main(["--out", str(parent), "--steps=4", "--quiet", *OPTIONS]) == 0
    run = RunDirectory(parent)
    run.append_event({"event": "alarm", "step": 4, "time": 0.0, "cause": "a test"})
    run.append_event({"event": "alarm", "step": 5, "time": 0.0, "cause": "later"})
    assert intervene(parent, tmp_path / "branch", "--r1=1", "--steps=3") == 0
    alarms = [event for event in RunDirectory(tmp_path / "branch").events() if event["event"] == "alarm"]
    assert [(event["step"], event["inherited"]) for event in alarms] == [(4, True)]
    measured = read_record(tmp_path / "branch").query("name == 'sigma0/G.linear'").step.tolist()
    assert measured == [5, 6, 7]


SEQUENCE = ["--steps=8", "--lr=G=x2", "--until=2", "--then", "--moments=second", "--l2=1e-3", "--from=3"]


@pytest.fixture(scope="module")
def sequence(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A branch from step 4 to 12 in which G's rate is doubled until 6, and moments are zeroed at 7."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("sequence") / "branch"
    assert intervene(base, out, "--at=4", *SEQUENCE) == 0
    return out


def test_a_sequence_is_the_same_as_branch_upon_branch(base: Path, sequence: Path, tmp_path: Path) -> None:
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    assert intervene(base, one, "--at=4", "--lr=G=x2", "--steps=2") == 0
    assert intervene(one, two, "--lr=G=/2", "--steps=1") == 0
    assert intervene(two, three, "--moments=second", "--l2=1e-3", "--steps=5") == 0
    assert_same_state(state_of(three), state_of(sequence))
    steps = [(event["event"], event["step"]) for event in RunDirectory(sequence).events()]
    assert [step for kind, step in steps if kind == "changed"] == [6, 7]
    assert steps[-1] == ("finished", 12)
    rates = {
        step: read_checkpoint(path).config.optim.G.lr
        for path in checkpoint_paths(sequence)
        for step in [int(path.stem[5:])]
    }
    assert rates[6] == 2 * rates[8]  # a checkpoint at which a change begins or ends is that before it


@pytest.mark.parametrize("step", [6, *(pytest.param(step, marks=pytest.mark.slow) for step in (5, 7, 9))])
def test_a_killed_branch_with_timed_changes_goes_on_exactly(
    base: Path, sequence: Path, tmp_path: Path, step: int
) -> None:
    out = tmp_path / "branch"
    kill_after_step(step, "biggan-intervene", "--ckpt", str(base), "--at=4", "--out", str(out), *SEQUENCE)
    assert main(["--resume", str(out), "--quiet"]) == 0
    assert_same_state(state_of(out), state_of(sequence))


def test_what_changed_at_a_boundary_is_recorded_once(sequence: Path, tmp_path: Path) -> None:
    """Also where the branch was killed after it had recorded that, and before it saved a later state."""
    out = tmp_path / "branch"
    shutil.copytree(sequence, out)
    for path in checkpoint_paths(out):
        if step_of(path) > 7:
            path.unlink()
    lines = (out / "events.jsonl").read_text().splitlines(keepends=True)
    changed = [number for number, line in enumerate(lines) if json.loads(line)["event"] == "changed"]
    (out / "events.jsonl").write_text("".join(lines[: changed[1] + 1]))
    assert main(["--resume", str(out), "--quiet"]) == 0
    assert_same_state(state_of(out), state_of(sequence))
    assert [event["step"] for event in RunDirectory(out).events_that_hold("changed")] == [6, 7]


def test_a_branch_within_which_more_is_to_change_is_not_biggan_trains(
    base: Path, sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Before its last change biggan-train names the command that knows; afterwards it continues it exactly."""
    early, late = tmp_path / "early", tmp_path / "late"
    for copy, keep in ((early, 7), (late, 8)):
        shutil.copytree(sequence, copy)
        for path in checkpoint_paths(copy):
            if int(path.stem[5:]) > keep:
                path.unlink()
    assert train_main(["--resume", str(early), "--quiet"]) == 2
    assert f"biggan-intervene --resume {early}" in capsys.readouterr().err.replace("\n", " ")
    assert train_main(["--resume", str(late), "--quiet"]) == 0
    assert_same_state(state_of(late), state_of(sequence))


def test_a_branch_with_one_change_is_continued_by_biggan_train(base: Path, tmp_path: Path) -> None:
    """From the very first step on: the changed state is its first checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    change = ("--moments=both", "--freeze=D", "--steps=4")
    assert intervene(base, whole, "--at=4", *change) == 0
    kill_after_step(5, "biggan-intervene", "--ckpt", str(base), "--at=4", "--out", str(killed), *change)
    assert [path.name for path in checkpoint_paths(killed)] == ["step-00000004.safetensors"]
    assert train_main(["--resume", str(killed), "--quiet"]) == 0
    assert_same_state(state_of(whole), state_of(killed))
    changes = {next(iter(e["change"])): e for e in json.loads((whole / "run.json").read_text())["changes"]}
    moments, freeze = changes["moments"], changes["freeze"]
    assert moments["said"]["step_count"] == "kept"
    assert moments["said"]["first_step_factor_G"] > 1
    assert "said" not in freeze


def test_a_branch_killed_before_its_last_event_is_finished_by_a_resume(base: Path, tmp_path: Path) -> None:
    assert intervene(base, tmp_path / "b", "--at=8", "--control", "--steps=4") == 0
    events = tmp_path / "b" / "events.jsonl"
    lines = events.read_text().splitlines()
    assert json.loads(lines[-1])["event"] == "finished"
    events.write_text("\n".join(lines[:-1]) + "\n")
    for _ in range(2):
        assert main(["--resume", str(tmp_path / "b"), "--quiet"]) == 0
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()].count("finished") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--resume=RUN", "--lr=G=x2"], "--resume continues a branch unchanged"),
        (["--resume=RUN", "--out=x"], "--out cannot go with --resume"),
        (["--ckpt=RUN", "--control", "--jobs=2"], "--jobs cannot be used without --plan or --seeds"),
    ],
)
def test_options_that_would_be_passed_over_are_refused(
    base: Path, line: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([word.replace("RUN", str(base)) for word in line]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("step", [4, pytest.param(7, marks=pytest.mark.slow)])
def test_the_unchanged_branch_of_a_branch_goes_through_its_changes(sequence: Path, tmp_path: Path, step: int) -> None:
    """Wherever it begins: at the branching point, and where changes begin or end."""
    parent = sequence / f"checkpoints/step-{step:08d}.safetensors"
    assert intervene(parent, tmp_path / "out", "--control", f"--steps={12 - step}") == 0
    assert_same_state(state_of(tmp_path / "out"), state_of(sequence))


def test_a_dry_run_prints_what_differs_and_writes_nothing(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert intervene(base, tmp_path / "out", "--at=4", *SEQUENCE, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["steps 4 to 6:", "  optim.G.lr: 0.001 -> 0.002"]
    assert [line for line in lines if line.startswith("steps ")] == ["steps 4 to 6:", "steps 6 to 7:", "steps 7 to 12:"]
    assert sum(line.startswith("  ") for line in lines) == 4
    assert not list(tmp_path.iterdir())


def test_settings_are_no_changes(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Fields that do not decide the numbers may be set in a control too."""
    assert intervene(base, tmp_path / "c", "--at=8", "--control", "--set", "checkpoint.keep=1", "--steps=4") == 0
    assert [int(path.stem[5:]) for path in checkpoint_paths(tmp_path / "c")] == [12]
    assert json.loads((tmp_path / "c/run.json").read_text())["changes"] == []


BAD = [
    (["--at=4"], "no change is given"),
    (["--at=4", "--control", "--freeze=D"], "--control makes no change, but 'freeze D' is given"),
    (["--at=5", "--control"], "has no checkpoint of step 5. It has checkpoints of steps: 4, 8, 12"),
    (["--at=4", "--r1=0.1"], "changes nothing"),
    (["--before-collapse=4", "--control"], "no collapse was detected"),
    (["--at=4", "--reinit=G=blocks.0.cnv1"], "did you mean 'blocks.0.conv1'?"),
    (["--at=4", "--set=model.ch_G=5"], "another architecture"),
    (["--at=4", "--freeze=D", "--steps=0"], "expected at least 1"),
    (["--at=4", "--set=out=x", "--freeze=D"], "Use --out"),
    (["--at=4", "--weights=G=nowhere.safetensors"], "nowhere.safetensors does not exist"),
    (["--at=4", "--loss=hinges"], "did you mean 'hinge'?"),
    (["--control"], "Branch from an earlier checkpoint"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input_is_one_paragraph_and_nothing_is_written(
    base: Path, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    for more in ([], ["--dry-run"]):  # which finds all that a run would
        assert intervene(base, tmp_path / "out", *options, *more) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_does_not_verify_is_refused(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad = tmp_path / "step-00000004.safetensors"
    content = bytearray((base / "checkpoints/step-00000004.safetensors").read_bytes())
    content[-5] ^= 1
    bad.write_bytes(content)
    assert intervene(bad, tmp_path / "out", "--control") == 2
    assert "does not verify" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_before_collapse_takes_the_last_checkpoint_that_lies_so_far_before(base: Path, tmp_path: Path) -> None:
    from interventions.branch.parent import find_parent

    parent = tmp_path / "parent"
    shutil.copytree(base, parent)
    RunDirectory(parent).append_event({"event": "collapse", "step": 12, "time": 0.0, "onset": 11})
    assert find_parent(parent, before_collapse=3).step == 8
    assert find_parent(parent, before_collapse=4).step == 4


def test_help_and_the_list_of_changes_load_nothing_heavy() -> None:
    code = """
import sys
from interventions.cli.main import main
try:
    main([{argument!r}])
except SystemExit:
    pass
heavy = {{"torch", "pandas", "pyarrow", "cv2", "matplotlib", "scipy", "tensorboard"}} & set(sys.modules)
sys.exit(f"loaded: {{heavy}}" if heavy else 0)
"""
    for argument in ("--help", "changes"):
        done = subprocess.run(
            [sys.executable, "-c", code.format(argument=argument)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "freeze" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_control_of_two_hundred_steps_at_the_default_size(tmp_path: Path) -> None:
    base = tmp_path / "base"
    assert train_main(["--out", str(base), "--steps=300", "--quiet", "--checkpoint.every=100"]) == 0
    assert intervene(base, tmp_path / "control", "--at=100", "--control", "--steps=200") == 0
    assert_same_state(state_of(base), state_of(tmp_path / "control"))

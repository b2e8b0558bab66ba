"""`train.on_alarm`: where a run stops, what it says, and what a resume then does; also on two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
from ranks import command, on_ranks
from tiny import TINY, assert_same_state

from biggan.cli.options import parse
from biggan.cli.train import train_main
from biggan.config import Config, differences
from biggan.errors import UserError
from biggan.observers import evaluation as observer
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory
from interventions.branch.parent import find_parent

OPTIONS = [
    *TINY, "--eval.every=2", "--checkpoint.every=0", "--checkpoint.ring_every=2", "--checkpoint.ring_keep=6", "--quiet",
    "--eval.features=own_features:Pixels", "--monitor=none",
]  # fmt: skip
FALL = [20.0] * 5 + [500.0] * 20
"""FIDs of every second step: well until step 10, and called a collapse at step 14."""


def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let evaluations find the FIDs of `FALL`, whenever they come."""

    def scores(self, network, settings, step, *rest) -> dict[str, float]:  # noqa: ANN001, ANN002
        return {"fid": FALL[step // 2 - 1], "spread_share": 0.5}

    monkeypatch.setattr(observer.Evaluator, "scores", scores)


def kinds(run: Path) -> list[tuple[str, int]]:
    kept = ("collapse", "alarm", "stopped", "resumed", "finished")
    return [(e["event"], e["step"]) for e in RunDirectory(run).events() if e["event"] in kept]


def last_state(run: Path) -> dict:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_a_stopped_run_is_saved_says_how_to_go_back_and_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scripted(monkeypatch)
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert train_main(["--out", str(whole), "--steps=18", *OPTIONS]) == 0
    assert train_main(["--out", str(run), "--steps=18", "--train.on_alarm=stop", *OPTIONS]) == 1
    assert kinds(run) == [("collapse", 14), ("alarm", 14), ("stopped", 14)]
    event = RunDirectory(run).events_that_hold("stopped")[0]
    assert (event["reason"], event["cause"], event["onset"]) == ("alarm", "collapse", 10)
    assert checkpoint_paths(run)[-1].name == "step-00000014.safetensors"
    said = capsys.readouterr().out
    before = find_parent(run, before_collapse=1).checkpoint.path
    assert before.name == "step-00000008.safetensors"
    for words in ("collapse, which began at step 10", str(before), f"biggan-intervene rescue {run}"):
        assert words in said
    on = said.splitlines()[-1].split()
    assert on[0] == "biggan-train"
    assert train_main([*on[1:], "--quiet"]) == 0
    assert kinds(run)[3:] == [("resumed", 14), ("finished", 18)]
    assert_same_state(last_state(run), last_state(whole))


@pytest.mark.usefixtures("standing")
def test_torchrun_that_takes_the_code_for_a_crash_does_not_make_it_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scripted(monkeypatch)
    line = ["--out", str(tmp_path / "run"), "--steps=18", "--train.on_alarm=stop", *OPTIONS]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    assert train_main(line) == 1
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    capsys.readouterr()
    assert train_main(line) == 1
    assert train_main(["--resume", str(tmp_path / "run"), "--quiet"]) == 1
    assert capsys.readouterr().out.count("stopped at step 14, which is saved, by an alarm") == 2
    assert kinds(tmp_path / "run")[-1] == ("stopped", 14)


@pytest.mark.usefixtures("standing")
def test_a_run_resumed_as_it_was_does_not_stop_at_the_old_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch)
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=16", "--train.on_alarm=stop", *OPTIONS]) == 1
    assert train_main(["--resume", str(run), "--quiet", "--eval.features=own_features:Pixels"]) == 0
    assert kinds(run)[3:] == [("resumed", 14), ("finished", 16)]


@pytest.mark.usefixtures("standing")
@pytest.mark.parametrize("options", [["--steps=14"], ["--steps=16", "--train.alarm_causes=[explosion, loss_jump]"]])
def test_nothing_is_stopped_at_the_last_step_or_for_another_cause(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch)
    assert train_main(["--out", str(tmp_path / "run"), "--train.on_alarm=stop", *OPTIONS, *options]) == 0
    assert kinds(tmp_path / "run")[:2] == [("collapse", 14), ("alarm", 14)]


def test_an_unknown_cause_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UserError, match=r"unknown train.alarm_causes 'colapse'; did you mean 'collapse'"):
        parse(["--train.alarm_causes=[colapse]"]).config()
    names = ["collapse", "dead_discriminator", "explosion", "loss_jump"]
    assert parse([f"--train.alarm_causes=[{','.join(names)}]"]).config().train.alarm_causes == names
    with pytest.raises(UserError, match="recovered"):
        parse(["--train.alarm_causes=[recovered]"]).config()


def test_acting_does_not_decide_the_numbers() -> None:
    acting = parse(["--train.on_alarm=stop", "--train.alarm_causes=[explosion]"]).config()
    assert set(differences(parse([]).config(), acting)) == {"train.on_alarm", "train.alarm_causes"}
    assert not differences(parse([]).config(), acting, numbers_only=True)
    assert Config().train.alarm_causes == ["collapse"]


def stopped_on_ranks(folder: Path) -> list[tuple[int, str, str]]:
    """A run whose rank 0 alone sees the collapse, and its continuation."""
    with pytest.MonkeyPatch.context() as patch:
        scripted(patch)
        run = str(folder / "run")
        return [
            command(["--out", run, "--steps=18", "--train.on_alarm=stop", *OPTIONS]),
            command(["--resume", run, "--quiet", "--eval.features=own_features:Pixels"]),
        ]


def test_all_ranks_stop_after_the_same_step(tmp_path: Path) -> None:
    """One step later than alone, because ranks exchange the wish within a step."""
    main, other = on_ranks(2, stopped_on_ranks, tmp_path)
    assert [code for code, _, _ in main] == [code for code, _, _ in other] == [1, 0], (main, other)
    assert kinds(tmp_path / "run") == [
        ("collapse", 14),
        ("alarm", 14),
        ("stopped", 15),
        ("resumed", 15),
        ("finished", 18),
    ]
    assert "stopped at step 15" in main[0][1]
    assert other[0][1] == ""

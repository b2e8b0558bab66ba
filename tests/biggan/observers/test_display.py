"""The progress display: plain lines where there is no terminal, a live bar where there is one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from biggan.observers import display
from biggan.observers.display import ProgressDisplay
from biggan.observers.progress import Progress


def test_plain_lines_come_first_now_and_then_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: clock.now))
    shown = ProgressDisplay("{task.completed}", 5)
    for step, seconds in ((1, 0.0), (2, 1.0), (3, 10.5), (4, 11.0), (5, 12.0)):
        clock.now = seconds
        shown.show(step, "1 step/s", lambda step=step: f"at {step}")
    shown.say("a note")
    shown.close()
    assert capsys.readouterr().out.splitlines() == ["at 1", "at 3", "at 5", "a note"]


def test_a_live_bar_opens_with_the_first_step_and_takes_notes_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = ProgressDisplay("{task.completed:,} of {task.total:,} images", 2000)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    shown.show(1000, "7 images/s", lambda: pytest.fail("not on a terminal"))
    shown.say("skipped [a].png")
    shown.close()
    out = capsys.readouterr().out
    assert "1,000 of 2,000 images" in out
    assert "7 images/s" in out
    assert "skipped [a].png" in out


def test_the_first_number_that_is_not_finite_is_named() -> None:
    said: list[str] = []
    progress = Progress()
    progress.display = SimpleNamespace(say=lambda line, style: said.append(line))
    event = {"event": "first_non_finite", "step": 7, "what": "gradient", "name": "G.linear.weight", "value": "nan"}
    progress.on_event({**event, "scalars": [], "gradients": 1, "parameters": 0})
    assert said == ["first_non_finite at step 7: the gradient G.linear.weight is nan"]


def line_of(progress: Progress, step: int) -> str:
    """What `after_step` prints where there is no terminal."""
    lines: list[str] = []
    progress.display = SimpleNamespace(show=lambda _step, _rate, line, _text: lines.append(line()))
    progress.after_step(step, {"loss/D_real": 0.5, "loss/D_fake": 0.25, "loss/G": -0.5})
    return lines[0]


def test_the_line_shows_the_last_fid_also_of_before_a_resume() -> None:
    def evaluation(step: int, weights: str, scores: dict[str, object]) -> dict[str, object]:
        return {"event": "evaluation", "step": step, "weights": weights, "scores": scores}

    past = [evaluation(2, "raw", {"fid": 30.04, "is": 2.0}), evaluation(2, "ema", {"fid": "nan"})]
    run = SimpleNamespace(events_that_hold=lambda kind, through: past if (kind, through) == ("evaluation", 4) else [])
    progress = Progress()
    config = SimpleNamespace(steps=9)
    progress.on_start(SimpleNamespace(state=SimpleNamespace(step=4), config=config, run=run))
    assert "D 0.75 G -0.50  FID 30.0, EMA nan  saved at 4" in line_of(progress, 5)
    progress.display = SimpleNamespace(say=lambda line, style: pytest.fail(line))
    progress.on_event(evaluation(6, "raw", {"fid": 28.96}))
    progress.on_event(evaluation(6, "ema", {"is": 1.0}))  # without an FID: the last one stays
    assert "FID 29.0, EMA nan" in line_of(progress, 6)
    past.clear()
    progress.on_start(SimpleNamespace(state=SimpleNamespace(step=0), config=config, run=run))
    assert "FID" not in line_of(progress, 1)


def test_an_alarm_says_its_cause_and_when_it_began() -> None:
    said: list[str] = []
    progress = Progress()
    progress.display = SimpleNamespace(say=lambda line, style: said.append(line))
    progress.on_event({"event": "collapse", "step": 400, "onset": 300})  # the alarm follows
    progress.on_event({"event": "alarm", "step": 400, "cause": "collapse", "onset": 300})
    progress.on_event({"event": "alarm", "step": 500})
    assert said == ["alarm at step 400: collapse, which began at step 300", "alarm at step 500"]

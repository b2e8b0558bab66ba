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

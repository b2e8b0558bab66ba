"""`biggan-intervene claims` on a recorded plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interventions.cli.main import main
from interventions.compare import collect
from interventions.compare.collect import Comparison, compare_plans

STUDY = str(Path(__file__).parents[3] / "notebooks/data/small-study")


@pytest.fixture(scope="module")
def compared() -> Comparison:
    return compare_plans([STUDY])


@pytest.fixture
def read_once(compared: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its runs are read for both commands at once, which takes a second."""
    monkeypatch.setattr(collect, "compare_plans", lambda studies: compared if studies == [STUDY] else None)


@pytest.mark.usefixtures("read_once")
def test_the_json_is_a_list_with_a_verdict_for_every_claim(capsys: pytest.CaptureFixture[str]) -> None:
    from interventions.compare.claims import read_claims

    assert main(["claims", STUDY, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["claim"] for one in found] == [one.claim for one in read_claims()]
    assert all({"claim", "verdict", "n", "p", "effect"} <= one.keys() for one in found)
    of = {one["claim"]: one for one in found}
    # Its three base runs do not collapse, and G's frozen D lets the loss of D go down in each of them.
    assert of["10a"]["verdict"] == "premise not met"
    assert of["1a"]["verdict"] == "not run"
    assert (of["15"]["n"], of["15"]["verdict"]) == (3, "undecided")
    assert of["15"]["p"] == pytest.approx(2 / 5**3)  # below all four unchanged ones in each


@pytest.mark.usefixtures("read_once")
def test_the_table_names_what_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", STUDY, "--warnings"]) == 0
    out = capsys.readouterr().out
    assert "premise not met" in out
    assert "not run: 1a, 1b" in out
    assert "Early warning" in out


def test_a_directory_that_is_not_a_plans_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["claims", str(tmp_path)]) == 2
    assert "plan.json" in capsys.readouterr().err

"""plan.json, altered: the plan, or one sentence."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from biggan.errors import UserError
from interventions.compare.collect import failures
from interventions.study.expand import Base, Job, Resolved, load_resolved

CHANGE = {"change": {"lr": {"value": "x2", "network": "both"}}, "from": 1, "until": None}
SOUND = Resolved(
    "p", "A plan", (Base("a", "/x.safetensors", "d", 1, None),),
    (Job("a", "control", "control", 4), Job("a", "lr", "branch", 4, (CHANGE,), 2)), {"samples.every": 0}, ("20",),
)  # fmt: skip
STRANGE: list[Any] = [None, True, -1, 1.5, 10**40, "x", "../..", "", [], [1], {}, {"a": 1}, "a/b", "\0"]


def altered(rng: random.Random, value: Any) -> Any:
    if isinstance(value, (dict, list)) and value and rng.random() < 0.85:
        made = dict(value) if isinstance(value, dict) else list(value)
        key = rng.choice(list(made) if isinstance(made, dict) else range(len(made)))
        if rng.random() < 0.15:
            del made[key]
        else:
            made[key] = altered(rng, value[key])
        return made
    return rng.choice(STRANGE)


def test_an_altered_plan_is_itself_or_refused(tmp_path: Path) -> None:
    rng, path, refused = random.Random(16), tmp_path / "plan.json", 0
    path.write_text(json.dumps(SOUND.as_json()))
    assert load_resolved(tmp_path) == SOUND
    for _ in range(400):
        text = json.dumps(altered(rng, SOUND.as_json()))
        path.write_bytes(text.encode()[: rng.choice([len(text), len(text), rng.randrange(len(text))])])
        try:
            found = load_resolved(tmp_path)
        except UserError:
            refused += 1
            continue
        assert all((tmp_path / job.key).resolve().parent.parent == tmp_path for job in found.jobs)
        with contextlib.suppress(UserError):
            assert all(job.timed() is not None for job in found.jobs)
    assert refused > 200


@pytest.mark.parametrize("contents", [b"", b"\xff", b"[1]", b"[" * 50_000, b'{"format": "interventions-plan-2"}'])
def test_a_damaged_plan_is_refused_with_the_mend(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "plan.json").write_bytes(contents)
    with pytest.raises(UserError, match=r"plan\.json is damaged .* Restore an earlier copy, or begin the plan again"):
        load_resolved(tmp_path)


def test_torn_lines_of_the_launches_are_left_out(tmp_path: Path) -> None:
    lines = [b'{"event": "crashed", "key": "a/x", "words": "one\\ntwo"}', b'{"event": "crashed", "k', b"[]", b"\xff",
             b'{"event": "crashed", "key": 3}', b'{"event": "crashed", "key": "a/y", "code": 1}']  # fmt: skip
    (tmp_path / "launches.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    with pytest.warns(UserWarning, match="lines 2, 3, 4 are torn or altered"):
        assert failures(tmp_path) == {"a/x": "two", "a/y": "code 1"}

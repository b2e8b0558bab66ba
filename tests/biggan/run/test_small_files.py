"""Damaged small files: every reader gives an answer or one sentence, never another exception."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY_CONFIG

import spectra
from biggan.config import from_dict, to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import (
    CheckpointError,
    digest,
    newest_checkpoint,
    peeked_step,
    read_checkpoint,
    save_checkpoint,
    saved_steps,
)
from biggan.run.directory import RunDirectory
from biggan.run.ending import why_stopped
from biggan.run.retention import boundaries_of
from biggan.run.session import find_start
from interventions.compare.collect import compare_runs
from interventions.compare.origin import origin_of
from spectra.record.damage import RecordDamage
from spectra.record.events import append_event, read_event_lines, supersede_events
from spectra.record.files import write_tensors

OLD = Path(__file__).parents[2] / "data" / "run-0.1.0"
STRANGE: list[Any] = [None, True, -1, 0, 1.5, 10**40, "x", "", [], [1], {}, {"a": 1}, float("nan"), [[[]]], "$\\frac{$"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def damaged_text(rng: random.Random, data: bytes) -> bytes:
    """The bytes cut, flipped, doubled, of other encodings, or nested without end."""
    at = rng.randrange(len(data) + 1)
    ways: list[Callable[[], bytes]] = [
        lambda: data[:at],
        lambda: data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :],
        lambda: data[:at] + rng.randbytes(8) + data[at:],
        lambda: data[:at] + data[at + rng.randrange(30) :],
        lambda: b"\xff\xfe" + data,
        lambda: data.replace(b"\n", b"", 1),
        lambda: b"[" * 20_000,
        lambda: b'{"a": ' * 5_000,
        lambda: b"null",
        lambda: b"3\n",
        lambda: b"",
        lambda: b"a: &a [*a]\n",
        lambda: bytes(len(data)),
    ]
    return rng.choice(ways)()


def forged(rng: random.Random, value: Any) -> Any:
    """Plain data with one value somewhere replaced by another kind of value, or gone."""
    value = json.loads(json.dumps(value))
    place: Any = value
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and rng.random() < 0.7:
            place = inner
            continue
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(STRANGE)
        return value


def use(run: Path, *, compare: bool) -> None:
    """Everything that reads the small files of a run; `UserError` and `ValueError` say what is wrong."""
    directory = RunDirectory(run)
    readers: list[Callable[[], Any]] = [
        lambda: spectra.load(run),
        lambda: read_event_lines(run),
        lambda: supersede_events(run, 1),
        directory.read_config,
        directory.facts,
        directory.class_names,
        lambda: boundaries_of(directory.facts()),
        lambda: directory.continued_by(1),
        lambda: find_start(run),
        lambda: saved_steps(run),
        lambda: [why_stopped(directory) for _ in directory.events_that_hold("stopped")[:1]],
    ]
    if compare:  # takes half a second
        readers.append(lambda: origin_of(compare_runs([run])))
    for reader in readers:
        with contextlib.suppress(UserError, FileNotFoundError):
            reader()


def fuzz(run: Path, seed: int, count: int) -> None:
    rng = random.Random(seed)
    append_event(run, {"event": "stopped", "step": 2, "reason": "alarm", "cause": "collapse", "onset": 1})
    scores = {"fid": 3.0, "is": "nan", "spread_share": 0.5}
    append_event(run, {"event": "evaluation", "step": 2, "weights": "raw", "scores": scores, "settings": {"n": 1}})
    parent = {"path": "/a/checkpoints/step-00000001.safetensors", "digest": "d", "step": 1}
    changes = [{"change": {"lr": {"value": "x2"}}, "from": 1, "until": None, "fields": {"optim.G.lr": [1, 2]}}]
    facts = json.loads((run / "run.json").read_text()) | {"parent": parent, "changes": changes, "class_names": ["a", 1]}
    (run / "run.json").write_text(json.dumps(facts))
    whole = {name: (run / name).read_bytes() for name in ("run.json", "events.jsonl", "config.yaml")}
    for turn in range(count):
        name = rng.choice(list(whole))
        data = whole[name]
        if name == "config.yaml" or rng.random() < 0.4:
            data = damaged_text(rng, data)
        elif name == "run.json":
            data = json.dumps(forged(rng, facts)).encode()
        else:
            lines = data.splitlines()
            at = rng.randrange(len(lines))
            lines[at] = json.dumps(forged(rng, json.loads(lines[at]))).encode()
            data = b"\n".join(lines) + b"\n"
        (run / name).write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordDamage)
            use(run, compare=turn % 4 == 0)
        (run / name).write_bytes(whole[name])


def test_every_reader_survives_damage(run: Path) -> None:
    fuzz(run, 16, 24)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(10))
def test_every_reader_survives_hundreds_of_damages(run: Path, seed: int) -> None:
    fuzz(run, seed, 300)


def events_of(run: Path) -> tuple[list[dict[str, Any]], list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_event_lines(run)
    return found, [str(one.message) for one in said]


def test_damaged_lines_of_events_are_left_out_and_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'{"event": "started", "step": 0, "time": 1}\n'
        b'{"event": "alarm", "step": "3"}\n'  # a step that is none
        b"[1, 2]\n"
        b'{"event": "caf\xe9", "step": 3}\n'  # not UTF-8
        b'{"event": "alarm", "ste{"event": "checkpoint", "step": 4}\n'  # torn, and the next one behind it
        b'{"event": "evaluation", "step": 5, "weights": "raw", "scores": {"fid": [1]}}\n'
        b'{"event": "finished", "step": 6, "time": 1e300}\n'
        b'{"event": "interrupted", "step": 7, "ti'
    )
    found, said = events_of(tmp_path)
    assert [event["event"] for event in found] == ["started", "checkpoint"]
    assert said == [f"{path}: lines 2, 3, 4, 6, 7 are torn or altered, and left out"]
    append_event(tmp_path, {"event": "resumed", "step": 7})  # begins on a line of its own
    assert events_of(tmp_path)[0][-1]["event"] == "resumed"


def test_superseding_keeps_the_lines_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "started", "step": 0}\n\xff\xfe torn\n{"event": "alarm", "step": 9}\n')
    with pytest.warns(RecordDamage, match="line 2 is torn or altered"):
        supersede_events(tmp_path, 4)
    lines = path.read_bytes().splitlines()
    assert lines[1] == b"\xff\xfe torn"
    assert json.loads(lines[2]) == {"event": "alarm", "step": 9, "superseded": True}


@pytest.mark.parametrize("contents", [b"", b"steps: [", b"\xff", b"a: &a [*a]\n", b"- 3\n", None])
def test_a_resume_needs_no_config_yaml(run: Path, contents: bytes | None) -> None:
    """The checkpoint holds the configuration, and the file is written again when the run goes on."""
    expected = read_checkpoint(next((run / "checkpoints").glob("step-*"))).config
    (run / "config.yaml").unlink()
    if contents is not None:
        (run / "config.yaml").write_bytes(contents)
    start = find_start(run)
    assert (start.config, start.step) == (expected, 2)
    directory = RunDirectory(run)
    if contents != b"":
        with pytest.raises(UserError, match=r"config\.yaml"):
            directory.read_config()
    directory.write_config(start.config)
    assert directory.read_config() == expected


def forge(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    """A checkpoint file whose digest is right, whatever it says."""
    facts = {"format": "biggan-1", "step": "2", "finite": "true", "config": "{}", **metadata}
    write_tensors(path, tensors, facts | {"digest": digest(tensors, facts)})


@pytest.mark.parametrize(
    "metadata",
    [
        {"step": "x"},
        {"step": "-1"},
        {"finite": "maybe"},
        {"finite": "3"},
        {"config": "[]"},
        {"config": "{"},
        {"config": "[" * 20_000},
        {"config": '{"model": 3}'},
        {"config": '{"model": {"ch_G": "wide"}}'},
        {"config": '{"steps": true}'},
        {"config": '{"out": 5}'},
        {"config": '{"steps": 1' + "0" * 40 + "}"},
        {"config": '{"eval": {"features": ["a"]}}'},
        {"config": '{"stepz": 3}'},
        {"config": '{"regularizers": {"r1": Infinity}}'},
    ],
)
def test_forged_checkpoints_are_refused_in_one_sentence(tmp_path: Path, metadata: dict[str, str]) -> None:
    """The digest holds, so only the contents can tell; the run is resumed from the one before."""
    sound = to_dict(from_dict(TINY_CONFIG))
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder / "step-00000001.safetensors", {"a": torch.zeros(2)}, 1, sound)
    forge(folder / "step-00000002.safetensors", {"a": torch.zeros(2)}, **metadata)
    with pytest.raises(CheckpointError, match=r"cannot be used .* Use another checkpoint"):
        read_checkpoint(folder / "step-00000002.safetensors")
    checkpoint, skipped = newest_checkpoint(tmp_path)
    assert checkpoint.step == 1
    assert len(skipped) == 1
    shutil.copy(folder / "step-00000002.safetensors", folder / "best.safetensors")
    assert peeked_step(folder / "best.safetensors") == (None if metadata.get("step") else 2)
    assert saved_steps(tmp_path) >= {1, 2}


def test_boundaries_of_a_branch_are_kept(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from biggan.run.retention import CheckpointStore

    values = TINY_CONFIG | {"checkpoint": {"every": 1, "keep": 1}, "out": str(tmp_path / "run")}
    config, run = from_dict(values), RunDirectory(tmp_path / "run")
    parent = {"path": "p", "digest": "d", "step": 1}
    spans = [{"change": {"lr": {"value": 1}}, "from": a, "until": b} for a, b in ((1, 3), (3, 4), (5, None))]
    run.create_whole(config, {"parent": parent, "changes": spans}, lambda made: None)
    state = SimpleNamespace(step=1, tensors=lambda: {"a": torch.zeros(1)})
    trainer = SimpleNamespace(run=run, config=config, state=state, emit=lambda *a, **k: None)
    trainer.observers = SimpleNamespace(on_checkpoint=lambda *a: None, before_checkpoint=lambda *a: None)
    store = CheckpointStore()
    store.on_start(trainer)
    for step in range(1, 8):
        state.step = step
        store.after_step(step, {})
    steps = [int(path.stem[5:]) for path in sorted(run.checkpoints.glob("step-*"))]
    assert steps == [3, 4, 5, 7]
    run.unlock()

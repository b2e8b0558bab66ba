"""Stored scores and samples that were altered: computed again or refused, never another exception."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import numpy as np
import pytest

from biggan.data.prepare.journal import Journal
from biggan.errors import UserError
from biggan.evaluation.evaluator import Settings
from biggan.evaluation.export import FACTS, ExportSpec, _facts_of, _prepare
from biggan.evaluation.table import ScoreRow, ScoreTable
from spectra.record.damage import RecordDamage

STRANGE = [None, True, 1.5, 10**400, "x", [], [1], {}, {"a": 1}, [[[]]]]


def table(folder: Path) -> ScoreTable:
    known = dict.fromkeys(Settings.__dataclass_fields__, 1)
    texts = {"weights": "raw", "features": "classifier", "reference": "train", "truncation": None}
    return ScoreTable.open(Settings(**{**known, **texts}), folder)


def test_altered_tables_of_scores_are_computed_again(tmp_path: Path) -> None:
    first = table(tmp_path)
    first.add(ScoreRow("step-00000001.safetensors", 1, 1000, {"fid": 3.0, "is": float("nan")}, leakage=[[1.0, 0.0]]))
    path, _ = first.save()
    whole = path.read_text()
    assert table(tmp_path).rows[0].scores["fid"] == 3.0
    rng, said = random.Random(16), 0
    for _ in range(200):
        stored = json.loads(whole)
        place = rng.choice([stored, stored["rows"][0], stored["rows"][0]["scores"]])
        place[rng.choice([*place, "new"])] = rng.choice(STRANGE)
        text = json.dumps(stored)
        path.write_text(text if rng.random() < 0.7 else text[: rng.randrange(len(text))])
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            rows = table(tmp_path).rows
        said += bool(found)
        assert all(issubclass(one.category, RecordDamage) and str(path) in str(one.message) for one in found)
        assert not rows or isinstance(rows[0].step, int | None)
    assert said > 80


@pytest.mark.parametrize("contents", [b"", b"\xff", b"[]", b"3", b"[" * 50_000])
def test_samples_of_another_program_are_not_added_to(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / FACTS).write_bytes(contents)
    with pytest.raises(UserError, match="Choose another --out"):
        _prepare(tmp_path, ExportSpec(**dict.fromkeys(ExportSpec.__dataclass_fields__, 1)))
    np.savez(tmp_path / "a.npz", facts=contents.decode("latin-1")[:9])
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    for name in ("b.npz",) if contents in (b"[]", b"3") else ("a.npz", "b.npz"):
        with pytest.raises(UserError, match="Choose another --out"):
            _facts_of(tmp_path / name)


def test_a_damaged_journal_of_preparation_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = [b'{"identity": "x"}', b"\xff\xfe", b"[1]", b'{"piece": 1}', b'{"pie', b"[" * 50_000, b'{"piece": 2}']
    (tmp_path / "done.jsonl").write_bytes(b"\n".join(lines))
    journal = Journal(tmp_path)
    assert (journal.header, journal.entries) == ({"identity": "x"}, [{"piece": 1}, {"piece": 2}])
    journal.close()

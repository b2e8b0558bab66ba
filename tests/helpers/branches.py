"""Branches of a run that is gone, with a record and scores whose answer is known."""

from __future__ import annotations

import json
from pathlib import Path

from spectra.record.segments import RecordWriter

BEGIN = 100
LEGEND = {
    "layers": {
        "G.linear": {"network": "G", "kind": "linear", "depth": 0, "shape": [8, 4]},
        "D.out": {"network": "D", "kind": "linear", "depth": 0, "shape": [1, 8]},
    },
    "parameters": {},
    "frames": {"sigma0": "spectra", "sigma1": "spectra"},
}


def make_run(
    path: Path, parent: str = "a", changes: list | None = None, *, worse_at: int | None = None, fid: float = 10.0,
    loss: float = 1.0, scored: bool = True, last: int = 400,
) -> Path:  # fmt: skip
    """A branch of step 100 with a record and scores every ten steps; from `worse_at` on its FID is tenfold."""
    writer = RecordWriter(path, BEGIN, LEGEND)
    for step in range(BEGIN + 1, last + 1):
        values = {"loss/D_real": loss * 0.25, "loss/D_fake": loss * 0.75, "accuracy/D_real": 0.75}
        if step % 10 == 0:
            values |= {"sigma0/G.linear": step / 100, "sigma0/D.out": 1.0, "D/accuracy/val": 0.5}
        writer.append(step, values)
    writer.close()
    events = [{"event": "started", "step": BEGIN, "time": 0}]
    for step in range(10, last + 1, 10) if scored else ():
        value = fid * (10 if worse_at is not None and step >= worse_at else 1) * (1 + 1 / step)
        scores = {"fid": value, "is": 5.0, "spread_share": 0.8 if step % 50 else "nan"}
        inherited = {"inherited": True} if step <= BEGIN else {}
        for weights in ("raw", "ema"):
            event = {"event": "evaluation", "step": step, "time": 0, "weights": weights, "scores": scores}
            events.append(event | inherited)
    events.append({"event": "finished", "step": last, "time": 0})
    (path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    lineage = {"path": f"/nowhere/{parent}/checkpoints/step-00000100.safetensors", "digest": parent, "step": BEGIN}
    (path / "run.json").write_text(json.dumps({"parent": lineage, "changes": changes or []}))
    return path


def change(name: str, **arguments: object) -> list:
    return [{"change": {name: arguments}, "from": BEGIN, "until": None, "fields": {}}]

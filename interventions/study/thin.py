"""`python -m interventions.study.thin PLAN OUT`: copy a plan's directory, thinned until it is small enough to share.

Measures that need every step cannot be computed from a thinned record. So the numbers of the whole record are stored
beside each run (`outcome.json`); a comparison uses them and notes it. The tables of the whole plan are copied too.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, guarded
from biggan.errors import UserError
from spectra.record.files import is_unused

if TYPE_CHECKING:
    from interventions.study.expand import Resolved

_KEPT = ("loss/", "accuracy/")
_NORMS = ("gradient_norm/G", "gradient_norm/D")
KEPT_WHOLE = ("D/accuracy/", "D/auc/", "D/gap/")  # of fixed images, now and then: few already
SPECTRA = ("sigma0/", "sigma1/")
_SPARSE = (*SPECTRA, "frobenius/D.", "gradient_variance/", "class_norm/")
_TIMED = ("started", "resumed", "interrupted", "stopped", "finished")
EVERY, SPECTRA_EVERY = 50, 100
_DROPPED_BITS = 36  # of 52: about five decimal digits stay, which compress to half the size


def thin_plan(plan: Path, out: Path, every: int = EVERY, spectra_every: int = SPECTRA_EVERY) -> Path:
    """Copy a plan's directory to `out`, with the losses, accuracies and gradient norms of G and D every N steps, and
    sigma_0 and sigma_1 of every layer at larger intervals. Raises `UserError` if `plan` is not a plan's directory or
    `out` is not empty."""
    from interventions.study.expand import load_resolved

    load_resolved(plan)
    if not is_unused(out):
        raise UserError(f"{out} exists and is not empty. Choose another place.")
    return update_thinned(plan, out, every, spectra_every, only_ended=False)


def update_thinned(
    plan: Path,
    out: Path,
    every: int = EVERY,
    spectra_every: int = SPECTRA_EVERY,
    *,
    only_ended: bool = True,
) -> Path:
    """Bring the thinned copy in `out` up to date: runs that it does not hold yet are added, those it holds stay.

    Each run appears whole or not at all. Neither absolute paths nor names of machines are copied. Raises `UserError` if
    `plan` is not a plan's directory, or `out` holds another plan or something else.
    """
    from biggan.run.files import whole_folder
    from interventions.study.expand import load_resolved
    from interventions.study.keepsakes import keep_look
    from interventions.study.plan import PLAIN
    from interventions.study.worker import has_ended
    from spectra.record.files import write_text

    resolved = load_resolved(plan)
    _check_copy(resolved, out)
    out.mkdir(parents=True, exist_ok=True)
    for path in plan.glob("*.csv"):
        shutil.copy(path, out / path.name)
    places = {
        base.checkpoint: f"{base.name}/checkpoints/{Path(base.checkpoint).name}"
        for base in resolved.bases
        if base.checkpoint
    }
    write_text(out / "plan.json", json.dumps(_portable(resolved, places).as_json(), separators=(",", ":")) + "\n")
    for job in resolved.jobs:
        run = plan / job.key
        if (out / job.key).exists() or not (run / "events.jsonl").is_file() or (only_ended and not has_ended(run)):
            continue
        begin = 0 if job.kind == "scratch" else resolved.base_of(job).step
        (out / job.base).mkdir(exist_ok=True)
        with whole_folder(out / job.key) as made:
            thin_run(run, made, begin, every, spectra_every)
            _rename(made, places)
            if job.entry == PLAIN and job.seed is None:
                keep_look(run, made)
    return out


def _check_copy(resolved: Resolved, out: Path) -> None:
    from interventions.study.expand import load_resolved

    if is_unused(out):
        return
    if (out / "plan.json").is_file():
        before = load_resolved(out)
        if (before.plan, before.title) == (resolved.plan, resolved.title):
            return
    raise UserError(f"{out} is not a thinned copy of this plan. Choose another place, or an empty one.")


def _portable(resolved: Resolved, places: dict[str, str]) -> Resolved:
    """The plan with names instead of paths of this machine. A study's base runs are among its own runs."""
    runs = {base.name: f"{base.name}/plain" if resolved.study is not None else None for base in resolved.bases}
    bases = [replace(one, checkpoint=places.get(one.checkpoint, ""), run=runs[one.name]) for one in resolved.bases]
    jobs = [replace(job, changes=tuple(map(_without_folder, job.changes))) for job in resolved.jobs]
    return replace(resolved, bases=tuple(bases), jobs=tuple(jobs))


def _without_folder(change: dict[str, Any]) -> dict[str, Any]:
    home = change.get("defined_in")
    return {**change, "defined_in": Path(home).name} if home else change


def _rename(run: Path, places: dict[str, str]) -> None:
    """Name the parent by its run, and a file of changes by its name, without their paths on this machine."""
    for path in (run / "run.json", run / "events.jsonl"):
        text = path.read_text(encoding="utf-8")
        for place, name in places.items():
            text = text.replace(place, name)
        path.write_text(re.sub(r'("defined_in": ?")[^"]*/', r"\1", text), encoding="utf-8")


def thin_run(run: Path, out: Path, begin: int, every: int, spectra_every: int) -> None:
    """Copy one run's lineage, events (scores without their settings) and thinned record, with the whole's numbers."""
    from biggan.run.directory import RunDirectory
    from interventions.compare.measures import LOSS_STEPS, store_numbers
    from interventions.compare.outcome import read_numbers
    from spectra import load
    from spectra.record.events import read_event_lines
    from spectra.record.segments import RecordWriter, read_legend, read_record

    out.mkdir(parents=True)
    facts = RunDirectory(run).facts()
    (out / "run.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    events = [event for event in read_event_lines(run) if not event.get("superseded")]
    lines = [_thin_event(event) for event in events if event["event"] != "checkpoint" and not _is_idle(event, begin)]
    (out / "events.jsonl").write_text("".join(json.dumps(event, separators=(",", ":")) + "\n" for event in lines))
    record = read_record(run)
    if record.empty:
        return
    numbers, layers, made_from = read_numbers(run, load(run), begin)
    if made_from != "thinned":
        store_numbers(out, begin, numbers, layers)
    names = record["name"].astype(str)
    measured = sorted(record.loc[names.str.startswith(SPECTRA), "step"].unique())
    ends = [record["step"].min(), record["step"].max(), *measured[:1], *measured[-1:]]
    last = record["step"].max()  # the first and last steps stay whole: means over them are compared
    at_an_end = (record["step"] <= begin + LOSS_STEPS) | (record["step"] > last - LOSS_STEPS)
    now_and_then = (record["step"] % every == 0) | record["step"].isin(ends)
    dense = names.str.startswith(_KEPT) & (now_and_then | at_an_end)
    dense |= (names.isin(_NORMS) & now_and_then) | names.str.startswith(KEPT_WHOLE)
    sparse = names.str.startswith(_SPARSE) & ((record["step"] % spectra_every == 0) | record["step"].isin(ends))
    whole = read_legend(run)
    frames = {
        name: frame
        for name, frame in whole.get("frames", {}).items()
        if any(one.startswith(f"{name}/") for one in _SPARSE)
    }
    frames |= dict.fromkeys(("sigma0", "sigma1"), "spectra")
    legend = {"layers": whole.get("layers", {}), "parameters": {}, "frames": frames}
    writer = RecordWriter(out, begin, legend, compression="zstd")
    for step, rows in record[dense | sparse].groupby("step"):
        values = (_shortened(value) for value in rows["value"])
        writer.append(int(step), dict(zip(rows["name"].astype(str), values, strict=True)))
    writer.close()


def _is_idle(event: Mapping[str, Any], begin: int) -> bool:
    """Whether nothing reads it: a parent's score of averaged weights (a branch's collapse is judged by raw ones)."""
    return event["event"] == "evaluation" and event["step"] <= begin and event["weights"] == "ema"


def _thin_event(event: dict[str, Any]) -> dict[str, Any]:
    """An event without its settings, its scores to five digits, and its time only where sessions begin and end."""
    kept = {name: value for name, value in event.items() if name not in ("settings", "well_until")}
    if kept["event"] not in _TIMED:
        kept.pop("time", None)
    if isinstance(scores := kept.get("scores"), dict):
        kept["scores"] = {n: float(f"{v:.5g}") if isinstance(v, float) else v for n, v in scores.items()}
    return kept


def _shortened(value: float) -> float:
    """A number rounded to 16 bits after its first; NaN and Inf are kept."""
    if not math.isfinite(value) or value == 0:
        return value
    mantissa, exponent = math.frexp(value)
    scale = 2.0 ** (53 - _DROPPED_BITS)
    return math.ldexp(round(mantissa * scale) / scale, exponent)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""

    def thin(argv: list[str]) -> int:
        parser = argparse.ArgumentParser(
            prog="python -m interventions.study.thin", description=__doc__, allow_abbrev=False
        )
        parser.add_argument("plan", type=Path, help="the plan's directory")
        parser.add_argument("out", type=Path, help="the directory for the thinned copy")
        parser.add_argument(
            "--every", type=int, default=EVERY, help=f"steps between the scalars that are kept ({EVERY})"
        )
        parser.add_argument(
            "--spectra-every",
            type=int,
            default=SPECTRA_EVERY,
            help=f"steps between the spectra that are kept ({SPECTRA_EVERY})",
        )
        options = parser.parse_args(argv)
        out = thin_plan(options.plan, options.out, options.every, options.spectra_every)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"{out}: {size / 2**20:.2f} MiB")
        return EXIT_DONE

    return guarded("interventions.study.thin", thin, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())

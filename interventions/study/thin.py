"""`python -m interventions.study.thin PLAN OUT`: copy a plan's directory, thinned until it is small enough to share.

Measures that need every step cannot be computed from a thinned record. So the numbers of the whole record are stored
beside each run (`outcome.json`); a comparison uses them and notes it. The tables of the whole plan are copied too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from biggan.cli.app import EXIT_DONE, guarded
from biggan.errors import UserError

_KEPT = ("loss/", "accuracy/", "gradient_norm/")
KEPT_WHOLE = ("D/accuracy/", "D/auc/", "D/gap/")  # of fixed images, now and then: few already
SPECTRA = ("sigma0/", "sigma1/")


def thin_plan(plan: Path, out: Path, every: int = 20, spectra_every: int = 100) -> Path:
    """Copy a plan's directory to `out`, with the losses, accuracies and gradient norms of G and D every N steps, and
    sigma_0 and sigma_1 of every layer at larger intervals. Raises `UserError` if `plan` is not a plan's directory or
    `out` is not empty."""
    from interventions.study.expand import load_resolved

    resolved = load_resolved(plan)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} exists and is not empty. Choose another place.")
    out.mkdir(parents=True, exist_ok=True)
    for path in plan.glob("*.csv"):
        shutil.copy(path, out / path.name)
    places = {base.checkpoint: f"{base.name}/checkpoints/{Path(base.checkpoint).name}" for base in resolved.bases}
    bases = tuple(replace(base, checkpoint=places[base.checkpoint], run=None) for base in resolved.bases)
    (out / "plan.json").write_text(json.dumps(replace(resolved, bases=bases).as_json(), indent=1) + "\n")
    for job in resolved.jobs:
        if (plan / job.key / "events.jsonl").is_file():
            begin = 0 if job.kind == "scratch" else resolved.base_of(job).step
            thin_run(plan / job.key, out / job.key, begin, every, spectra_every)
            _rename(out / job.key, places)
    return out


def _rename(run: Path, places: dict[str, str]) -> None:
    """Name the parent by its run, without its path on this machine."""
    for path in (run / "run.json", run / "events.jsonl"):
        text = path.read_text(encoding="utf-8")
        for place, name in places.items():
            text = text.replace(place, name)
        path.write_text(text, encoding="utf-8")


def thin_run(run: Path, out: Path, begin: int, every: int, spectra_every: int) -> None:
    """Copy one run's lineage, events (scores without their settings) and thinned record, with the whole's numbers."""
    from interventions.compare.measures import LOSS_STEPS, store_numbers
    from interventions.compare.outcome import read_numbers
    from spectra import load
    from spectra.record.events import read_event_lines
    from spectra.record.segments import RecordWriter, read_legend, read_record

    out.mkdir(parents=True)
    shutil.copy(run / "run.json", out / "run.json")
    events = [event for event in read_event_lines(run) if not event.get("superseded")]
    events = [event for event in events if event["event"] != "checkpoint"]
    for event in events:
        event.pop("settings", None)
    (out / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
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
    dense = names.str.startswith(_KEPT) & ((record["step"] % every == 0) | record["step"].isin(ends) | at_an_end)
    dense |= names.str.startswith(KEPT_WHOLE)
    sparse = names.str.startswith(SPECTRA) & ((record["step"] % spectra_every == 0) | record["step"].isin(ends))
    frames = dict.fromkeys(("sigma0", "sigma1"), "spectra")
    legend = {"layers": read_legend(run).get("layers", {}), "parameters": {}, "frames": frames}
    writer = RecordWriter(out, begin, legend)
    for step, rows in record[dense | sparse].groupby("step"):
        writer.append(int(step), dict(zip(rows["name"].astype(str), rows["value"], strict=True)))
    writer.close()


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""

    def thin(argv: list[str]) -> int:
        parser = argparse.ArgumentParser(
            prog="python -m interventions.study.thin", description=__doc__, allow_abbrev=False
        )
        parser.add_argument("plan", type=Path, help="the plan's directory")
        parser.add_argument("out", type=Path, help="the directory for the thinned copy")
        parser.add_argument("--every", type=int, default=20, help="steps between the scalars that are kept (20)")
        parser.add_argument(
            "--spectra-every", type=int, default=100, help="steps between the spectra that are kept (100)"
        )
        options = parser.parse_args(argv)
        out = thin_plan(options.plan, options.out, options.every, options.spectra_every)
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        print(f"{out}: {size / 2**20:.2f} MiB")
        return EXIT_DONE

    return guarded("interventions.study.thin", thin, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())

"""Comparing branches with their control: luck first, then each change, the base run being the unit of statistics."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.errors import UserError
from interventions.outcome import RunOutcome, read_outcome

if TYPE_CHECKING:
    import pandas as pd

CONTROL = ("control", "plain")
COMPARED = (
    "delay", "best_fid_raw", "final_fid_raw", "final_spread_raw", "final_fid_ema", "D_loss_end", "D_loss_max",
    "sigma0_growth", "D_spikes_per_1000", "D/accuracy/train", "D/accuracy/val",
)  # fmt: skip
"""What is compared with the control, base run by base run."""


@dataclass
class Row:
    """One run in a comparison."""

    base: str
    entry: str
    kind: str
    """"control", "luck", "branch" or "scratch"."""
    outcome: RunOutcome


@dataclass
class Comparison:
    """Every run, and what follows from them."""

    rows: list[Row]
    title: str = "comparison"
    notes: list[str] = field(default_factory=list)
    parents: dict[str, Path] = field(default_factory=dict)
    """The base runs' own directories, where they are there."""
    _frames: dict[Path, dict[str, Any]] = field(default_factory=dict, repr=False)

    def frames(self, path: Path) -> dict[str, Any]:
        """A run's record as `spectra.load` gives it, read once."""
        import spectra

        if path not in self._frames:
            self._frames[path] = spectra.load(path)
        return self._frames[path]

    @property
    def scored(self) -> bool:
        """Whether any run holds scores."""
        return any(row.outcome.scored for row in self.rows)

    def control_of(self, row: Row) -> Row | None:
        """The unchanged run of the same base, a branch's or a run's from scratch."""
        name = "plain" if row.kind == "scratch" else "control"
        return next((one for one in self.rows if one.base == row.base and one.entry == name), None)

    def entries(self) -> list[str]:
        """The changed entries in order, each once."""
        return list(dict.fromkeys(row.entry for row in self.rows if not is_luck(row)))

    def of(self, entry: str) -> list[Row]:
        """An entry's runs, one a base run."""
        return [row for row in self.rows if row.entry == entry]


def is_luck(row: Row) -> bool:
    """Whether it is unchanged but for its noise: a control or a continuation under another seed."""
    return row.entry.partition("-seed-")[0] in CONTROL


def compare_plan(folder: str | Path) -> Comparison:
    """The runs of a plan's directory, as far as they are. Raises `UserError` where it is none, or nothing has begun."""
    from interventions.plan import load_resolved

    folder = Path(folder)
    resolved = load_resolved(folder)
    rows, notes = [], list(resolved.notes)
    for job in resolved.jobs:
        begin = 0 if job.kind == "scratch" else resolved.base_of(job).step
        if not (folder / job.key / "events.jsonl").is_file():
            notes.append(f"{job.key} has not begun")
            continue
        rows.append(Row(job.base, job.entry, job.kind, read_outcome(folder / job.key, begin)))
        if rows[-1].outcome.ended is None:
            notes.append(f"{job.key} has not finished: it is at step {rows[-1].outcome.last}")
    notes += [f"{key} failed: {words}" for key, words in failures(folder).items()]
    if not rows:
        raise UserError(f"no run of the plan in {folder} has begun.")
    parents = {base.name: Path(base.run) for base in resolved.bases if base.run and Path(base.run).is_dir()}
    return Comparison(rows, resolved.title, notes, parents)


def compare_runs(paths: Iterable[str | Path]) -> Comparison:
    """Any runs: branches are told from their lineage, and grouped by their parent; others stand alone."""
    from interventions.replay import read_facts

    rows: list[Row] = []
    names: dict[tuple[str, int], str] = {}
    parents: dict[str, Path] = {}
    for path in map(Path, paths):
        facts = read_facts(path)
        parent = facts.get("parent")
        if not parent:
            rows.append(Row(path.name, path.name, "scratch", read_outcome(path, 0)))
            continue
        run = Path(parent["path"]).parent.parent
        name = names.setdefault((parent["digest"], parent["step"]), f"{run.name} at {parent['step']}")
        if run.is_dir():
            parents[name] = run
        entry = label_of(facts["changes"], parent["step"])
        kind = {True: "control", False: "branch"}[entry == "control"]
        if entry.startswith("control-seed"):
            kind = "luck"
        rows.append(Row(name, entry, kind, read_outcome(path, parent["step"])))
    return Comparison(rows, "comparison", [], parents)


def label_of(changes: list[dict[str, Any]], begin: int) -> str:
    """The changes of a branch of step `begin` in words; `control` for none, `control-seed-N` for another seed alone."""
    from interventions.timeline import applied_from_json

    if not changes:
        return "control"
    applied = [one.timed for one in applied_from_json(changes)]
    if len(applied) == 1 and applied[0].change.name == "seed":
        return f"control-seed-{applied[0].change.spec()['seed']['value']:g}"
    return "; ".join(one.describe(begin) for one in applied)


def failures(folder: Path) -> dict[str, str]:
    """The jobs of a plan that crashed and have not finished since, with their last words."""
    path, found = folder / "launches.jsonl", {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue
        if event["event"] == "crashed":
            found[event["key"]] = event.get("words", "").strip().splitlines()[-1:] or [f"code {event['code']}"]
        elif event["event"] == "finished":
            found.pop(event["key"], None)
    return {key: words[0] for key, words in found.items()}


def table(comparison: Comparison) -> pd.DataFrame:
    """One row a run: base, entry, kind, collapse (a step or none), censored, delay, and every number."""
    import pandas as pd

    rows = []
    for row in comparison.rows:
        one = row.outcome
        known = one.scored
        rows.append(
            {
                "base": row.base,
                "entry": row.entry,
                "kind": row.kind,
                "begin": one.begin,
                "last": one.last,
                "collapse": math.nan if one.collapse is None else one.collapse,
                "rule": one.collapse_rule,
                "censored": (one.collapse is None) if known else None,
                "delay": delay(row, comparison.control_of(row)),
                "growth_layer": one.growth_layer,
                "ended": one.ended,
            }
            | one.numbers
        )
    return pd.DataFrame(rows)


def delay(row: Row, control: Row | None) -> float:
    """By how many steps later than the control's it collapsed; NaN where one of the two did not, or is not known."""
    if control is None or row.outcome.collapse is None or control.outcome.collapse is None:
        return math.nan
    return float(row.outcome.collapse - control.outcome.collapse)


def luck(comparison: Comparison) -> pd.DataFrame:
    """How far unchanged continuations of one parent lie apart: base, measure, n, least, most, and their deviation."""
    import pandas as pd

    frame, rows = table(comparison), []
    for base in dict.fromkeys(frame["base"]):
        for root in CONTROL:
            mine = frame[(frame["base"] == base) & (frame["entry"].str.partition("-seed-")[0] == root)]
            if len(mine) < 2:
                continue
            collapsed = mine["collapse"].dropna()
            measures = {"collapse": collapsed} | {name: mine[name].dropna() for name in COMPARED if name != "delay"}
            for name, values in measures.items():
                if len(values):
                    deviation = float(values.std(ddof=1)) if len(values) > 1 else math.nan
                    facts = {"base": base, "of": root, "measure": name, "n": len(values), "of_n": len(mine)}
                    rows.append(facts | {"least": values.min(), "most": values.max(), "deviation": deviation})
    columns = ["base", "of", "measure", "n", "of_n", "least", "most", "deviation"]
    return pd.DataFrame(rows, columns=columns)


def effects(comparison: Comparison) -> pd.DataFrame:
    """Each entry against the control, paired by base run: entry, measure, n, mean, low, high, p, lucks.

    `mean` is the mean over base runs of entry minus control, [low, high] its 95 % t-interval (from two base runs on),
    `p` the exact two-sided sign test's over the differences that are not zero, `n` the number of base runs, and
    `lucks` the mean in units of the deviation among unchanged continuations (pooled over base runs).
    """
    import pandas as pd

    frame, spread = table(comparison), _pooled(luck(comparison))
    rows = []
    for entry in comparison.entries():
        mine = frame[frame["entry"] == entry].set_index("base")
        root = "plain" if (mine["kind"] == "scratch").all() else "control"
        control = frame[frame["entry"] == root].set_index("base")
        for name in COMPARED:
            both = mine.index.intersection(control.index)
            change = mine.loc[both, name] if name == "delay" else mine.loc[both, name] - control.loc[both, name]
            change = change.replace([math.inf, -math.inf], math.nan).dropna()
            if len(change):
                scale = spread.get((root, "collapse" if name == "delay" else name), math.nan)
                rows.append({"entry": entry, "measure": name} | paired(change.tolist(), scale))
    columns = ["entry", "measure", "n", "mean", "low", "high", "positive", "negative", "p", "lucks"]
    return pd.DataFrame(rows, columns=columns)


def paired(differences: list[float], scale: float = math.nan) -> dict[str, Any]:
    """The statistics of paired differences, one a base run (see `effects`)."""
    import numpy as np
    from scipy import stats

    n, mean = len(differences), float(np.mean(differences))
    half = math.nan
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * np.std(differences, ddof=1) / math.sqrt(n))
    positive, negative = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    p = stats.binomtest(positive, positive + negative).pvalue if positive + negative else 1.0
    lucks = mean / scale if scale > 0 else math.nan
    found = {"n": n, "mean": mean, "low": mean - half, "high": mean + half}
    return found | {"positive": positive, "negative": negative, "p": float(p), "lucks": lucks}


def _pooled(spread: pd.DataFrame) -> dict[tuple[str, str], float]:
    """The deviation of each measure among unchanged continuations, pooled over base runs."""
    found = {}
    for (root, name), group in spread.groupby(["of", "measure"]):
        known = group.dropna(subset="deviation")
        freedom = (known["n"] - 1).sum()
        if freedom > 0:
            found[root, name] = math.sqrt(((known["n"] - 1) * known["deviation"] ** 2).sum() / freedom)
    return found


def survival(comparison: Comparison, entry: str) -> Any:
    """The Kaplan-Meier estimate of an entry's survival after the branching point (scipy's `ecdf(...).sf`); none without
    scores. The unit is the base run."""
    from scipy.stats import ecdf

    data = _censored(comparison.of(entry))
    return None if data is None else ecdf(data).sf


def survival_tests(comparison: Comparison) -> pd.DataFrame:
    """The log-rank test of each entry against the control: entry, n, collapsed, n_control, collapsed_control, p.

    `p` is NaN where no run of either collapsed: there is nothing to tell apart.
    """
    import pandas as pd
    from scipy.stats import logrank

    rows = []
    for entry in comparison.entries():
        mine = [row for row in comparison.of(entry) if row.outcome.scored]
        root = "plain" if mine and all(row.kind == "scratch" for row in mine) else "control"
        control = [row for row in comparison.of(root) if row.outcome.scored]
        one, other = _censored(mine), _censored(control)
        if one is None or other is None:
            continue
        collapsed = [sum(row.outcome.collapse is not None for row in rows) for rows in (mine, control)]
        p = float(logrank(one, other).pvalue) if sum(collapsed) else math.nan
        facts = {"entry": entry, "n": len(mine), "collapsed": collapsed[0]}
        rows.append(facts | {"n_control": len(control), "collapsed_control": collapsed[1], "p": p})
    return pd.DataFrame(rows, columns=["entry", "n", "collapsed", "n_control", "collapsed_control", "p"])


def _censored(rows: list[Row]) -> Any:
    from scipy.stats import CensoredData

    known = [row.outcome for row in rows if row.outcome.scored]
    if not known:
        return None
    happened = [one.survived for one in known if one.collapse is not None]
    survived = [one.survived for one in known if one.collapse is None]
    return CensoredData(uncensored=happened, right=survived)

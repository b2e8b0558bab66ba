"""All detectors over a run: fed by a monitor while it trains, or over its record afterwards.

Which series a detector reads is its class here and nothing else; what it looks for is in `spectra.detect`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from spectra.detect import (
    CollapseJudgement,
    DeadDiscriminator,
    Explosions,
    Finding,
    LossJump,
    Spikes,
    judge_collapse,
)
from spectra.nearest import nearest
from spectra.record.segments import read_event_lines, read_table

if TYPE_CHECKING:
    from collections.abc import Callable

SIGMA = "sigma0/"
LOSS = ("loss/D_real", "loss/D_fake")
ALARMING = {"explosion", "loss_jump", "dead_discriminator", "collapse"}
"""The kinds of findings that are alarms. Spikes are common in a D that trains well (Section 4.2), and are not."""


class Watch(Protocol):
    """A detector on the series of a run's record."""

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """The numbers recorded at `step`, by series; a detector passes over those it does not know."""


class WatchSpectra:
    """Spikes or explosions, in each network by itself; a finding's details name the `network`."""

    def __init__(self, make: Callable[[], Spikes | Explosions]) -> None:
        self._make = make
        self._networks: dict[str, Spikes | Explosions] = {}

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Of every sigma0 among `values`."""
        layers: dict[str, dict[str, float]] = {}
        for name, value in values.items():
            if name.startswith(SIGMA):
                layer = name[len(SIGMA) :]
                layers.setdefault(layer.partition(".")[0], {})[layer] = value
        found = []
        for network, mine in layers.items():
            finding = self._networks.setdefault(network, self._make()).update(step, mine)
            if finding is not None:
                details = {"network": network, **finding.details}
                found.append(Finding(finding.kind, finding.step, finding.onset, details))
        return found


class WatchLoss:
    """Jumps of D's loss: the sum of its parts `loss/D_real` and `loss/D_fake`."""

    def __init__(self) -> None:
        self._detector = LossJump()

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Where both parts are among `values`."""
        if not all(name in values for name in LOSS):
            return []
        found = self._detector.update(step, sum(values[name] for name in LOSS))
        return [] if found is None else [found]


class WatchDiscriminator:
    """A dead D: by its training batches at every step, and by fixed images where it was asked about them."""

    evaluations = 5
    """So many in a row with the very same accuracies: no training batch repeats, fixed images do."""

    def __init__(self) -> None:
        self._batches = DeadDiscriminator()
        self._fixed = DeadDiscriminator(patience=self.evaluations)

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """Whatever of D's numbers is among `values`."""
        found = []
        if "accuracy/D_real" in values:
            spreads = [values.get(f"D/logit_std/{kind}", math.nan) for kind in ("real", "fake")]
            finding = self._batches.update(
                step,
                loss=sum(values.get(name, math.nan) for name in LOSS),
                accuracy_real=values["accuracy/D_real"],
                accuracy_fake=values.get("accuracy/D_fake", math.nan),
                spread=max(spreads) if all(map(math.isfinite, spreads)) else math.nan,
            )
            found.append((finding, "training batches"))
        if "D/accuracy/train" in values:
            real, fake = values["D/accuracy/train"], values.get("D/accuracy/fake", math.nan)
            found.append((self._fixed.update(step, accuracy_real=real, accuracy_fake=fake), "fixed images"))
        return [Finding(f.kind, f.step, f.onset, {"seen_on": where, **f.details}) for f, where in found if f]


DETECTORS: dict[str, Callable[[], Watch]] = {
    "spikes": lambda: WatchSpectra(Spikes),
    "explosions": lambda: WatchSpectra(Explosions),
    "loss_jumps": WatchLoss,
    "dead_discriminator": WatchDiscriminator,
}
"""Every online detector by name; a monitor takes all of them unless told otherwise."""

NEEDING_EVERY_STEP = ("loss_jumps",)
"""Those that count steps of D's loss, and say nothing of a record from which some were left out."""


class Detectors:
    """Several detectors as one.

    Args:
        chosen: names from `DETECTORS`; None: all of them.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, chosen: Sequence[str] | None = None) -> None:
        for name in chosen or ():
            if name not in DETECTORS:
                raise ValueError(
                    f"there is no detector {name!r}{nearest(name, DETECTORS)} There are {', '.join(DETECTORS)}"
                )
        self._members = [DETECTORS[name]() for name in (DETECTORS if chosen is None else chosen)]

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """What can be said with the numbers recorded at `step`, by series."""
        return [finding for member in self._members for finding in member.update(step, values)]

    def replay(self, run: str | Path) -> list[Finding]:
        """Read a run's record from the beginning: the same findings, and the same state afterwards, as while it ran."""
        if not self._members:
            return []
        return [finding for step, values in recorded(run) for finding in self.update(step, values)]


def recorded(run: str | Path) -> Iterator[tuple[int, dict[str, float]]]:
    """Each recorded step with the numbers that detectors read, in order."""
    import numpy as np

    table = read_table(run)
    if table is None:
        return
    column = table["name"].combine_chunks()
    names = column.dictionary.to_pylist()
    wanted = np.array([name.startswith((SIGMA, "loss/D_", "accuracy/D_", "D/")) for name in names], dtype=bool)
    codes = column.indices.to_numpy()
    rows = np.flatnonzero(wanted[codes]) if len(codes) else np.zeros(0, np.int64)
    if not len(rows):
        return
    steps, codes, values = table["step"].to_numpy()[rows], codes[rows], table["value"].to_numpy()[rows]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(steps)) + 1, [len(steps)]]).tolist()
    firsts, codes, values = steps[starts[:-1]].tolist(), codes.tolist(), values.tolist()
    for step, begin, end in zip(firsts, starts, starts[1:], strict=False):
        yield step, {names[codes[i]]: values[i] for i in range(begin, end)}


def thinned(run: str | Path) -> bool:
    """Whether the steps at which D's loss is recorded lie unevenly apart: some of them have been left out since."""
    steps = [step for step, values in recorded(run) if all(name in values for name in LOSS)]
    return len({later - earlier for earlier, later in pairwise(steps)}) > 1


def judge_events(events: Iterable[Mapping[str, Any]]) -> CollapseJudgement:
    """Collapses and recoveries, from a run's `evaluation` events (raw weights; those that a resume superseded are
    left out, and those under other settings than the last, as while it trained)."""
    rows = []
    for event in same_settings([e for e in events if e["event"] == "evaluation" and not e.get("superseded")]):
        if event.get("weights") == "raw":
            scores = event.get("scores") or {}
            numbers = [math.nan if scores.get(n) is None else float(scores[n]) for n in ("spread_share", "fid")]
            rows.append((event["step"], *numbers))
    return judge_collapse(*(zip(*rows, strict=True) if rows else ((), (), ())))


def collapse_of(events: Iterable[Mapping[str, Any]]) -> Finding | None:
    """The collapse of a run: the lasting one by its evaluations, else the first that it recovered from; where there are
    no evaluations to judge by, its first `collapse` event."""
    events = list(events)
    judged = judge_events(events)
    if judged.findings or judged.judged_until is not None:
        return judged.lasting or next(iter(judged.findings), None)
    for event in events:
        if event["event"] == "collapse" and not event.get("superseded"):
            onset = int(event.get("onset", event["step"]))
            return Finding("collapse", event["step"], onset, dict(event.get("details") or {}))
    return None


def same_settings(evaluations: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The `evaluation` events under the settings of the last one of raw weights: others' scores are other scores.

    A branch takes over its parent's evaluations, which may have had another reference or fewer samples. Events without
    settings (of a record that was thinned) count as equal.
    """
    raw = [settings for event in evaluations if event["weights"] == "raw" and (settings := settings_of(event))]
    last = raw[-1] if raw else {}
    return [event for event in evaluations if not last or settings_of(event) in ({}, last)]


def settings_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What an `evaluation` event's scores depend on, but for the kind of weights; empty where it does not say."""
    return {name: value for name, value in (evaluation.get("settings") or {}).items() if name != "weights"}


def detect_run(run: str | Path) -> list[Finding]:
    """Everything that all detectors find in a run's record and events, by the step at which it began.

    Of a record that was thinned, what needs every step (`NEEDING_EVERY_STEP`) is not looked for.

    Raises:
        FileNotFoundError: `run` is no run directory.
    """
    run = Path(run)
    if not (run / "events.jsonl").is_file() and not any((run / "records").glob("spectra-*.arrow")):
        raise FileNotFoundError(f"{run} is no run directory: it has neither records/spectra-*.arrow nor events.jsonl")
    every_step = [name for name in DETECTORS if name not in NEEDING_EVERY_STEP]
    found = Detectors(every_step if thinned(run) else None).replay(run)
    found += judge_events(read_event_lines(run)).findings
    return sorted(found, key=lambda finding: (finding.onset, finding.step))

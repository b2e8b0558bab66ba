"""All detectors over a run: called by a monitor during training, or on the finished record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from spectra.detect.detector import Detector
from spectra.detect.finding import Finding
from spectra.detect.losses import TrainingLosses
from spectra.detect.registry import find_detectors
from spectra.nearest import nearest
from spectra.record.events import read_event_lines
from spectra.record.segments import check_is_run, read_table


class Detectors:
    """Several detectors as one.

    Args:
        chosen: names from `spectra.DETECTORS`, or detectors; None: all of them.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, chosen: Sequence[str | Detector] | None = None) -> None:
        self.members = find_detectors(chosen)
        self._alarming = {kind for member in self.members if member.alarms for kind in member.kinds}

    def update(self, step: int, values: Mapping[str, float]) -> list[Finding]:
        """The findings from the numbers recorded at `step`, by series."""
        return [finding for member in self.members for finding in member.update(step, values)]

    def is_alarm(self, finding: Finding) -> bool:
        """Whether a finding of one of these detectors is an alarm."""
        return finding.kind in self._alarming

    def replay(self, run: str | Path) -> list[Finding]:
        """Read a run's record from the beginning. Findings and final state are the same as during training."""

        def wanted(name: str) -> bool:
            return any(member.wants(name) for member in self.members)

        return [finding for step, values in recorded(run, wanted) for finding in self.update(step, values)]


def recorded(run: str | Path, wanted: Callable[[str], bool]) -> Iterator[tuple[int, dict[str, float]]]:
    """Each recorded step with those of its numbers whose names are `wanted`, in order."""
    import numpy as np

    table = read_table(run)
    if table is None:
        return
    column = table["name"].combine_chunks()
    names = column.dictionary.to_pylist()
    chosen = np.array([wanted(name) for name in names], dtype=bool)
    codes = column.indices.to_numpy()
    rows = np.flatnonzero(chosen[codes]) if len(codes) else np.zeros(0, np.int64)
    if not len(rows):
        return
    steps, codes, values = table["step"].to_numpy()[rows], codes[rows], table["value"].to_numpy()[rows]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(steps)) + 1, [len(steps)]]).tolist()
    firsts, codes, values = steps[starts[:-1]].tolist(), codes.tolist(), values.tolist()
    for step, begin, end in zip(firsts, starts, starts[1:], strict=False):
        yield step, {names[codes[i]]: values[i] for i in range(begin, end)}


def left_out(run: str | Path) -> list[Detector]:
    """The detectors that need every step, if steps of their series were removed (the distances are then uneven)."""
    return [member for member in find_detectors() if member.needs_every_step and _is_thinned(run, member)]


def _is_thinned(run: str | Path, member: Detector) -> bool:
    found = recorded(run, member.wants)
    whole = [step for step, values in found if all(_has(values, name) for name in member.reads)]
    return len({later - earlier for earlier, later in pairwise(whole)}) > 1


def _has(values: Mapping[str, float], beginning: str) -> bool:
    return any(name.startswith(beginning) for name in values)


def detect_run(run: str | Path, losses: Sequence[str] = ()) -> list[Finding]:
    """Everything that all detectors find in a run's record and events, by the step at which it began.

    Detectors that need every step (`left_out`) do not run on a thinned record.

    Args:
        run: the run directory.
        losses: the names of the scalars that are losses; none: those whose names say so.

    Raises:
        ValueError: one of `losses` was not recorded.
        FileNotFoundError: `run` is not a run directory.
    """
    run = Path(run)
    check_is_run(run)
    without = {type(member) for member in left_out(run)}
    members = [member for member in find_detectors() if type(member) not in without]
    if losses:
        _check_recorded(run, losses)
        members = [one for one in members if not isinstance(one, TrainingLosses)] + [TrainingLosses(*losses)]
    detectors = Detectors(members)
    found = detectors.replay(run)
    events = read_event_lines(run)
    found += [finding for member in detectors.members for finding in member.from_events(events)]
    return sorted(found, key=lambda finding: (finding.onset, finding.step))


def _check_recorded(run: Path, losses: Sequence[str]) -> None:
    table = read_table(run)
    names = [] if table is None else table["name"].combine_chunks().dictionary.to_pylist()
    for name in losses:
        if name not in names:
            raise ValueError(f"{run} has no series {name!r}{nearest(name, names)}")

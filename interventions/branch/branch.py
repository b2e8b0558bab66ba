"""Running a branch: an ordinary run directory with a lineage, which continues with the parent's noise and data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.config import Config, differences
from biggan.errors import UserError, check_exists
from biggan.run.directory import RunDirectory
from interventions.branch.parent import Parent
from interventions.branch.timeline import Applied, Phase, Timed, Timeline, applied_from_json, make_timeline, open_ended
from interventions.changes import Change, code_of
from interventions.changes.recorded import refuse_changed_code, sources_of

if TYPE_CHECKING:
    from biggan.run.session import Session
    from biggan.training.state import TrainingState

OF_SESSIONS = {"started", "resumed", "checkpoint", "paused", "finished", "interrupted", "stopped", "changed"}
"""Events of the parent's own sessions. A branch copies all other events before its start, such as scores."""


@dataclass
class Branch:
    """A parent, and what changes from there on."""

    parent: Parent
    timeline: Timeline
    out: Path
    inherited: list[Applied] = field(default_factory=list)

    @property
    def config(self) -> Config:
        """The configuration that the branch begins with."""
        return self.timeline.phases[0].config

    @property
    def end(self) -> int:
        """Its last step."""
        return self.timeline.phases[-1].stop

    def label(self) -> str:
        """The changes in words, or `control`."""
        return "; ".join(one.timed.describe(self.parent.step) for one in self.timeline.applied) or "control"


def plan_branch(
    parent: Parent,
    changes: list[Timed],
    steps: int,
    out: str | Path | None = None,
    settings: dict[str, Any] | None = None,
    *,
    allow_change: bool = False,
) -> Branch:
    """A branch of `parent` for `steps` further steps, in `out`.

    `settings` are fields that do not decide the numbers; `allow_change` lets changes that the parent had planned begin
    with other code than theirs. Nothing is written. Raises `UserError` as `make_timeline`.
    """
    from interventions.changes import with_fields

    if steps < 1:
        raise UserError(f"--steps is {steps}, expected at least 1: the number of further steps.")
    end = parent.step + steps
    config = with_fields(parent.checkpoint.config, {**(settings or {}), "steps": end, "out": None})
    holding, coming = parent.open_changes()
    timeline = make_timeline(config, parent.step, end, changes, holding, coming, allow_change=allow_change)
    branch = Branch(parent, timeline, Path(), [*holding, *coming])
    branch.out = Path(out) if out is not None else default_out(parent, branch.label())
    return branch


def check_branch(branch: Branch) -> None:
    """Raise `UserError` if the branch could not begin; nothing is written or trained."""
    from biggan.run.folding import load_state
    from biggan.training.state import TrainingState

    check_phases(branch.timeline)
    is_of_the_parent = branch.config.model == branch.parent.checkpoint.config.model
    if is_of_the_parent and not any(phase.operations for phase in branch.timeline.phases):
        return
    state = TrainingState(branch.config, "cpu", initialize=False)
    load_state(state, branch.parent.checkpoint, branch.config)
    for phase in branch.timeline.phases:
        for change in phase.operations:
            change.check(state, phase.config)


def check_phases(timeline: Timeline) -> None:
    """Raise `UserError` if a phase's configuration names layers that its networks do not have."""
    import torch

    from biggan.choices import check_names
    from biggan.networks import build_networks
    from biggan.networks.sigma_control import sigma_controlled_layers

    for config in (phase.config for phase in timeline.phases):
        check_names(config)
        with torch.device("meta"):
            networks = build_networks(config)
        for name, network in networks._asdict().items():
            sigma_controlled_layers(config, name, network)


def default_out(parent: Parent, label: str) -> Path:
    """Beside the parent's run: NAME-at-STEP-CHANGES, or the first free of -2, -3, ..."""
    base = parent.run.path if parent.run is not None else Path("runs") / "branch"
    path = base.with_name(f"{base.name}-at-{parent.step}-{slug(label)}")
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def slug(label: str) -> str:
    """A label as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", label.replace("/", "div")).strip("-")[:80] or "unchanged"


def run_branch(branch: Branch, *, quiet: bool = False, observers: list[Any] | None = None) -> str:
    """Begin a branch and train it to its end; "finished", "interrupted" or "stopped". Raises `UserError` before
    anything is written."""
    session = open_branch(branch)
    return _train_phases(session, branch.timeline.phases, branch.out, quiet=quiet, observers=observers)


def open_branch(branch: Branch) -> Session:
    """The branch's run directory, made whole at once, with the changed state as its first checkpoint."""
    from biggan.run.session import open_branched

    parent, first = branch.parent, branch.timeline.phases[0]
    applied = [one.as_json() for one in branch.timeline.applied]

    def prepare(state: TrainingState) -> None:  # before run.json is written, which holds `applied`
        for phase in branch.timeline.phases:
            for change in phase.operations:
                change.check(state, phase.config)
        for one, said in zip(first.began, _operate(first, state), strict=True):
            if said and one in branch.timeline.applied:  # not one that the parent had planned
                applied[branch.timeline.applied.index(one)]["said"] = said

    facts: dict[str, Any] = {"parent": parent.lineage, "changes": applied}
    if branch.inherited:
        facts["inherited_changes"] = [one.as_json() for one in branch.inherited]
    if (boundary := branch.timeline.last_boundary) is not None:
        coming = [change for phase in branch.timeline.phases[1:] for change in phase.begins]
        places = [found.place for change in coming if (found := code_of(change)) is not None]
        facts["continued_by"] = {"change_files": list(dict.fromkeys(places)), "through": boundary}
    if code := sources_of(_all_changes(branch), parent.facts.get("code")):
        facts["code"] = code
    before = [] if parent.run is None else parent.run.events_that_hold(through=parent.step)
    events = [event | {"inherited": True} for event in before if event["event"] not in OF_SESSIONS]
    config = dataclasses.replace(first.config, out=str(branch.out))
    identity = parent.facts.get("data") if not _data_differs(parent.checkpoint.config, config) else None
    past = None if parent.run is None else parent.run.path
    return open_branched(config, parent.checkpoint, facts, prepare, events=events, data=identity, past=past)


def _all_changes(branch: Branch) -> list[Change]:
    """The branch's own, and those of its parent that go on or are still to come; as they begin, where they do."""
    begun = [change for phase in branch.timeline.phases for change in phase.begins]
    return [*begun, *(one.timed.change for one in [*branch.timeline.applied, *branch.inherited])]


def continue_branch(
    path: str | Path,
    *,
    steps: int | None = None,
    quiet: bool = False,
    observers: list[Any] | None = None,
    allow_change: bool = False,
) -> str:
    """Continue a branch that was stopped or killed, exactly. `steps`: the total number of steps after the branching
    point. Returns the same as `run_branch`; "finished" immediately if the branch had already ended.

    A change of somebody's own that is still to come needs its code, which the caller must have loaded (`load_file`);
    raises `UserError` where it is missing, and unless `allow_change` where it has changed since.
    """
    from biggan.run.finishing import finish_run
    from biggan.run.session import find_start

    path = Path(path)
    facts = read_facts(path)
    if not facts.get("parent"):
        raise UserError(f"{path} is not a branch: its run.json names no parent. Use biggan-train --resume.")
    start, born = find_start(path), facts["parent"]["step"]
    if start.checkpoint is None:
        raise UserError(f"{path} has no checkpoint left. Begin the branch again with another --out.")
    end = start.config.steps if steps is None else born + steps
    if start.step >= end:
        finish_run(path, start.config, start.step)
        return "finished"
    entries = applied_from_json([*facts.get("inherited_changes", []), *facts["changes"]])
    other = refuse_changed_code([one.timed.change for one in entries], allow_change=allow_change)
    config = dataclasses.replace(start.config, steps=end)
    open_changes = open_ended(entries, start.step, born)
    phases = make_timeline(config, start.step, end, [], *open_changes, allow_change=allow_change).phases
    session = _reopen(path, phases[0])
    if other:
        _keep_code(session.run, start.step, other)
    return _train_phases(session, phases, path, quiet=quiet, observers=observers)


def _keep_code(run: RunDirectory, step: int, other: Mapping[str, list[str | None]]) -> None:
    """Record that changes go on with other code than they began with: an event, and the code in run.json."""
    from biggan.run.directory import make_event
    from interventions.changes import CHANGES

    kinds = [CHANGES[name] for name in other]
    known = run.facts()
    own = {found.digest: {"file": found.name, "source": found.text} for kind in kinds if (found := code_of(kind))}
    lists = {name: [_with_new_code(one, other) for one in known[name]] for name in _LISTS if name in known}
    run.add_facts({**lists, "code": {**known.get("code", {}), **own}})
    run.append_event(make_event("other_code", step, changes=dict(other)))


_LISTS = ("changes", "inherited_changes")


def _with_new_code(entry: Mapping[str, Any], other: Mapping[str, list[str | None]]) -> dict[str, Any]:
    (name,) = entry["change"]
    return {**entry, "code": other[name][1]} if name in other else dict(entry)


def read_facts(run: Path) -> dict[str, Any]:
    """A run's run.json. Raises `UserError` where this is not a run directory."""
    if facts := RunDirectory(run).facts():
        return facts
    check_exists(run)
    raise UserError(f"{run} is not a run directory: it has no run.json.")


def _train_phases(
    session: Session, phases: list[Phase], path: Path, *, quiet: bool, observers: list[Any] | None
) -> str:
    from biggan.run.assemble import train_session

    for number, phase in enumerate(phases):
        if number:
            session = _reopen(path, phase)
        status = train_session(session, quiet=quiet, until=phase.stop, further=observers or [])
        if status not in ("paused", "finished"):
            return status
    return status


def _reopen(path: Path, phase: Phase) -> Session:
    """The branch at its newest checkpoint, with a phase's configuration and after the phase's operations."""
    from biggan.run.directory import make_event
    from biggan.run.session import find_start, open_resumed

    start = find_start(path)
    begins = start.step == phase.start and bool(phase.began or phase.ended)
    config = dataclasses.replace(phase.config, out=str(path))
    session = open_resumed(config, path, start, allow_change=begins)
    if begins:
        said = _operate(phase, session.state)
        began = [one.as_json() | {"said": words} for one, words in zip(phase.began, said, strict=True)]
        ended = [one.as_json() for one in phase.ended]
        if all(event["step"] != start.step for event in session.run.events_that_hold("changed")):  # none before a kill
            session.run.append_event(make_event("changed", start.step, began=began, ended=ended))
    return session


def _operate(phase: Phase, state: TrainingState) -> list[dict[str, Any]]:
    """Do a phase's operations on the state. Returns the report of each change that begins; settings report nothing."""
    import torch

    changes = [one.timed.change for one in phase.began]
    with torch.no_grad():
        return [(change.operate(state, phase.config) or {}) if change.operates else {} for change in changes]


def _data_differs(one: Config, other: Config) -> bool:
    return any(name.startswith("data.") for name in differences(one, other, numbers_only=True))

"""Which changes are active when: the phases of a branch, from the branching point to its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from biggan.config import Config, differences
from biggan.errors import UserError
from interventions.changes import Change, recorded_change, value_of, with_code, with_fields
from interventions.changes.recorded import facts_of


@dataclass(frozen=True)
class Timed:
    """A change from step `start` on, up to step `stop` or to the end; steps are the run's own."""

    change: Change
    start: int
    stop: int | None = None

    def describe(self, begin: int) -> str:
        """The change in words, with its steps unless it is active from the branching point `begin` to the end."""
        since = f" from {self.start}" if self.start != begin else ""
        until = f" until {self.stop}" if self.stop is not None else ""
        return f"{self.change.describe()}{since}{until}"


@dataclass(frozen=True)
class Applied:
    """A change with what it set: field -> (value before, value after), as run.json remembers it."""

    timed: Timed
    fields: dict[str, tuple[Any, Any]]

    def as_json(self) -> dict[str, Any]:
        """Its entry in the list `changes` of run.json."""
        found: dict[str, Any] = {"change": self.timed.change.spec(), "from": self.timed.start, "until": self.timed.stop}
        fields = {name: list(pair) for name, pair in self.fields.items()}
        return found | facts_of(self.timed.change) | {"fields": fields}

    def begun(self, *, allow_change: bool) -> Applied:
        """As it begins, for which its code is needed (see `with_code`)."""
        return replace(self, timed=replace(self.timed, change=with_code(self.timed.change, allow_change=allow_change)))


@dataclass(frozen=True)
class Phase:
    """Steps `start` to `stop` under one configuration; `operations` are done on the state when it begins."""

    start: int
    stop: int
    config: Config
    operations: tuple[Change, ...] = ()
    began: tuple[Applied, ...] = ()
    ended: tuple[Applied, ...] = ()

    @property
    def begins(self) -> list[Change]:
        """The changes that begin with it."""
        return [one.timed.change for one in self.began]


@dataclass
class Timeline:
    """The phases of a branch in order, and every change with what it sets."""

    phases: list[Phase]
    applied: list[Applied] = field(default_factory=list)

    @property
    def begin(self) -> int:
        """The step of the branching point."""
        return self.phases[0].start

    @property
    def last_boundary(self) -> int | None:
        """The last step at which something changes after the branching point; None for a single phase."""
        return self.phases[-1].start if len(self.phases) > 1 else None

    def at(self, step: int) -> Phase:
        """The phase of the step after `step`; the last phase if there is none later."""
        return next((phase for phase in self.phases if step < phase.stop), self.phases[-1])


def make_timeline(
    config: Config,
    begin: int,
    end: int,
    changes: list[Timed],
    holding: Iterable[Applied] = (),
    coming: Iterable[Applied] = (),
    *,
    allow_change: bool = False,
) -> Timeline:
    """The phases from step `begin` to `end` of a branch of a parent whose configuration at `begin` is `config`.

    Of a parent that has changes of its own, `holding` are those in force at `begin` that will end, `coming` those that
    will begin (see `open_ended`). Raises `UserError` for a change that changes nothing, for two changes of one field
    over the same steps, and for one that does not begin before the end; and for one of `coming` whose code this call
    has not named, or, unless `allow_change`, has named in another version.
    """
    _check_steps(changes, begin, end)
    in_force, coming, before = list(holding), list(coming), config
    phases: list[Phase] = []
    applied: list[Applied] = []
    for start, stop in itertools.pairwise(_edges(begin, end, [*changes, *(one.timed for one in in_force + coming)])):
        ended = [one for one in in_force if one.timed.stop is not None and one.timed.stop <= start]
        in_force = [one for one in in_force if one not in ended]
        for one in ended:
            config = with_fields(config, {name: old for name, (old, _) in one.fields.items()})
        began: list[Applied] = []
        for one in (one.begun(allow_change=allow_change) for one in coming if one.timed.start == start):
            config = _begin(one, in_force + began, config, before)
            began.append(one)
        for timed in (timed for timed in changes if timed.start == start):
            own = _apply(timed, config)
            config = _begin(own, in_force + began, config, before)
            began.append(own)
            applied.append(own)
        in_force += began
        operations = [one.timed.change for one in began if one.timed.change.operates]
        _check_operations(operations, start)
        phases.append(Phase(start, stop, config, tuple(operations), tuple(began), tuple(ended)))
    return Timeline(phases, applied)


def _edges(begin: int, end: int, timed: Iterable[Timed]) -> list[int]:
    """The steps at which phases meet: `begin`, `end`, and every step between at which a change begins or ends."""
    inside = {step for one in timed for step in (one.start, one.stop) if step is not None and begin < step < end}
    return sorted({begin, end} | inside)


def _begin(one: Applied, in_force: list[Applied], config: Config, before: Config) -> Config:
    """The configuration after `one` has begun, with the active changes. `before` is that of the branching point."""
    _check_apart(one, in_force, before)  # of `config`, a relative change such as /8 might not go a second time
    return with_fields(config, {name: new for name, (_, new) in one.fields.items()})


def open_ended(applied: Iterable[Applied], step: int, born: int) -> tuple[list[Applied], list[Applied]]:
    """A branch's changes that are active in its checkpoint of `step` and will end, and those that will begin.

    The checkpoint of the branching point `born` is the state after its changes; any later one, the state before them.
    """
    later = step > born
    coming = [one for one in applied if one.timed.start > step or (later and one.timed.start == step)]
    ending = [one for one in applied if one.timed.stop is not None and one.timed.stop >= step + (not later)]
    return [one for one in ending if one not in coming], coming


def _check_steps(changes: list[Timed], begin: int, end: int) -> None:
    for timed in changes:
        words = timed.change.describe()
        if not begin <= timed.start < end:
            raise UserError(
                f"'{words}' begins at step {timed.start}, and the branch goes from step {begin} to {end}. Choose "
                f"another --from, or more --steps."
            )
        if timed.stop is not None and timed.stop <= timed.start:
            raise UserError(f"'{words}' ends at step {timed.stop}, before it begins at {timed.start}.")
        if timed.stop is not None and not timed.change.fields_may_end:
            raise UserError(f"'{words}' acts once, at one step, so it has no end. Omit --until for it.")


def _apply(timed: Timed, config: Config) -> Applied:
    """What a change sets when it begins."""
    change = timed.change
    wanted = change.fields(config)
    changed = differences(config, with_fields(config, wanted))  # checks names and ranges
    if not changed and not change.operates:
        same = ", ".join(f"{name} is already {value_of(config, name)}" for name in wanted)
        raise UserError(f"'{change.describe()}' changes nothing: {same}. For an unchanged branch, give --control.")
    return Applied(timed, changed)


def _check_apart(one: Applied, holding: list[Applied], config: Config) -> None:
    """Raise `UserError` where a change that holds sets a field that `one` sets."""
    mine = one.timed.change
    for other in holding:
        if shared := sorted(set(other.timed.change.fields(config)) & set(mine.fields(config))):
            raise UserError(
                f"'{other.timed.change.describe()}' and '{mine.describe()}' both set {shared[0]} over the same steps. "
                f"Omit one, or let one end (--until) where the other begins (--from)."
            )


def _check_operations(operations: list[Change], step: int) -> None:
    seen: dict[str, Change] = {}
    for change in operations:
        for subject in change.touches():
            if subject in seen:
                raise UserError(
                    f"'{seen[subject].describe()}' and '{change.describe()}' both set {subject} at step {step}. Omit "
                    f"one."
                )
            seen[subject] = change


def applied_from_json(entries: Iterable[Mapping[str, Any]]) -> list[Applied]:
    """The changes listed in a branch's run.json, without running any code (see `recorded_change`)."""
    found = []
    for entry in entries:
        timed = Timed(recorded_change(entry), entry["from"], entry["until"])
        found.append(Applied(timed, {name: (old, new) for name, (old, new) in entry.get("fields", {}).items()}))
    return found

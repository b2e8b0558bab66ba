"""Changes as the files of runs and plans list them.

Reading them runs no code: a change of somebody's own stands for itself by what was recorded of it, until its code is
needed, and then the call must have named that code.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from biggan.config import Config
from biggan.errors import UserError
from interventions.changes.base import CHANGES, Change, make_change
from interventions.changes.code import code_of


@dataclass(frozen=True)
class RecordedChange(Change):
    """A change whose code this call has not named, or has named in another version."""

    called: str
    arguments: Any
    home: str | None = None
    """The file that it was loaded from when it was made."""
    code: str | None = None
    """The digest of that file."""
    recorded: Mapping[str, Any] = field(default_factory=dict)
    """The fields that it set, with their values."""

    def fields(self, config: Config) -> dict[str, Any]:
        """What it set when it was made."""
        return dict(self.recorded)

    @property
    def operates(self) -> bool:
        """Not known, and never done."""
        return False

    def spec(self) -> dict[str, Any]:
        """As it was recorded."""
        return {self.called: self.arguments}

    def describe(self) -> str:
        """Its name and all its recorded arguments."""
        given = dict(self.arguments) if isinstance(self.arguments, Mapping) else {"value": self.arguments}
        network = given.pop("network", None)
        words = [f"{'' if n == 0 else f'{key} '}{one}" for n, (key, one) in enumerate(given.items())]
        return " ".join(part for part in (self.called, network, ", ".join(words)) if part)


def facts_of(change: Change) -> dict[str, Any]:
    """What is kept of a change's code beside the change: `defined_in` and `code`, its file and the digest of its text;
    nothing of the package's own."""
    if isinstance(change, RecordedChange):
        return {k: v for k, v in (("defined_in", change.home), ("code", change.code)) if v is not None}
    found = code_of(change)
    return {} if found is None else {"defined_in": found.place, "code": found.digest}


def sources_of(changes: Iterable[Change], before: Mapping[str, Any] | None = None) -> dict[str, dict[str, str]]:
    """The text of the files that these changes came from, by digest, for run.json. `before` is the same of the run
    that some of them were recorded in."""
    known = dict(before or {})
    for change in changes:
        if (found := code_of(change)) is not None:
            known[found.digest] = {"file": found.name, "source": found.text}
    wanted = {facts_of(change).get("code") for change in changes}
    return {digest: source for digest, source in known.items() if digest in wanted}


def recorded_change(entry: Mapping[str, Any]) -> Change:
    """The change of an entry of run.json or plan.json, without running any code: where this call knows no such code, or
    another version of it, a `RecordedChange`. Raises `UserError` for an entry that is none."""
    try:
        ((name, arguments),) = entry["change"].items()
        values = {str(one): new for one, (_, new) in entry.get("fields", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"a list of changes has an entry that is no change: {entry!r:.200}.") from error
    stored = RecordedChange(str(name), arguments, entry.get("defined_in"), entry.get("code"), values)
    return make_change(stored.called, arguments) if why_not(stored) is None else stored


def why_not(stored: RecordedChange) -> str | None:
    """Why the code that this call knows under its name is not its code; None: it is."""
    kind = CHANGES.get(stored.called)
    if kind is None:
        return f"the change '{stored.called}' is not one of the package's, and this call names no code that has it"
    own, is_package = code_of(kind), kind.__module__.startswith("interventions.")
    if is_package and not (stored.home or stored.code):
        return None
    if is_package or (stored.code is not None and (own is None or own.digest != stored.code)):
        now = own.digest[:16] if own is not None else "none"
        return (
            f"the code of the change '{stored.called}' has changed since it was recorded: its digest was "
            f"{(stored.code or 'none')[:16]}, and that of the code given now is {now}"
        )
    return None


def with_code(change: Change, *, allow_change: bool = False) -> Change:
    """The change itself, of which this call must have named the code. Raises `UserError`, with the option to give,
    where it has not, and where the code is another one and `allow_change` is off."""
    if not isinstance(change, RecordedChange):
        return change
    why = why_not(change)
    kind = CHANGES.get(change.called)
    if why is None or (allow_change and kind is not None and not kind.__module__.startswith("interventions.")):
        return make_change(change.called, change.arguments)
    if kind is None:
        place = shlex.quote(change.home) if change.home else "FILE"
        raise UserError(
            f"{why}. Code is taken from the command line alone: read the file, and give --change-file {place} (as it "
            f"was then it is in the run's run.json, under `code`)."
        )
    raise UserError(f"{why}. Give the file as it was (--change-file), or --allow-change to go on with this one.")


def changed_code(changes: Iterable[Change]) -> dict[str, list[str | None]]:
    """The recorded changes of which this call has named other code: name -> [digest then, digest now]."""
    found: dict[str, list[str | None]] = {}
    for change in changes:
        if isinstance(change, RecordedChange) and (kind := CHANGES.get(change.called)) and why_not(change):
            now = code_of(kind)
            found[change.called] = [change.code, None if now is None else now.digest]
    return found


def refuse_changed_code(changes: Iterable[Change], *, allow_change: bool) -> dict[str, list[str | None]]:
    """As `changed_code`. Raises `UserError` for the first of them unless `allow_change`."""
    changes = list(changes)
    found = changed_code(changes)
    if found and not allow_change:
        with_code(next(one for one in changes if isinstance(one, RecordedChange) and one.called in found))
    return found

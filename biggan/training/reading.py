"""The images that a trainer reads, and what is recorded of broken ones, whichever rank met them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from biggan.config import Config
from biggan.data.images import Source
from biggan.data.loader import training_batches
from biggan.distributed.collectives import from_main, gather_objects
from biggan.errors import ReportedByOtherRank, UserError
from biggan.run.directory import RunDirectory

EVENT = "broken_image"


class Reading:
    """A session's batches. Every rank has one; what its methods say of broken images holds on all of them alike."""

    def __init__(self, config: Config, source: Source, run: RunDirectory, step: int) -> None:
        """What earlier sessions recorded up to `step` stays as it was: the same images take the places again."""
        # Only rank 0 reads the run's files.
        recorded = from_main(recorded_pairs(run.events_that_hold(EVENT, step)))
        source.train.recall_skipped(recorded)
        source.train.take_skipped()
        self._known = set(recorded)
        self.batches = training_batches(config, source, step)

    @property
    def is_blocked(self) -> bool:
        """Whether this rank cannot read the next step."""
        return self.batches.error is not None

    def begin(self, step: int) -> bool:
        """Read the first step; whether some rank cannot."""
        self.batches.read_ahead(step)
        return any(gather_objects(self.is_blocked))

    def skipped(self, step: int) -> list[dict[str, Any]]:
        """The fields of the events of the images replaced up to `step` on all ranks, each image once in a run."""
        mine = [{**asdict(one), "drawn_at": at} for at, one in self.batches.take_skipped(step)]
        fresh = []
        for one in (one for part in gather_objects(mine) for one in part):
            if one["index"] not in self._known:
                self._known.add(one["index"])
                fresh.append(one)
        return fresh

    def error(self) -> Unreadable | None:
        """Why the next step cannot be read, by the first rank that cannot; None: all can."""
        error = self.batches.error
        own = error and (str(error), getattr(error, "name", ""), getattr(error, "why", ""))
        found = [one for one in gather_objects(own) if one]
        if not found:
            return None
        return Unreadable(*found[0])


class Unreadable:
    """A step that could not begin."""

    def __init__(self, text: str, name: str, why: str) -> None:
        self.text, self.name, self.why = text, name, why

    def event(self) -> dict[str, Any]:
        """The fields of the event `broken_image`."""
        return {"name": self.name, "why": self.why or self.text, "instead": None}

    def refusal(self, run: RunDirectory, step: int, *, is_main: bool) -> UserError:
        """The error that ends the session; rank 0 says it, whichever rank it is of."""
        if not is_main:
            return ReportedByOtherRank(self.text)
        return UserError(f"{self.text} The state after step {step} is saved in {run.path}, and --resume goes on there.")


def recorded_pairs(events: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Which image took the place of which, by events; what an event does not say rightly is left out."""
    pairs = [(event.get("index"), event.get("instead")) for event in events]
    return {one: other for one, other in pairs if type(one) is int and type(other) is int}

"""What a launch hands to its workers on their own command lines: the code that its caller named, and its permissions.

A worker looks nothing of it up in the plan, which may be somebody else's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.errors import UserError
from interventions.changes import ChangeFile, load_file

if TYPE_CHECKING:
    from interventions.study.expand import Job


@dataclass(frozen=True)
class Permit:
    """The code that a call names, and whether it trusts the cache."""

    change_files: tuple[tuple[str, str], ...] = ()
    """Files of changes, each with the digest of its text: a worker refuses another text before it runs it."""
    features: str | None = None
    """The import path of a feature network."""
    trust_cache: bool = False

    @classmethod
    def of(cls, files: Sequence[ChangeFile], features: str | None = None, *, trust_cache: bool = False) -> Permit:
        """For files that this call has loaded."""
        return cls(tuple(dict.fromkeys((file.place, file.digest) for file in files)), features, trust_cache)

    def words(self) -> list[str]:
        """As options of a worker."""
        files = [word for pair in self.change_files for word in ("--change-file", *pair)]
        features = [] if self.features is None else [f"--features={self.features}"]
        return [*files, *features, *(["--trust-cache"] if self.trust_cache else [])]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Load the files, and permit the rest. Raises `UserError` where a file has changed, before it is run."""
        from biggan.permissions import permitted

        for place, digest in self.change_files:
            load_file(place, digest)
        with permitted([self.features], trust_cache=self.trust_cache):
            yield


def read_permit(options: argparse.Namespace) -> Permit:
    """From the options that `add_permit` added."""
    return Permit(tuple(map(tuple, options.change_file)), options.features, options.trust_cache)


def add_permit(parser: argparse.ArgumentParser) -> None:
    """A worker's options, see `Permit.words`."""
    add = parser.add_argument
    add("--change-file", nargs=2, action="append", default=[], metavar=("FILE", "DIGEST"))
    add("--features", metavar="NAME")
    add("--trust-cache", action="store_true")


def refuse_other_code(before: Iterable[Job], now: Iterable[Job], folder: Path) -> None:
    """Raise `UserError` where a change of somebody's own has other code than when the plan in `folder` began."""
    known: dict[tuple[str, str], str] = {}
    for job in (*before, *now):
        for entry in (one for one in job.changes if "code" in one):
            which = job.key, json.dumps(entry["change"], sort_keys=True)
            if (then := known.setdefault(which, entry["code"])) != entry["code"]:
                raise UserError(
                    f"the code of {which[1]} in {job.key} has changed since the plan in {folder} began: its digest was "
                    f"{then[:16]} and is {entry['code'][:16]}. Give the file as it was, or choose another --out."
                )

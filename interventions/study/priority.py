"""Which entries a study runs, and in which order: what serves most claims first.

The entries are those of all shipped plans but `rescue`, whose recipes are no claims of the paper's. The same changes in
two plans are one entry, under the first one's name.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biggan.errors import UserError
from interventions.compare.claims.read import Claim, read_claims
from interventions.study.plan import Entry, Plan, read_plan, shipped_plans

FIRST_PLANS = (
    "appendix-g",
    "section-4",
    "table-1",
    "data-size",
    "penalties-D",
    "appendix-f",
    "appendix-e",
    "appendix-h",
    "d-steps",
    "small-study",
    "appendix-i",
)
"""The order of plans for entries that no claim names; other shipped plans follow."""

_RECIPES = "rescue"


@dataclass(frozen=True)
class StudyEntry:
    """An entry of a study, with the plans that hold it and the claims that need it."""

    entry: Entry
    plans: tuple[str, ...]
    claims: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The entry's name in the study."""
        return self.entry.name


def study_entries(further: Iterable[str] = (), claims: Sequence[Claim] | None = None) -> list[StudyEntry]:
    """All entries of the shipped plans and of the YAML files `further`, in the order in which a study runs them.

    First those that claims name: by the number of claims, then in the claims' order. Raises `UserError` for a file that
    is not a plan.
    """
    claims = read_claims() if claims is None else claims
    names = [*(name for name in FIRST_PLANS if name in shipped_plans())]
    names += [name for name in shipped_plans() if name not in (*names, _RECIPES)]
    found, aliases = _merged(
        [read_plan(str(path)) for path in [*further, *names]], {name for one in claims for name in one.needs}
    )
    needed: dict[str, list[Claim]] = {}
    for claim in claims:
        for name in dict.fromkeys(aliases.get(one, one) for one in claim.needs):
            needed.setdefault(name, []).append(claim)
    place = {name: number for number, name in enumerate(needed)}
    entries = [_with_claims(entry, needed.get(entry.name, [])) for entry in found.values()]
    last = len(place)
    return sorted(entries, key=lambda one: (-len(one.claims), place.get(one.name, last)))


def choose(entries: Sequence[StudyEntry], only: Sequence[str], claims: Sequence[Claim]) -> list[StudyEntry]:
    """The entries that serve claims of these places or numbers, or that are of these plans.

    A place is matched from its beginning: G is G.1 and G.2. Raises `UserError` for a word that is none of these.
    """
    if not only:
        return list(entries)
    plans = list(dict.fromkeys(name for one in entries for name in one.plans))
    chosen: set[str] = set()
    for word in only:
        stem = Path(word).stem if word.endswith((".yaml", ".yml")) else word
        by_plan = {one.name for one in entries if stem in one.plans}
        meant = {one.claim for one in claims if _is_meant(word, one)}
        if not by_plan and not meant:
            places = sorted({part for one in claims for part in _parts(one.place)})
            raise UserError(
                f"--only {word} is not a place, a claim or a plan. Places: {', '.join(places)}. Claims: "
                f"{', '.join(one.claim for one in claims)}. Plans: {', '.join(plans)}."
            )
        chosen |= by_plan | {one.name for one in entries if meant & set(one.claims)}
    return [one for one in entries if one.name in chosen]


def _is_meant(word: str, claim: Claim) -> bool:
    """Whether `word` is the claim, its number without a letter, or the beginning of its place."""
    if word in (claim.claim, re.sub(r"[a-z]+$", "", claim.claim)):
        return True
    return any(part == word or part.startswith(f"{word}.") for part in _parts(claim.place))


def _parts(place: str) -> list[str]:
    """The places in a claim's `place`: "4.2, F" are two."""
    return re.findall(r"[A-Za-z0-9]+(?:\.[0-9]+)*", place)


def _with_claims(entry: StudyEntry, claims: Sequence[Claim]) -> StudyEntry:
    names, places = tuple(one.claim for one in claims), tuple(dict.fromkeys(one.place for one in claims))
    return dataclasses.replace(entry, claims=names, places=places)


def _merged(plans: Sequence[Plan], wanted: set[str]) -> tuple[dict[str, StudyEntry], dict[str, str]]:
    """The plans' entries by name, each set of changes once; and the other names of an entry -> its name.

    Of several names of the same changes, the first that is `wanted` is taken. An entry with other changes than an
    earlier one of its name gets its plan's name before its own.
    """
    found: dict[str, StudyEntry] = {}
    aliases: dict[str, str] = {}
    names: dict[str, str] = {}
    for plan in plans:
        for entry in plan.entries:
            made_of = _changes(entry)
            if (known := names.get(made_of)) is not None:
                before = found[known]
                found[known] = dataclasses.replace(before, plans=tuple(dict.fromkeys([*before.plans, plan.name])))
                if entry.name in wanted - {known} and known not in wanted and entry.name not in found:
                    taken = found.pop(known)
                    found[entry.name] = dataclasses.replace(taken, entry=dataclasses.replace(entry, name=entry.name))
                    names[made_of], aliases[known] = entry.name, entry.name
                elif entry.name not in found:
                    aliases.setdefault(entry.name, known)
                continue
            name = entry.name if entry.name not in found else f"{plan.name}-{entry.name}"
            names[made_of] = name
            found[name] = StudyEntry(dataclasses.replace(entry, name=name), (plan.name,))
    return found, aliases


def _changes(entry: Entry) -> str:
    """What an entry does, as a text that is equal for equal changes."""
    from interventions.changes import make_change
    from interventions.study.expand import arguments_in_steps

    said: list[Any] = [entry.scratch]
    for one in entry.changes:
        change = make_change(one.name, arguments_in_steps(one.arguments, 1000)).spec()
        said.append([change, one.since, one.until])
    return json.dumps(said, sort_keys=True, default=str)

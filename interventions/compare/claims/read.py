"""Claims as claims.yaml writes them, read and checked."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_type_hints

from biggan.config.fields import has_type
from biggan.config.yaml_text import read_yaml_text
from biggan.errors import UserError, check_known

TESTS = ("more", "less")
EQUIVALENCES = ("equal", "not_less", "not_more")
CLAIM_FAMILIES = ("claims", "appendices")


@dataclass(frozen=True)
class Claim:
    """One claim; see the head of claims.yaml for the meaning of its fields."""

    claim: str
    text: str
    place: str
    definition: str
    measure: str = ""
    expect: str | tuple[float | None, float | None] = ""
    entries: tuple[str, ...] = ()
    against: str = ""
    """An entry from scratch that they are compared with instead of the unchanged runs."""
    trend: bool = False
    """Whether the entries are a sweep, in increasing order."""
    size: float | None = None
    median_at_most: float | None = None
    """For `survived` less: the median time to collapse must be at most this share of the unchanged runs'."""
    most_collapsed: float | None = None
    """For `survived` more: at most this share of the changed runs may collapse."""
    premise: str = ""
    impossible: str = ""
    scale: str = ""
    family: str = "claims"
    figure: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """The entries that must be run to judge it."""
        return (*self.entries, *((self.against,) if self.against else ()))

    @property
    def is_test(self) -> bool:
        """Whether it is decided by a test, in a family of tests; otherwise by an interval."""
        return self.expect in TESTS


def read_claims(path: str | Path | None = None) -> list[Claim]:
    """The claims of claims.yaml, or of a file in its form. Raises `UserError` for what cannot be understood."""
    return list(_shipped()) if path is None else _read(Path(path))


@functools.cache
def _shipped() -> tuple[Claim, ...]:
    """Those of claims.yaml, which several figures and tables of one page ask for."""
    return tuple(_read(resources.files("interventions.compare.claims").joinpath("claims.yaml")))


def _read(place: Traversable) -> list[Claim]:
    try:
        values = read_yaml_text(place.read_text(encoding="utf-8"), str(place))
    except (OSError, UnicodeDecodeError, UserError) as error:
        raise UserError(f"the claims in {place} cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, list) or not all(isinstance(one, Mapping) for one in values):
        raise UserError(f"{place} is not a list of claims: expected `- claim: ...` entries.")
    claims = _spelt_out([_claim(one) for one in values])
    names = [one.claim for one in claims]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{place} has two claims called {twice}.")
    return claims


def _spelt_out(claims: list[Claim]) -> list[Claim]:
    """The claims with "as 10a, ..." in a definition replaced by what stands there."""
    known = {one.claim: one.definition for one in claims}
    found = []
    for one in claims:
        same = re.fullmatch(r"as (\w+)(?:, (.*))?", one.definition)
        if same and same[1] not in known:
            raise UserError(f"claim {one.claim} is defined as claim {same[1]}, which there is not.")
        if same:
            words = known[same[1]] + (f" ({same[2]})" if same[2] else "")
            one = dataclasses.replace(one, definition=words)
        found.append(one)
    return found


def _claim(given: Mapping[str, Any]) -> Claim:
    where = f"claim {given.get('claim', '?')}"
    fields = [field.name for field in dataclasses.fields(Claim)]
    for key in given:
        check_known(key, fields, f"key of {where}:")
    if missing := [name for name in ("claim", "text", "place", "definition") if not given.get(name)]:
        raise UserError(f"{where} has no {' and no '.join(missing)}.")
    values = dict(given) | {
        "claim": str(given["claim"]),
        "place": str(given["place"]),
        "text": str(given["text"]),
        "definition": str(given["definition"]),
        "entries": _names(given.get("entries"), where),
    }
    if isinstance(values.get("expect"), list):
        values["expect"] = tuple(values["expect"])
    hints = get_type_hints(Claim)
    if isinstance(values.get("expect"), tuple):  # its length is checked below
        hints["expect"] = tuple[float | None, ...]
    for name, value in values.items():
        if not has_type(value, hints[name]):
            raise UserError(
                f"{name} of {where} is {value!r:.60}, expected {getattr(hints[name], '__name__', hints[name])}."
            )
    claim = Claim(**values)
    _check(claim, where)
    return claim


def _names(given: Any, where: str) -> tuple[str, ...]:
    if given is not None and not isinstance(given, (list, tuple)):
        raise UserError(f"entries of {where} is {given!r:.60}, expected a list of names.")
    return tuple(map(str, given or ()))


def _check(claim: Claim, where: str) -> None:
    from interventions.compare.claims.measures import check_measure
    from interventions.compare.claims.premises import PREMISES

    check_known(claim.family, CLAIM_FAMILIES, f"family of {where}:")
    if claim.impossible:
        return
    check_measure(claim.measure, where)
    if claim.premise != "":
        check_known(str(claim.premise), PREMISES, f"premise of {where}:")
    if isinstance(claim.expect, str):
        check_known(claim.expect, [*TESTS, *EQUIVALENCES], f"expect of {where}:")
    elif len(claim.expect) != 2 or claim.expect == (None, None):
        raise UserError(f"expect of {where} is {list(claim.expect)}, expected [low, high] with a number in it.")

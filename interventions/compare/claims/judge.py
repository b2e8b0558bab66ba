"""Judges the paper's claims on a study, each by the one primary measure that claims.yaml names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from interventions.compare.claims.effects import Effect, rows_of
from interventions.compare.claims.measures import measure_effect
from interventions.compare.claims.premises import FIXED_PREMISES, PREMISES
from interventions.compare.claims.read import Claim, read_claims
from interventions.compare.collect import Comparison
from interventions.compare.permutation import LEVEL, bases_needed, holm, least_p

if TYPE_CHECKING:
    import pandas as pd

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "undecided"
NO_PREMISE, NOT_RUN, IMPOSSIBLE = "premise not met", "not run", "not testable here"
MOST_NEEDED = 100


@dataclass(frozen=True)
class Verdict:
    """What a study says of one claim.

    Attributes:
        premise: what must hold for the claim to be testable, and whether it does (`premise_met`; None: nothing asked).
        n: base runs.
        effect, low, high: the effect over base runs in `unit` ("ratio", "steps", "difference", "share" or
            "correlation"), and its 95 % interval; NaN: not known.
        p, p_holm: exact and two-sided, alone and after Holm's correction over the family; NaN: decided by the interval.
        least_p: the smallest p_holm that this design could give.
        bases_needed: base runs, in all, that would probably decide it; None: decided, or not known.
        verdict: "supported", "contradicted", "undecided", "premise not met", "not run" or "not testable here".
        reason: what happened, and what it needs.
    """

    claim: str
    text: str
    place: str
    definition: str
    premise: str
    premise_met: bool | None
    n: int
    measure: str
    unit: str
    effect: float
    low: float
    high: float
    p: float
    p_holm: float
    least_p: float
    bases_needed: int | None
    verdict: str
    reason: str
    entries: tuple[str, ...]
    figure: str | None
    family: str
    scale: str

    def as_json(self) -> dict[str, Any]:
        """Its fields; numbers that are not finite are None."""
        values = asdict(self)
        return {key: None if isinstance(one, float) and not math.isfinite(one) else one for key, one in values.items()}


def judge_claims(comparison: Comparison, claims: Sequence[Claim] | None = None) -> list[Verdict]:
    """A verdict for every claim of claims.yaml, or of `claims`.

    - a test ("more" or "less") is *supported* if p, after Holm's correction over all tests of its family, run or not,
      is at most 0.05 in the claimed direction, and the effect is as large as the claim says; *contradicted* if that
      holds the other way, or if the 95 % interval excludes the size that the claim says;
    - a region ("makes no difference", "stays near 1") is *supported* if the 95 % interval lies wholly inside it, and
      *contradicted* if wholly outside;
    - otherwise it is *undecided*; so is what would be supported while some of the claim's entries have not been run.
    """
    claims = read_claims() if claims is None else claims
    premises = {name: test(comparison) for name, test in PREMISES.items()}
    effects = {one.claim: None if one.impossible else measure_effect(comparison, one) for one in claims}
    adjusted: dict[str, float] = {}
    sizes: dict[str, int] = {}
    for family in dict.fromkeys(one.family for one in claims):
        tests = [one for one in claims if one.family == family and _is_tested(one, premises)]
        values = [math.nan if (found := effects[one.claim]) is None else found.p for one in tests]
        adjusted |= {one.claim: p for one, p in zip(tests, holm(values), strict=True)}
        sizes |= {one.claim: len(tests) for one in tests}
    return [
        _judge(
            one,
            effects[one.claim],
            premises.get(one.premise),
            adjusted.get(one.claim, math.nan),
            sizes.get(one.claim, 1),
            _not_run(comparison, one),
        )
        for one in claims
    ]


def _not_run(comparison: Comparison, claim: Claim) -> list[str]:
    """The claim's entries of which no run has ended."""
    return [entry for entry in claim.entries if not any(row.outcome.done for row in rows_of(comparison, [entry]))]


def _is_tested(claim: Claim, premises: dict[str, tuple[bool, str]]) -> bool:
    """Whether it is one of the tests of its family, which must not depend on how the runs went."""
    excluded = claim.premise in FIXED_PREMISES and not premises[claim.premise][0]
    return claim.is_test and not claim.impossible and not excluded


def _judge(
    claim: Claim,
    effect: Effect | None,
    premise: tuple[bool, str] | None,
    p_holm: float,
    tests: int,
    missing: Sequence[str],
) -> Verdict:
    found = effect or Effect(0, "")
    least = math.nan
    if claim.is_test and found.sizes:
        least = min(1.0, tests * least_p(found.sizes))
    if claim.impossible:
        verdict, reason = IMPOSSIBLE, claim.impossible
    elif premise is not None and not premise[0] and (effect or claim.premise in FIXED_PREMISES):
        verdict, reason = NO_PREMISE, premise[1]
    elif effect is None:
        verdict, reason = NOT_RUN, "no run that it needs has ended"
    elif claim.is_test:
        verdict, reason = _of_test(claim, found, p_holm, least)
    else:
        verdict, reason = _of_region(claim, found)
    needed = _needed(claim, found, least, tests) if verdict == UNDECIDED else None
    needs = _needs(needed, found.n, verdict)
    if verdict == SUPPORTED and missing:  # it is about all of them
        verdict, needs = UNDECIDED, f"holds for what was run, but not run yet: {', '.join(missing)}"
    elif verdict == CONTRADICTED and missing:
        needs = f"by what was run; not run yet: {', '.join(missing)}"
    words = [one for one in (found.words if effect else "", reason, needs) if one]
    return Verdict(
        claim=claim.claim, text=claim.text, place=claim.place, definition=claim.definition,
        premise="" if premise is None else premise[1], premise_met=None if premise is None else premise[0],
        n=found.n, measure=claim.measure, unit=found.unit, effect=found.effect, low=found.low, high=found.high,
        p=found.p if claim.is_test else math.nan, p_holm=p_holm, least_p=least, bases_needed=needed,
        verdict=verdict, reason="; ".join(words), entries=claim.entries, figure=claim.figure or None,
        family=claim.family, scale=claim.scale,
    )  # fmt: skip


def _needs(needed: int | None, n: int, verdict: str) -> str:
    if verdict != UNDECIDED:
        return ""
    if needed is None:
        return "how many more base runs would decide it is not known"
    more = needed - n
    if more > MOST_NEEDED:
        return f"needs more than {MOST_NEEDED} more base runs"
    return f"needs {more} more base run{'' if more == 1 else 's'}"


def _of_test(claim: Claim, effect: Effect, p_holm: float, least: float) -> tuple[str, str]:
    claimed = 1 if claim.expect == "more" else -1
    if excluded := _excluded(claim, effect):
        return CONTRADICTED, excluded
    if not p_holm <= LEVEL:
        bound = f"whatever the effect, this design gives no smaller p (Holm) than {least:.2g}"
        return UNDECIDED, bound if least > LEVEL else "no clear effect"
    if effect.n < 2:
        return UNDECIDED, "one base run decides nothing"
    if effect.toward != claimed:
        return CONTRADICTED, "the effect goes the other way"
    missing = _too_small(claim, effect)
    return (UNDECIDED, f"in the claimed direction, but {missing}") if missing else (SUPPORTED, "")


def _excluded(claim: Claim, effect: Effect) -> str:
    """Whether the 95 % interval excludes the size that the claim says, in words."""
    if claim.size is not None:
        if claim.expect == "more" and effect.high < claim.size:
            return f"the interval lies below the {claim.size:g} of the claim"
        if claim.expect == "less" and effect.low > claim.size:
            return f"the interval lies above the {claim.size:g} of the claim"
    if claim.most_collapsed is not None and effect.collapsed[1]:
        from scipy.stats import binomtest

        low = binomtest(*effect.collapsed).proportion_ci(0.95, method="exact").low
        if low > claim.most_collapsed:
            return f"at least {low:.0%} of such runs collapse (95 % interval)"
    return ""


def _too_small(claim: Claim, effect: Effect) -> str:
    """How an effect in the claimed direction falls short of the claim's size; empty if it does not."""
    size = effect.middle if math.isnan(effect.effect) else effect.effect
    if claim.size is not None and not (size - claim.size) * (1 if claim.expect == "more" else -1) >= 0:
        return f"smaller than the {claim.size:g} of the claim"
    if claim.median_at_most is not None and math.isnan(effect.median_ratio):
        return "the unchanged runs collapse at once as well"
    if claim.median_at_most is not None and not effect.median_ratio <= claim.median_at_most:
        return f"the median is {effect.median_ratio:.2f} of the unchanged runs', not at most {claim.median_at_most:g}"
    collapsed, of = effect.collapsed
    if claim.most_collapsed is not None and collapsed > claim.most_collapsed * of:
        return f"more than {claim.most_collapsed:.0%} of them collapsed"
    return ""


def region_of(claim: Claim, effect: Effect) -> tuple[float, float]:
    """The region of the effect that a claim names; NaN if it depends on a deviation that is not known."""
    if isinstance(claim.expect, tuple):
        low, high = claim.expect
        return (-math.inf if low is None else low), (math.inf if high is None else high)
    margin = effect.deviation  # of a ratio, on the logarithm
    bounds = (math.exp(-margin), math.exp(margin)) if effect.unit == "ratio" else (-margin, margin)
    low = -math.inf if claim.expect == "not_more" else bounds[0]
    return low, math.inf if claim.expect == "not_less" else bounds[1]


def _of_region(claim: Claim, effect: Effect) -> tuple[str, str]:
    low, high = region_of(claim, effect)
    words = f"claimed: {_bounds(low, high, effect.unit)}"
    if not isinstance(claim.expect, tuple) and effect.deviation == 0:
        return UNDECIDED, "the unchanged runs do not differ, so that there is no scale for an effect"
    if any(map(math.isnan, (low, high, effect.low, effect.high))):
        return UNDECIDED, f"{words}; no interval is known"
    if low <= effect.low and effect.high <= high:
        return SUPPORTED, words
    if effect.high < low or effect.low > high:
        return CONTRADICTED, words
    return UNDECIDED, f"{words}; the interval is not wholly inside or outside"


def _bounds(low: float, high: float, unit: str) -> str:
    least, most = (f"{one:.0%}" if unit == "share" and math.isfinite(one) else f"{one:.3g}" for one in (low, high))
    if math.isinf(low):
        return f"at most {most}"
    return f"at least {least}" if math.isinf(high) else f"{least} to {most}"


def _needed(claim: Claim, effect: Effect, least: float, tests: int) -> int | None:
    """Base runs that would probably decide it: those that make significance reachable, and those that narrow an
    interval like this one enough, if the effect stays where it is."""
    if claim.is_test and effect.sizes and least > LEVEL:
        return max(_reaching(effect, effect.sizes, tests), effect.n + 1)
    half = _half_width(effect)
    if not half or not math.isfinite(half):
        return None
    distance = _distance(claim, effect)
    if claim.is_test:
        from scipy.stats import norm

        half *= float(norm.isf(LEVEL / 2 / tests) / norm.isf(0.025))
    return max(effect.n + 1, math.ceil(effect.n * (half / distance) ** 2)) if distance else None


def _reaching(effect: Effect, sizes: Sequence[tuple[int, int]], tests: int) -> int:
    """Base runs with which the smallest p of the design reaches the level; of runs from scratch, which are one group,
    with as many unchanged ones at least."""
    if len(sizes) == effect.n:
        return bases_needed(sizes, tests) or 0
    changed, unchanged = (sum(one[i] for one in sizes) for i in (0, 1))
    for n in range(effect.n, effect.n + MOST_NEEDED):
        if tests * least_p([(max(1, changed * n // effect.n), max(unchanged, n))]) <= LEVEL:
            return n
    return effect.n + MOST_NEEDED + 1


def _half_width(effect: Effect) -> float:
    if effect.unit == "ratio" and effect.low > 0:
        return math.log(effect.high / effect.low) / 2
    return (effect.high - effect.low) / 2


def _distance(claim: Claim, effect: Effect) -> float:
    """How far the effect lies from the nearest place where the verdict changes."""
    ratio = effect.unit == "ratio" and effect.effect > 0
    place = math.log if ratio else float
    if claim.is_test:
        from interventions.compare.claims.measures import OWN

        null = OWN.get(claim.measure, ("", 1.0 if ratio else 0.0))[1]
        return abs(place(effect.effect) - place(null))
    edges = [edge for edge in region_of(claim, effect) if math.isfinite(edge) and (edge > 0 or not ratio)]
    return min((abs(place(effect.effect) - place(edge)) for edge in edges), default=0.0)


def verdicts_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row per claim: every field of `Verdict`."""
    import pandas as pd

    frame = pd.DataFrame([asdict(one) | {"entries": " ".join(one.entries)} for one in verdicts])
    return frame.astype({"bases_needed": "Int64"}) if len(frame) else frame

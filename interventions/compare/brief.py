"""The tables of a comparison with the few measures and columns that matter most, for a terminal of 120 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interventions.compare.collect import Comparison
from interventions.compare.tables import MEASURES, NO_SCORES, SEED_VARIATION, SHOWN, sections

if TYPE_CHECKING:
    import pandas as pd

IN_BRIEF = {
    "collapse": "collapse at",
    "delay": "delay",
    "best_fid_raw_median5": "best FID",
    "final_fid_raw_median5": "final FID",
    "last_fid_raw": "last FID",
    "last_spread_raw": "spread",
    "D_loss_end": "D's loss",
    "G_sigma0_growth": "sigma_0",
}
"""The measures that are shown, and their names here."""
NOT_SHOWN = ("least p (Holm)", "bases needed", "p (sign)", "method")
"""Columns of the tests that only --all shows."""
IN_SHORT = {
    "Seed variation": SEED_VARIATION,
    "Runs": (
        "'none by STEP': no collapse began up to this step. Best and final FID: medians of five evaluations. spread: "
        "of the samples, at the last evaluation; 1 is that of real images. D's loss: at the end. sigma_0: the largest "
        "growth in a layer of G, as a ratio. nan, inf: recorded values. -: not known."
    ),
    "Changes": (
        "p: exact rank test against all unchanged runs of the same base run; p (Holm): corrected over the entries. "
        "effect: in standard deviations among unchanged runs. mean, interval and signs: entry minus its own control."
    ),
    "Survival": (
        "n: runs with all seeds. p: exact; it asks whether the collapse came at another time than in unchanged runs."
    ),
}
"""What the columns mean, by the beginning of the title."""


def brief_sections(comparison: Comparison) -> list[tuple[str, str, pd.DataFrame | None]]:
    """As `sections`, with fewer measures, columns and words."""
    return [_brief(comparison, *section) for section in sections(comparison)]


def _brief(
    comparison: Comparison, title: str, words: str, frame: pd.DataFrame | None
) -> tuple[str, str, pd.DataFrame | None]:
    short = next(text for beginning, text in IN_SHORT.items() if title.startswith(beginning))
    if "This design cannot" in words:
        short += words[words.index("This design cannot") - 1 :]
    if frame is None:
        return title, short, frame
    several = len({row.base for row in comparison.rows}) > 1
    if title == "Runs":
        names = {"base": "base run", "entry": "entry"}
        names |= {SHOWN[name]: short_name for name, short_name in IN_BRIEF.items()}
        shown = frame[[name for name in names if name in frame]].rename(columns=names)
        return title, short if comparison.scored else NO_SCORES, shown if several else shown.drop(columns="base run")
    if "measure" in frame:
        names = {MEASURES[name]: short_name for name, short_name in IN_BRIEF.items()}
        frame = frame[frame["measure"].isin(names)].assign(measure=lambda rows: rows["measure"].map(names))
    gone = [*NOT_SHOWN, *(() if several else ("base run", "bases"))]
    if "not finite" in frame and set(map(str, frame["not finite"])) <= {"0"}:
        gone.append("not finite")
    return title, short, frame[[name for name in frame if name not in gone]]

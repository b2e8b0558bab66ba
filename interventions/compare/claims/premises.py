"""Premises of claims: what must hold of a study for a claim to be testable by it, and the reason in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from biggan.errors import UserError
from interventions.compare.collect import Comparison, Row

if TYPE_CHECKING:
    from biggan.config import Config


def _controls_collapse(comparison: Comparison) -> tuple[bool, str]:
    bases = dict.fromkeys(row.base for row in comparison.rows if row.arm == "control")
    rows = [row for base in bases for row in comparison.unchanged(base, "control")]
    return _collapses(rows, "unchanged branches")


def _d_steps_delay(comparison: Comparison) -> tuple[bool, str]:
    from interventions.compare.claims.survived import survived_effect

    found = survived_effect(comparison, ("d-steps-2",))
    delayed = found is not None and found.low > 0
    return delayed, "more D steps delay the collapse" if delayed else "more D steps do not clearly delay the collapse"


def _plain_collapses(comparison: Comparison) -> tuple[bool, str]:
    return _collapses([row for row in comparison.rows if row.arm == "plain"], "unchanged runs from scratch")


def _collapses(rows: Sequence[Row], what: str) -> tuple[bool, str]:
    bases = {row.base for row in rows if row.outcome.at_risk}
    collapsed = {row.base for row in rows if row.outcome.at_risk and row.outcome.collapse is not None}
    return len(collapsed) >= 2, f"{what} collapse in {len(collapsed)} of {len(bases)} base runs (at least 2 needed)"


def _spectral_norm_d(comparison: Comparison) -> tuple[bool, str]:
    configs = [config for row in comparison.rows if (config := _config(row)) is not None]
    on = bool(configs) and all(config.model.spectral_norm_D for config in configs)
    words = "D has Spectral Normalization" if on else "D has no Spectral Normalization, so its scale is free"
    return on, words


def _config(row: Row) -> Config | None:
    """The configuration of a run, if its record still has it."""
    from biggan.run.directory import RunDirectory

    if row.arm not in ("plain", "control") or not (row.outcome.path / "config.yaml").is_file():
        return None
    try:
        return RunDirectory(row.outcome.path).read_config()
    except (UserError, OSError):
        return None


PREMISES: dict[str, Callable[[Comparison], tuple[bool, str]]] = {
    "controls_collapse": _controls_collapse,
    "d_steps_delay": _d_steps_delay,
    "plain_collapses": _plain_collapses,
    "spectral_norm_D": _spectral_norm_d,
}
FIXED_PREMISES = ("spectral_norm_D",)
"""Premises on the configuration: known before any run, so that a claim without it is no test of the family."""

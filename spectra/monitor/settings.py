"""What is wrong with a monitor's settings is said when it is made, and not in the middle of training."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

from spectra.nearest import nearest

GUARANTEES = ("certified", "tracked")


def check_settings(run: Any, *, start_step: Any, top_k: Any, tol: Any, guarantee: Any, certify_every: Any) -> None:
    """Raise `TypeError` or `ValueError` where a setting of a monitor is of another kind, or out of its range."""
    if not isinstance(run, str | os.PathLike):
        raise TypeError(f"run is the path of a run directory; got {type(run).__name__}")
    for name, value, least in (
        ("start_step", start_step, 0),
        ("top_k", top_k, 1),
        ("certify_every", certify_every, 1),
    ):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is a whole number, at least {least}; got {value!r}")
    if not isinstance(tol, int | float) or not 0 < tol < 1:
        raise ValueError(f"tol is the largest relative error of a singular value, between 0 and 1; got {tol!r}")
    if guarantee not in GUARANTEES:
        known = " or ".join(map(repr, GUARANTEES))
        raise ValueError(f"guarantee is {known}; got {guarantee!r}{nearest(str(guarantee), GUARANTEES)}")


def check_announced(step: int, method: str, networks: Iterable[str], called: Collection[str]) -> None:
    """Raise `RuntimeError` if `method` was not called for one of the networks before `after_step(step)`."""
    missing = next((name for name in networks if name not in called), None)
    if missing is not None:
        raise RuntimeError(
            f"after_step({step}) was called without {method}({missing!r}), which every step needs for each network. "
            "Call after_step when all networks have been updated, or choose probes that need neither gradients nor "
            "updates: probes=['singular_values', 'frobenius']"
        )

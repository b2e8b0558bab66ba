"""How quantities are drawn: the chart that a probe declares, and what is drawn beside those."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectra.detect.losses import LOSS_NAME

if TYPE_CHECKING:
    from spectra.monitor.probes import Probe


@dataclass(frozen=True)
class Chart:
    """A quantity of a probe over the steps, with a line for each layer or parameter: in TensorBoard and in a figure.

    Attributes:
        title: the heading, after the network's name (for the frame "scalars": without it).
        quantity: the part of the series' names before the slash.
        label: the title in a figure, which may be mathtext; empty: `title`.
        log: whether a figure has a log scale.
    """

    title: str
    quantity: str
    label: str = ""
    log: bool = True


SCALAR_CHARTS: dict[str, str] = {"losses": LOSS_NAME}
"""TensorBoard's charts of scalars that no probe measures: title, and a pattern for the names of the series."""

MARKED_EVENTS: dict[str, str] = {
    "alarm": "red",
    "spike": "darkorange",
    "non_finite": "magenta",
    "first_non_finite": "magenta",
    "changed": "black",
}
"""The kinds of events that figures mark, and their colours."""


def charts_of(probes: Iterable[Probe | type[Probe]], *frames: str) -> list[Chart]:
    """The charts of those probes whose quantities are in one of the `frames` of `spectra.load`."""
    return [chart for probe in probes if probe.frame in frames for chart in probe.charts]


def literal(text: object) -> str:
    """A name as it is, for matplotlib: what stands between two dollars would be a formula to it."""
    return str(text).replace("$", r"\$")

"""The spectra panels in TensorBoard: custom charts with every layer as a line, and pictures of the same.

TensorBoard draws all lines of a custom chart in one colour and excludes outliers from its scale, which hides an
explosion. So the same panels, coloured by depth on a log scale, are also written as images. A thread of TensorBoard
does the writing; a measured step costs at most one event.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.draw.bursts import without_bursts
from spectra.draw.charts import SCALAR_CHARTS, charts_of
from spectra.extensions import load_extensions

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from spectra.monitor.probes import Probe

MOST_POINTS = 2000  # from this step on, a series is thinned to about this many points per factor of e
FIRST_PICTURE, PICTURE_FACTOR = 200, 4  # pictures take seconds, so they become rarer and rarer
LEAST_NEW = 20  # least measurements since the last picture for another one at the end

PICTURES = "2-pictures/spectra"
"""TensorBoard opens the first two groups of its sorted tags: one of losses can have a name that begins with 1."""


class Panels:
    """Writes a monitor's numbers for TensorBoard.

    Args:
        log: a folder for an event file of their own, which TensorBoard shows as one run (not one that another writer
            uses, of which TensorBoard would read one only); or the `torch.utils.tensorboard.SummaryWriter` of a
            training, which writes its scalars itself and closes it.
        run: the run directory, from whose record the pictures are drawn.
        networks: their names.
        probes: those that measure, whose charts are shown.
        start_step: what an earlier session wrote past this step is purged.
    """

    def __init__(
        self,
        log: str | Path | SummaryWriter,
        run: str | Path,
        networks: Iterable[str],
        probes: Sequence[Probe],
        start_step: int = 0,
    ) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
        from torch.utils.tensorboard.summary import custom_scalars

        load_extensions()
        self.run, self.networks, self.probes = Path(run), list(networks), list(probes)
        self._shares = not isinstance(log, str | Path)
        self._writer: EventFileWriter = (
            EventFileWriter(str(log)) if isinstance(log, str | Path) else log._get_file_writer().event_writer
        )
        if start_step and not self._shares:
            session = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=start_step + 1, session_log=session))
        self._add(0, custom_scalars(layout(self.networks, self.probes)))
        quantities = [re.escape(chart.quantity) for probe in self.probes for chart in probe.charts]
        self._charted = re.compile("|".join(f"{quantity}/.*" for quantity in quantities) or "(?!)")
        measured = [re.escape(q).replace(r"\*", r"\d+") for probe in self.probes for q in probe.quantities]
        self._measured = re.compile("|".join(f"{quantity}/.*" for quantity in measured) or "(?!)")
        self._next = start_step
        self._picture = FIRST_PICTURE
        while self._picture <= start_step:
            self._picture *= PICTURE_FACTOR
        self._last, self._new = start_step, 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One event with the series that the charts show and all scalars that nobody else writes, unless the last one
        is too near."""
        self._last, self._new = step, self._new + 1
        if step < self._next:
            return
        self._next = step + max(1, step // MOST_POINTS)
        self.add(step, {n: v for n, v in values.items() if self._charted.fullmatch(n)} if self._shares else values)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """As `write`, however near the last one is: for what is measured rarely."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        shown = {name: value for name, value in values.items() if self._is_shown(name)}
        for name, value in values.items():
            quantity, _, layer = name.partition("/")
            if quantity == "sigma0" and (second := values.get(f"sigma1/{layer}")):
                shown[f"ratio/{layer}"] = value / second
        self._add(step, Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in shown.items()]))

    def _is_shown(self, name: str) -> bool:
        """Of what a probe measures, the charts' series; of the rest, everything, whatever its name."""
        return bool(self._charted.fullmatch(name)) or not self._measured.fullmatch(name)

    def picture_is_due(self, step: int) -> bool:
        """Whether `draw` should be called, the record being written up to `step`."""
        return step >= self._picture

    def draw(self, step: int) -> None:
        """Pictures of each network's panels up to now, from the record."""
        import io

        from tensorboard.compat.proto.summary_pb2 import Summary

        from spectra.draw.figures import network_rows
        from spectra.record.frames import load

        while self._picture <= step:
            self._picture *= PICTURE_FACTOR
        charts = charts_of(self.probes, "spectra")
        if not charts:
            return
        frames = without_bursts(load(self.run))
        for network in set(frames["spectra"].network) & set(self.networks):
            file = io.BytesIO()
            figure = network_rows(frames, [network], charts)
            figure.savefig(file, format="png", dpi=80)
            width, height = (int(side * 80) for side in figure.get_size_inches())
            image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file.getvalue())
            self._add(step, Summary(value=[Summary.Value(tag=f"{PICTURES}/{network}", image=image)]))
        self._new = 0

    def close(self, draw: bool = True) -> None:
        """Draw the last picture, where enough came after the one before, and write what is held back."""
        if draw and self._new >= LEAST_NEW:
            self.draw(self._last)
        self._writer.flush() if self._shares else self._writer.close()

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def layout(networks: Iterable[str], probes: Sequence[Probe]) -> dict[str, dict[str, list]]:
    """The custom charts: those of the training, then one a quantity and network, with every layer as a line."""
    training = SCALAR_CHARTS | {c.title: f"{re.escape(c.quantity)}/.*" for c in charts_of(probes, "scalars")}
    charts = {"training": {title: ["Multiline", [f"^{pattern}$"]] for title, pattern in training.items()}}
    charts |= {
        f"{network}: spectra": {
            f"{network} {chart.title}": ["Multiline", [f"^{re.escape(chart.quantity)}/{re.escape(network)}([./].*)?$"]]
            for chart in charts_of(probes, "spectra", "gradients", "embeddings")
        }
        for network in networks
    }
    return charts

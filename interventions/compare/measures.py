"""The measures computed from one run's record: D's loss and accuracies, growth and shape of the spectra.

A measure is None if nothing was recorded, or if the record does not contain enough to compute it. It is NaN or Inf if
that was recorded, because the run's numbers then broke. Measures that need every step are None for a record with gaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Numbers = dict[str, float | None]

LOSS_STEPS = 10
ACCURACIES = ("accuracy/D_real", "accuracy/D_fake", "D/accuracy/train", "D/accuracy/val", "D/accuracy/fake")
MEMORY = ("D/auc/train_val", "D/auc/real_fake", "D/auc/val_fake", "D/gap/train_val")
"""How much D memorizes of fixed images, independent of the offset of its output."""
_NETWORKS = ("G", "D")
STORED = "outcome.json"
"""The file with the numbers of the whole record, beside a thinned one."""


def record_numbers(scalars: pd.DataFrame, sigmas: pd.DataFrame, begin: int) -> tuple[Numbers, dict[str, str | None]]:
    """Every measure of a record after step `begin`, and the layers of the spectral ones.

    Args:
        scalars: of `spectra.load`.
        sigmas: of `read_sigmas`.
        begin: the branching point.
    """
    after = scalars[scalars["step"] > begin]
    whole = not has_gaps(after)
    numbers: Numbers = _losses(after) | _accuracies(after)
    layers: dict[str, str | None] = {}
    sigmas = sigmas[sigmas["step"] > begin]
    for network in _NETWORKS:
        mine = sigmas[sigmas["network"] == network]
        for name, (value, layer) in {"growth": _growth(mine), "ratio": _ratio_at_end(mine)}.items():
            column = f"{network}_sigma0_growth" if name == "growth" else f"{network}_sigma_ratio_end"
            numbers[column], layers[f"{column}_layer"] = value, layer
    numbers["D_spikes_per_1000"] = _spikes(sigmas[sigmas["network"] == "D"], begin) if whole else None
    return numbers, layers


def d_loss(scalars: pd.DataFrame) -> pd.Series:
    """D's loss, real and fake parts added, by step; a part that is NaN makes the sum NaN."""
    parts = [_series(scalars, name) for name in ("loss/D_real", "loss/D_fake")]
    known = [part for part in parts if len(part)] or parts
    both = known[0].index.intersection(known[-1].index)
    return sum(part.loc[both] for part in known)


def has_gaps(scalars: pd.DataFrame) -> bool:
    """Whether steps of D's loss are missing, as in a thinned record; a run records it at every step."""
    return not _consecutive(d_loss(scalars))


def read_sigmas(path: Path, spectra: pd.DataFrame) -> pd.DataFrame:
    """sigma0 and sigma1 as recorded: step, layer, network, out, rest, sigma0, sigma1, and has_sigma1, whether that was
    recorded. `spectra` is the frame of `spectra.load`, in which NaN also stands for what was not measured."""
    import pandas as pd

    from spectra.record.segments import read_record

    record = read_record(path)
    categories = list(record["name"].cat.categories)
    values: dict[str, dict[tuple[int, str], float]] = {}
    for quantity in ("sigma0", "sigma1"):
        chosen = [i for i, name in enumerate(categories) if name.startswith(f"{quantity}/")]
        mine = record[record["name"].cat.codes.isin(chosen)]
        layers = [name.partition("/")[2] for name in mine["name"]]
        values[quantity] = dict(zip(zip(mine["step"], layers, strict=True), mine["value"], strict=True))
    facts = spectra[["layer", "network", "out", "rest"]].drop_duplicates("layer")
    of = {str(one.layer): (str(one.network), one.out, one.rest) for one in facts.itertuples()}
    rows = [
        (
            step,
            layer,
            *of[layer],
            value,
            values["sigma1"].get((step, layer), math.nan),
            (step, layer) in values["sigma1"],
        )
        for (step, layer), value in values["sigma0"].items()
        if layer in of
    ]
    columns = ["step", "layer", "network", "out", "rest", "sigma0", "sigma1", "has_sigma1"]
    return pd.DataFrame(rows, columns=columns)


def stored_numbers(path: Path, begin: int) -> tuple[Numbers, dict[str, str | None]] | None:
    """What `store_numbers` wrote beside a thinned record of a branch from step `begin`; None if there is no readable
    file."""
    try:
        found = json.loads((path / STORED).read_text(encoding="utf-8"))
        if found["begin"] != begin:
            return None
        numbers = {name: None if value is None else float(value) for name, value in found["numbers"].items()}
        return numbers, dict(found["layers"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def store_numbers(path: Path, begin: int, numbers: Numbers, layers: Mapping[str, str | None]) -> None:
    """Write the numbers of a whole record where its thinned copy is."""
    texts = {name: value if value is None or math.isfinite(value) else str(value) for name, value in numbers.items()}
    facts = {"begin": begin, "of": "the whole record", "numbers": texts, "layers": dict(layers)}
    (path / STORED).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _series(scalars: pd.DataFrame, name: str) -> pd.Series:
    """A quantity by step; of a step that is there twice, the last."""
    import pandas as pd

    mine = (scalars["name"] == name).to_numpy(dtype=bool)
    steps, values = (scalars[column].to_numpy()[mine] for column in ("step", "value"))
    series = pd.Series(values, index=pd.Index(steps, name="step"), name="value")
    return series if series.index.is_unique else series[~series.index.duplicated(keep="last")]


def _consecutive(series: pd.Series) -> bool:
    return len(series) == 0 or int(series.index[-1]) - int(series.index[0]) + 1 == len(series)


def _mean(series: pd.Series) -> float | None:
    """The mean of consecutive steps; None where steps are missing between them."""
    return float(series.mean(skipna=False)) if len(series) and _consecutive(series) else None


def _losses(after: pd.DataFrame) -> Numbers:
    """D's loss: means over the first and the last ten steps, its parts at the end, and the largest mean over ten
    consecutive steps, because one step shows only a single batch."""
    loss = d_loss(after)
    numbers = {"D_loss_start": _mean(loss[:LOSS_STEPS]), "D_loss_end": _mean(loss[-LOSS_STEPS:])}
    numbers["D_loss_peak_mean10"] = _peak(loss) if _consecutive(loss) else None
    for part in ("real", "fake"):
        numbers[f"D_loss_{part}_end"] = _mean(_series(after, f"loss/D_{part}")[-LOSS_STEPS:])
    return numbers


def _peak(loss: pd.Series) -> float | None:
    import numpy as np

    values = loss.to_numpy(dtype=float)
    if not len(values):
        return None
    if not np.isfinite(values).all():
        return float(values.max())  # NaN before Inf
    windows = np.lib.stride_tricks.sliding_window_view(values, min(LOSS_STEPS, len(values)))
    return float(windows.mean(axis=1).max())


def _accuracies(after: pd.DataFrame) -> Numbers:
    """D's accuracies at the end: on its training batches (a mean over ten) and on fixed images (the last value), and
    how
    much D memorizes of the fixed images."""
    series = {name: _series(after, name) for name in (*ACCURACIES, *MEMORY)}
    return {name: _mean(one[-LOSS_STEPS if name.startswith("accuracy") else -1 :]) for name, one in series.items()}


def _growth(sigmas: pd.DataFrame) -> tuple[float | None, str | None]:
    """The largest growth of a layer's sigma0 relative to its first value, and the layer; NaN or Inf comes first."""
    found = {str(layer): _growth_of(mine["sigma0"].to_numpy()) for layer, mine in sigmas.groupby("layer", sort=False)}
    return _largest(found)


def _growth_of(values: np.ndarray) -> float | None:
    import numpy as np

    if not np.isfinite(values).all():
        return float(values.max())
    return float(values.max() / values[0]) if values[0] > 0 else None  # of a layer of zeros there is none


def _ratio_at_end(sigmas: pd.DataFrame) -> tuple[float | None, str | None]:
    """The largest sigma0 / sigma1 of any layer at the last measurement, over matrices that have a sigma1."""
    known = sigmas[sigmas["has_sigma1"].astype(bool) & (sigmas["sigma0"] != 0)]
    known = known[(known[["out", "rest"]].min(axis=1) != 1) & (known["step"] == known["step"].max())]
    ratios = {
        str(one.layer): float(one.sigma0) / float(one.sigma1) if one.sigma1 != 0 else math.inf
        for one in known.itertuples()
    }
    return _largest(ratios)


def _largest(found: Mapping[str, float | None]) -> tuple[float | None, str | None]:
    known = {layer: value for layer, value in found.items() if value is not None}
    if not known:
        return None, None
    layer = max(known, key=lambda one: (math.isnan(known[one]), known[one]))
    return known[layer], layer


def _spikes(sigmas: pd.DataFrame, begin: int) -> float | None:
    """Spikes of D's sigma0 per 1,000 steps; NaN if any sigma0 was not finite."""
    import numpy as np

    from spectra.detect.sigma import spikes

    if sigmas.empty:
        return None
    if not np.isfinite(sigmas["sigma0"]).all():
        return math.nan
    table = sigmas.pivot_table(index="step", columns="layer", values="sigma0")
    layers: dict[str, Any] = {str(name): table[name].tolist() for name in table}
    steps = [int(step) for step in table.index]
    return 1000 * len(spikes(steps, layers)) / (steps[-1] - begin)

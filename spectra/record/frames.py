"""A run's record as tidy frames: `spectra.load`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectra.record.events import read_events
from spectra.record.segments import check_is_run, read_table_and_legend

if TYPE_CHECKING:
    import pandas as pd

OF_MATRICES = re.compile(r"sigma\d+|frobenius|sigma_estimate")  # what records without a legend hold of each matrix


def load(run: str | Path) -> dict[str, pd.DataFrame]:
    """What was recorded of a run, while it trains or after, as pandas frames.

    Returns:
        A mapping with

        - "spectra": one row a measured step and weight matrix: step, network, layer, kind, depth (position in its
          network), out and rest (the matrix is out x rest), sigma0, sigma1, ..., ratio (sigma0 / sigma1), residual
          (the largest of them, in units of sigma), converged (1 or 0), guarantee ("certified", "tracked" or "none"; see
          `spectra.Monitor`), frobenius, stable_rank (the square of
          frobenius / sigma0), sigma_estimate (Spectral Normalization's own) and sigma_lag (1 - estimate / sigma0),
          then what further probes recorded of matrices (Section 4.1, Appendix F);
        - "gradients": one row a measured step and parameter: step, network, parameter, depth, gradient_norm,
          relative_update, ...;
        - "embeddings": step, network, layer, class, class_norm (Appendix H);
        - "scalars": step, name, value: all else;
        - "events": event, step, time, superseded, details (a dict), from events.jsonl.

        NaN stands where nothing was recorded, and where NaN was; Inf is Inf. Names are categories, with the network in
        front: "G.linear". `spectra.rows_named(frame, "G.linear")` takes the rows of one.

    Raises:
        FileNotFoundError: the directory holds neither a record nor events.
    """
    run = Path(run)
    table, legend = read_table_and_legend(run)
    events = read_events(run)
    check_is_run(run)
    series = _Series(table, legend)
    return {
        "spectra": _spectra(series),
        "gradients": _gradients(series),
        "embeddings": _embeddings(series),
        "scalars": _scalars(series),
        "events": events,
    }


def gradient_variance_in_time(gradients: pd.DataFrame, window: int = 20) -> pd.DataFrame:
    """How much each network's whole gradient norm varies over measurements: step, network, norm, variance.

    `gradients` is the frame that `load` gives; `norm` is the length of all of a network's gradients together, and
    `variance` the population's over the last `window` measurements. Computed from the record, so that it is the same
    however often the run was resumed. NaN until there are two, and while a norm that is not finite is in the window.
    """
    import numpy as np

    squares = gradients.assign(square=gradients.gradient_norm**2)
    sums = squares.groupby(["network", "step"], observed=True, sort=True).square.sum(min_count=1)
    found = np.sqrt(sums).reset_index(name="norm")
    rolling = found.groupby("network", observed=True).norm.rolling(window, min_periods=2)
    found["variance"] = rolling.var(ddof=0).to_numpy()
    return found[["step", "network", "norm", "variance"]]


class _Series:
    """The record's rows with each name taken apart once: quantity, subject, and the frame it belongs to."""

    def __init__(self, table: Any, legend: Mapping[str, Any]) -> None:
        names: list[str] = []
        self.steps = self.codes = np.zeros(0, np.int64)
        self.values = np.zeros(0)
        if table is not None and table.num_rows:
            column = table["name"].combine_chunks()
            self.steps, self.values = table["step"].to_numpy(), table["value"].to_numpy()
            self.codes, names = column.indices.to_numpy(), column.dictionary.to_pylist()
        self.names = names
        self.pairs = [tuple(name.split("/", 1)) if "/" in name else (name, "") for name in names]
        self.parameters = {name: _facts(fact) for name, fact in legend.get("parameters", {}).items()}
        self.layers = {name: _facts(fact) for name, fact in legend.get("layers", {}).items()}
        frames = legend.get("frames", {})
        if "layers" not in legend:  # an older record, or one of scalars alone: what the names themselves tell
            found = dict.fromkeys(subject for quantity, subject in self.pairs if OF_MATRICES.fullmatch(quantity))
            self.layers = _layers_by_name(list(found))
            frames = {quantity: "spectra" for quantity, _ in self.pairs if OF_MATRICES.fullmatch(quantity)}
        known = {"spectra": set(self.layers), "gradients": set(self.parameters), "embeddings": set(self.layers)}
        self.frames = []
        for quantity, subject in self.pairs:
            frame = frames.get(quantity, "scalars")
            if frame == "embeddings":
                subject, _, number = subject.rpartition("/")
                frame = frame if re.fullmatch(r"\d{1,18}", number, re.ASCII) else "scalars"
            self.frames.append(frame if subject in known.get(frame, ()) else "scalars")

    def of(self, frame: str) -> np.ndarray:
        """Which rows belong to a frame."""
        chosen = np.array([f == frame for f in self.frames], dtype=bool)
        return np.flatnonzero(chosen[self.codes]) if len(self.codes) else np.zeros(0, np.int64)

    def wide(self, frame: str) -> tuple[np.ndarray, np.ndarray, list[str], dict[str, np.ndarray]]:
        """A frame's numbers with one row a step and subject, one column a quantity.

        Returns each row's step and subject (as an index), the subjects, and the columns. Steps without a subject's
        numbers have no row.
        """
        rows = self.of(frame)
        members = [i for i, f in enumerate(self.frames) if f == frame]
        quantities = list(dict.fromkeys(self.pairs[i][0] for i in members))
        subjects = list(dict.fromkeys(self.pairs[i][1] for i in members))
        if not len(rows):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), subjects, {}
        column_of, subject_of = (np.zeros(len(self.names), np.int64) for _ in range(2))
        place = {name: i for i, name in enumerate(subjects)}, {name: i for i, name in enumerate(quantities)}
        for i in members:
            quantity, subject = self.pairs[i]
            subject_of[i], column_of[i] = place[0][subject], place[1][quantity]
        steps, codes = self.steps[rows], self.codes[rows]
        # Steps only grow, so that their numbering needs no sorting.
        number = np.concatenate([[0], np.cumsum(steps[1:] != steps[:-1])])
        cells = number * len(subjects) + subject_of[codes]
        size = (int(number[-1]) + 1) * len(subjects)
        there = np.zeros(size, dtype=bool)
        there[cells] = True
        dense = np.full((len(quantities), size), np.nan)
        dense[column_of[codes], cells] = self.values[rows]
        kept = np.flatnonzero(there)
        first = np.concatenate([[0], np.flatnonzero(steps[1:] != steps[:-1]) + 1])
        columns = {name: dense[i, kept] for i, name in enumerate(quantities)}
        return steps[first][kept // len(subjects)], kept % len(subjects), subjects, columns


def _facts(fact: Mapping[str, Any]) -> dict[str, Any]:
    """What a legend says of a layer or a parameter; where it says nothing that can be meant, as of one unknown."""

    def number(value: Any) -> int:
        return value if isinstance(value, int) and abs(value) < 2**63 else 0

    shape = fact.get("shape")
    shape = list(map(number, shape))[:2] if isinstance(shape, list) else []
    words = {name: str(fact.get(name, default)) for name, default in (("network", ""), ("kind", "unknown"))}
    return {**words, "depth": number(fact.get("depth")), "shape": [*shape, 0, 0][:2]}


def _layers_by_name(names: list[str]) -> dict[str, dict[str, Any]]:
    """Layers of a record without a legend: the network is what stands before the first dot, depth is the order."""
    seen: dict[str, int] = {}
    found = {}
    for name in names:
        network = name.partition(".")[0] if "." in name else ""
        found[name] = {"network": network, "kind": "unknown", "depth": seen.setdefault(network, 0), "shape": [0, 0]}
        seen[network] += 1
    return found


def _category(codes: np.ndarray, values: list[str]) -> pd.Categorical:
    """Rows of `values` by index as a categorical, equal values as one category."""
    import pandas as pd

    unique = list(dict.fromkeys(values))
    place = {value: i for i, value in enumerate(unique)}
    return pd.Categorical.from_codes(np.array([place[v] for v in values], dtype=np.int32)[codes], unique)


def _number(codes: np.ndarray, values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)[codes]


def _spectra(series: _Series) -> pd.DataFrame:
    import pandas as pd

    steps, subject, names, columns = series.wide("spectra")
    facts = [series.layers[name] for name in names]
    nothing = np.full(len(steps), np.nan)
    sigmas = sorted((c for c in columns if re.fullmatch(r"sigma\d+", c)), key=lambda c: int(c[5:]))
    sigmas += [c for c in ("sigma0", "sigma1", "sigma2") if c not in sigmas]
    tracked = columns.pop("tracked", nothing) == 1
    take = {name: columns.get(name, nothing) for name in (*sigmas, "residual", "converged", "frobenius")}
    estimate = columns.get("sigma_estimate", nothing)
    with np.errstate(all="ignore"):
        derived = {
            "ratio": take["sigma0"] / take["sigma1"],
            "stable_rank": (take["frobenius"] / take["sigma0"]) ** 2,
            "sigma_estimate": estimate,
            "sigma_lag": 1 - estimate / take["sigma0"],
        }
    codes = np.where(tracked, 1, np.where(take["converged"] == 1, 0, 2)).astype(np.int8)
    guarantee = {"guarantee": pd.Categorical.from_codes(codes, ["certified", "tracked", "none"])}
    frame = {
        "step": steps,
        "network": _category(subject, [fact["network"] for fact in facts]),
        "layer": _category(subject, names),
        "kind": _category(subject, [fact["kind"] for fact in facts]),
        "depth": _number(subject, [fact["depth"] for fact in facts]),
        "out": _number(subject, [fact["shape"][0] for fact in facts]),
        "rest": _number(subject, [fact["shape"][1] for fact in facts]),
    }
    further = {name: values for name, values in columns.items() if name not in take and name not in derived}
    return pd.DataFrame(frame | take | guarantee | derived | further)


def _gradients(series: _Series) -> pd.DataFrame:
    import pandas as pd

    steps, subject, names, columns = series.wide("gradients")
    facts = [series.parameters[name] for name in names]
    nothing = np.full(len(steps), np.nan)
    frame = {
        "step": steps,
        "network": _category(subject, [fact["network"] for fact in facts]),
        "parameter": _category(subject, names),
        "depth": _number(subject, [fact["depth"] for fact in facts]),
        "gradient_norm": columns.get("gradient_norm", nothing),
        "relative_update": columns.get("relative_update", nothing),
    }
    return pd.DataFrame(frame | columns)


def _embeddings(series: _Series) -> pd.DataFrame:
    import pandas as pd

    steps, subject, names, columns = series.wide("embeddings")
    layers = [name.rpartition("/")[0] for name in names]
    frame = {
        "step": steps,
        "network": _category(subject, [series.layers[layer]["network"] for layer in layers]),
        "layer": _category(subject, layers),
        "class": _number(subject, [int(name.rpartition("/")[2]) for name in names]),
        "class_norm": columns.get("class_norm", np.full(len(steps), np.nan)),
    }
    return pd.DataFrame(frame | columns)


def _scalars(series: _Series) -> pd.DataFrame:
    import pandas as pd

    rows = series.of("scalars")
    members = [i for i, frame in enumerate(series.frames) if frame == "scalars"]
    place = np.zeros(len(series.names), np.int64)
    place[members] = np.arange(len(members))
    names = _category(place[series.codes[rows]], [series.names[i] for i in members])
    return pd.DataFrame({"step": series.steps[rows], "name": names, "value": series.values[rows]})

"""What changed between two checkpoints, layer by layer: what `spectra scan --compare` prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spectra.linalg.result import TopSingularValues
from spectra.linalg.topk import top_singular_values
from spectra.networks.checkpoint_files import StoredWeight, read_weights
from spectra.networks.fused_attention import split_fused_attention
from spectra.networks.matrices import as_matrix
from spectra.networks.scan import FAILURES, NOT_FINITE, first_line, matrix_shape, with_transposed

CHANGE_SORT_KEYS = ("network", "name", "change")

LARGEST_ERROR = 0.02
"""Of the sine of an angle; where the vectors are known less well, there is no angle."""


@dataclass(frozen=True)
class LayerChange:
    """One weight in two checkpoints, A (before) and B (after).

    Attributes:
        name, kind: of the layer.
        shape: (out, rest).
        sigma_before, sigma_after: the leading singular values, descending.
        angle_left, angle_right: the largest angle between the spaces of A's and B's leading left (right) singular
            vectors, in degrees, 0 to 90. NaN where the vectors are not determined to a degree: where sigma_k - 1, the
            last of them, and sigma_k are too close to tell their spaces apart.
        frobenius_before, frobenius_after: the Frobenius norms.
        frobenius_change: that of B - A.
        converged: all singular values are within the tolerance times sigma_0.
        reason: why there is nothing to compare, or None.
    """

    name: str
    kind: str
    shape: tuple[int, int]
    sigma_before: tuple[float, ...] = ()
    sigma_after: tuple[float, ...] = ()
    angle_left: float = math.nan
    angle_right: float = math.nan
    frobenius_before: float = math.nan
    frobenius_after: float = math.nan
    frobenius_change: float = math.nan
    converged: bool = False
    reason: str | None = None

    @property
    def relative_change(self) -> float:
        """|B - A| / |A| in Frobenius norms: Inf where A is zero and B is not, NaN where both are."""
        if self.frobenius_before == 0:
            return math.inf if self.frobenius_change > 0 else math.nan
        return self.frobenius_change / self.frobenius_before

    @property
    def sigma_ratio(self) -> float:
        """sigma_0 of B over that of A; NaN where there is none, or A is zero."""
        if not self.sigma_before or not self.sigma_after or self.sigma_before[0] == 0:
            return math.nan
        return self.sigma_after[0] / self.sigma_before[0]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become None."""
        numbers = ("sigma_ratio", "angle_left", "angle_right", "frobenius_before", "frobenius_after")
        return {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "sigma_before": [_number(value) for value in self.sigma_before],
            "sigma_after": [_number(value) for value in self.sigma_after],
            **{name: _number(getattr(self, name)) for name in (*numbers, "frobenius_change", "relative_change")},
            "converged": self.converged,
            "reason": self.reason,
        }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def compare_checkpoints(
    before: str | Path,
    after: str | Path,
    k: int = 3,
    method: str = "auto",
    tol: float = 1e-5,
    everything: bool = False,
    sort: str = "network",
    on_progress: Callable[[int, int, str], None] | None = None,
    transposed: Sequence[str] = (),
    split_qkv: bool = False,
) -> list[LayerChange]:
    """What changed from one checkpoint to another, a row for each weight of either.

    Layers are the same where their names are; where no name is in both, those of one file may have one beginning more
    ("state_dict.").

    Args:
        before, after: as `spectra.scan`'s path.
        k: how many singular values, and the dimension of the subspaces.
        method, tol, everything, transposed, split_qkv, on_progress: as `spectra.scan`.
        sort: "network", "name", or "change": |B - A| / |A|, descending, after the rows that have none.

    Raises:
        WeightFileError: one is not a checkpoint.
        ValueError: an argument is out of its range.
    """
    if sort not in CHANGE_SORT_KEYS:
        raise ValueError(f"sort is one of {', '.join(CHANGE_SORT_KEYS)} in a comparison; got {sort!r}")
    top_singular_values(torch.ones(1, 1), k, method, tol)  # raises what is wrong with these, once
    old, new = (_weights(path, everything, transposed, split_qkv) for path in (before, after))
    old, new = _by_common_names(old, new)
    changes = []
    names = [*old, *(name for name in new if name not in old)]
    for done, name in enumerate(names):
        if on_progress:
            on_progress(done, len(names), name)
        changes.append(_change(name, old.get(name), new.get(name), k, method, tol))
    if on_progress:
        on_progress(len(names), len(names), "")
    if sort == "name":
        return sorted(changes, key=lambda change: change.name)
    return sorted(changes, key=_by_change) if sort == "change" else changes


def _by_change(change: LayerChange) -> tuple[bool, float]:
    value = change.relative_change
    return (not math.isnan(value), -value if not math.isnan(value) else 0.0)


def _weights(path: str | Path, everything: bool, transposed: Sequence[str], split_qkv: bool) -> dict[str, StoredWeight]:
    weights = with_transposed(read_weights(path, everything).weights, transposed)
    return {weight.name: weight for weight in (split_fused_attention(weights) if split_qkv else weights)}


_Weights = dict[str, StoredWeight]


def _by_common_names(old: _Weights, new: _Weights) -> tuple[_Weights, _Weights]:
    """Both files' weights; where no name is in both, one side's without the beginning that makes most names common."""
    if old.keys() & new.keys():
        return old, new
    return _shortened(old, new), _shortened(new, old)


def _shortened(weights: _Weights, others: _Weights) -> _Weights:
    ends = {name.rpartition(".")[2]: name for name in others}
    beginnings = {
        name.removesuffix(ends[end]) for name in weights if (end := name.rpartition(".")[2]) in ends
        and name.endswith(f".{ends[end]}")
    }  # fmt: skip
    counts = {start: sum(f"{start}{name}" in weights for name in others) for start in sorted(beginnings)}
    if not counts:
        return weights
    start = max(counts, key=lambda start: counts[start])
    return {name.removeprefix(start): weight for name, weight in weights.items()}


def _change(
    name: str, old: StoredWeight | None, new: StoredWeight | None, k: int, method: str, tol: float
) -> LayerChange:
    """The row of one weight."""
    present = old or new
    assert present is not None
    without = LayerChange(name, present.kind, matrix_shape(present))

    def because(reason: str) -> LayerChange:
        return LayerChange(without.name, without.kind, without.shape, reason=reason)

    if old is None or new is None:
        return because(f"only in {'A' if old else 'B'}")
    for letter, weight in (("A", old), ("B", new)):
        if weight.reason is not None:
            return because(f"in {letter}: {weight.reason}")
    if old.shape != new.shape:
        return because(f"{' x '.join(map(str, old.shape))} in A, {' x '.join(map(str, new.shape))} in B")
    try:
        matrices = [as_matrix(weight.read(), old.transposed or new.transposed) for weight in (old, new)]
        return _measured(name, old.kind, matrices[0], matrices[1], k, method, tol)
    except FAILURES as error:
        return because(first_line(error))


def _measured(name: str, kind: str, old: Tensor, new: Tensor, k: int, method: str, tol: float) -> LayerChange:
    shape = (old.shape[0], old.shape[1])
    k = min(k, *shape)
    found = [top_singular_values(matrix, k + 1, method, tol) for matrix in (old, new)]  # one more, for the gap
    left, right = _angles(found[0], found[1], k)
    broken = [letter for letter, one in zip("AB", found, strict=True) if not one.finite]
    return LayerChange(
        name=name,
        kind=kind,
        shape=shape,
        sigma_before=tuple(found[0].values[:k].tolist()),
        sigma_after=tuple(found[1].values[:k].tolist()),
        angle_left=left,
        angle_right=right,
        frobenius_before=_norm(old),
        frobenius_after=_norm(new),
        frobenius_change=_norm(new.double() - old),
        converged=all(one.converged for one in found),
        reason=f"in {' and '.join(broken)}: {NOT_FINITE}" if broken else None,
    )


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.vector_norm(matrix, dtype=torch.float64))


def _angles(old: TopSingularValues, new: TopSingularValues, k: int) -> tuple[float, float]:
    """The largest angles between the leading k left and right singular vectors, in degrees."""
    if not old.finite or not new.finite or sum(_error(one, k) for one in (old, new)) > LARGEST_ERROR:
        return math.nan, math.nan
    return largest_angle(old.left[:, :k], new.left[:, :k]), largest_angle(old.right[:, :k], new.right[:, :k])


def _error(found: TopSingularValues, k: int) -> float:
    """A bound of the sine by which the leading k vectors are off: residual over gap (Wedin's theorem)."""
    following = float(found.values[k]) if len(found.values) > k else 0.0
    gap = float(found.values[k - 1]) - following
    return float(found.residuals[:k].norm()) / gap if gap > 0 else math.inf


def largest_angle(first: Tensor, second: Tensor) -> float:
    """The largest principal angle between the spaces of two matrices' columns (n x k each), in degrees."""
    first, second = (torch.linalg.qr(vectors.double())[0] for vectors in (first, second))
    shared = first.T @ second
    cosine = float(torch.linalg.svdvals(shared)[-1])
    sine = float(torch.linalg.svdvals(second - first @ shared)[0])
    return math.degrees(math.atan2(sine, cosine))  # accurate at both ends, unlike either alone

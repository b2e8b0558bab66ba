"""The spectra of every weight in a checkpoint: what `spectra scan` prints."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spectra.linalg.topk import top_singular_values
from spectra.networks.checkpoint_files import StoredWeight, as_transposed, read_weights
from spectra.networks.convolutions import Convolution, check_size, has_operator, stored_operator
from spectra.networks.fused_attention import split_fused_attention
from spectra.networks.matrices import as_matrix

SORT_KEYS = ("network", "name", "sigma", "ratio", "frobenius", "stable_rank")


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one weight.

    Attributes:
        name, kind: of the layer.
        shape: (out, rest).
        sigma: the leading singular values, descending; NaN where the weight is not finite, none where it was not read.
        residual: largest of the triplets' residuals, in the values' units.
        frobenius: the Frobenius norm, the root of the sum of all squared singular values.
        converged: every value is within the tolerance times sigma_0.
        finite: the weight holds no NaN and no Inf; None where it was not read.
        operator_sigma: of the convolution as a linear map on images; None where not asked for, or no convolution.
        operator_converged: as ``converged``, of those.
        reason: why there are no singular values; None where there are.
        operator_reason: likewise, of the linear map.
    """

    name: str
    kind: str
    shape: tuple[int, int]
    sigma: tuple[float, ...]
    residual: float
    frobenius: float
    converged: bool
    finite: bool | None
    operator_sigma: tuple[float, ...] | None = None
    operator_converged: bool | None = None
    reason: str | None = None
    operator_reason: str | None = None

    @property
    def ratio(self) -> float:
        """sigma_0 / sigma_1: Inf for rank one, NaN for a single row and for zeros."""
        if len(self.sigma) < 2 or self.sigma[0] == 0:
            return math.nan
        return self.sigma[0] / self.sigma[1] if self.sigma[1] else math.inf

    @property
    def stable_rank(self) -> float:
        """(Frobenius norm / sigma_0)^2, between 1 and the rank; NaN for zeros."""
        return (self.frobenius / self.sigma[0]) ** 2 if self.sigma and self.sigma[0] else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become None; ``finite`` says whether the weight is."""
        record: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "sigma": [_number(value) for value in self.sigma],
            "frobenius": _number(self.frobenius),
            "converged": self.converged,
            "finite": self.finite,
            "ratio": _number(self.ratio),
            "stable_rank": _number(self.stable_rank),
            "residual": _number(self.residual),
            "reason": self.reason,
        }
        if self.operator_sigma is not None:
            record["operator_sigma"] = [_number(value) for value in self.operator_sigma]
            record["operator_converged"] = self.operator_converged
        if self.operator_reason is not None:
            record["operator_reason"] = self.operator_reason
        return record


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def scan(
    path: str | Path,
    k: int = 3,
    method: str = "auto",
    tol: float = 1e-5,
    everything: bool = False,
    operator: Convolution | None = None,
    sort: str = "network",
    on_progress: Callable[[int, int, str], None] | None = None,
    transposed: Sequence[str] = (),
    split_qkv: bool = False,
    on_note: Callable[[str], None] | None = None,
) -> tuple[list[Spectrum], int]:
    """The spectrum of every weight in a checkpoint file, and how many tensors were left out.

    Args:
        path: a checkpoint; see `spectra.read_weights` for what it may be and what is left out.
        k, method, tol: as `spectra.top_singular_values`.
        everything: also scan optimizer state and averages.
        operator: also compute the spectrum as a linear map of every convolution with as many axes as its size.
        sort: one of `SORT_KEYS`; numbers descending, with NaN first.
        on_progress: called with (done, total, name of the next weight).
        transposed: names of convolutions, or patterns ("up*"), that are transposed ones, beside those of which the file
            tells it (see `spectra.StoredWeight`): their outputs lie in the second dimension.
        split_qkv: also take fused attention apart (`split_fused_attention`).
        on_note: called with what is to be said before a long computation: what operators will cost.

    Raises:
        WeightFileError: the file is not a checkpoint or has no weights. One weight that cannot be taken raises nothing:
            see `Spectrum.reason`.
        ValueError: an argument is out of its range.
    """
    if sort not in SORT_KEYS:
        raise ValueError(f"sort is one of {', '.join(SORT_KEYS)}; got {sort!r}")
    top_singular_values(torch.ones(1, 1), k, method, tol)  # raises what is wrong with these, once
    checkpoint = read_weights(path, everything)
    weights = with_transposed(checkpoint.weights, transposed)
    if split_qkv:
        weights = split_fused_attention(weights)
    cost = None if operator is None else check_size(operator, weights)
    if cost and on_note:
        on_note(cost)
    spectra = []
    total = len(weights)
    for done, weight in enumerate(weights):
        if on_progress:
            on_progress(done, total, weight.name)
        spectra.append(spectrum_of(weight, k, method, tol, operator))
    if on_progress:
        on_progress(total, total, "")
    return _sorted(spectra, sort), checkpoint.left_out


def with_transposed(weights: list[StoredWeight], patterns: Sequence[str]) -> list[StoredWeight]:
    """Weights of which those that match a pattern are transposed convolutions.

    Raises:
        ValueError: a pattern matches no convolution.
    """
    convolutions = [weight.name for weight in weights if weight.kind.startswith("conv")]
    for pattern in patterns:
        if not fnmatch.filter(convolutions, pattern):
            listed = ", ".join(convolutions[:5]) + (", ..." if len(convolutions) > 5 else "")
            raise ValueError(f"no convolution is called {pattern!r}; the file holds {listed or 'none'}")
    chosen = {name for pattern in patterns for name in fnmatch.filter(convolutions, pattern)}
    return [
        dataclasses.replace(weight, kind=as_transposed(weight.kind), transposed=True)
        if weight.name in chosen
        else weight
        for weight in weights
    ]


def spectrum_of(weight: StoredWeight, k: int, method: str, tol: float, operator: Convolution | None = None) -> Spectrum:
    """The spectrum of one stored weight; of one that cannot be read or computed, why (`Spectrum.reason`)."""
    if weight.reason is not None:
        return _without(weight, weight.reason)
    try:
        tensor = weight.read()
        matrix = as_matrix(tensor, weight.transposed)
        found = top_singular_values(matrix, k, method, tol)
        norm = float(torch.linalg.vector_norm(matrix, dtype=torch.float64))
    except FAILURES as error:
        return _without(weight, first_line(error))
    spectrum = Spectrum(
        name=weight.name,
        kind=weight.kind,
        shape=(matrix.shape[0], matrix.shape[1]),
        sigma=tuple(found.values.tolist()),
        residual=float(found.residuals.max()),
        frobenius=norm,
        converged=found.converged,
        finite=found.finite,
        reason=None if found.finite else NOT_FINITE,
    )
    if operator is None or not has_operator(weight, operator):
        return spectrum
    try:
        values = top_singular_values(stored_operator(tensor, operator), k, method, tol)
    except FAILURES as error:
        return replace(spectrum, operator_reason=first_line(error))
    return replace(spectrum, operator_sigma=tuple(values.values.tolist()), operator_converged=values.converged)


NOT_FINITE = "it holds NaN or Inf"
FAILURES = (ValueError, RuntimeError, OSError, MemoryError, ArithmeticError, LookupError, TypeError, AttributeError)
"""What reading or computing one weight may raise (the last two: a type that this torch lacks); no other weight pays."""


def first_line(error: BaseException) -> str:
    """The first line of an error, for a row."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def matrix_shape(weight: StoredWeight) -> tuple[int, int]:
    """(out, rest) of a stored weight, without reading it."""
    out = weight.shape[1 if weight.transposed else 0]
    rest = math.prod(weight.shape[:1] + weight.shape[2:]) if weight.transposed else math.prod(weight.shape[1:])
    return out, rest


def _without(weight: StoredWeight, reason: str) -> Spectrum:
    nan = math.nan
    return Spectrum(weight.name, weight.kind, matrix_shape(weight), (), nan, nan, False, None, reason=reason)


def _sorted(spectra: list[Spectrum], sort: str) -> list[Spectrum]:
    if sort == "network":
        return spectra
    if sort == "name":
        return sorted(spectra, key=lambda s: s.name)

    def descending(spectrum: Spectrum) -> tuple[bool, float]:
        value = (spectrum.sigma or (math.nan,))[0] if sort == "sigma" else getattr(spectrum, sort)
        return (not math.isnan(value), -value if not math.isnan(value) else 0.0)

    return sorted(spectra, key=descending)

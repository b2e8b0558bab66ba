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
from torch import Tensor, nn

from spectra.linalg.operators import convolution_operator
from spectra.linalg.topk import top_singular_values
from spectra.networks.checkpoint_files import StoredWeight, as_transposed, read_weights
from spectra.networks.matrices import as_matrix

SORT_KEYS = ("network", "name", "sigma", "ratio", "frobenius", "stable_rank")


@dataclass(frozen=True)
class Convolution:
    """The properties of convolutions that a file does not contain, for their spectrum as operators; the same for all.

    Attributes:
        size: spatial size of the input, one number for each axis.
        stride, dilation: as the layer's.
        padding: on each side; None for half of each kernel, which keeps the size at stride 1.
        padding_mode: "zeros" or "circular".
    """

    size: tuple[int, ...]
    stride: int = 1
    padding: int | None = None
    dilation: int = 1
    padding_mode: str = "zeros"


@dataclass(frozen=True)
class Spectrum:
    """The spectrum of one weight.

    Attributes:
        name, kind: of the layer.
        shape: (out, rest).
        sigma: the leading singular values, descending; NaN where the weight is not finite.
        residual: largest of the triplets' residuals, in the values' units.
        frobenius: the Frobenius norm, the root of the sum of all squared singular values.
        converged: every value is within the tolerance times sigma_0.
        finite: the weight holds no NaN and no Inf.
        operator_sigma: of the convolution as a linear map on images; None where not asked for, or no convolution.
        operator_converged: as ``converged``, of those.
    """

    name: str
    kind: str
    shape: tuple[int, int]
    sigma: tuple[float, ...]
    residual: float
    frobenius: float
    converged: bool
    finite: bool
    operator_sigma: tuple[float, ...] | None = None
    operator_converged: bool | None = None

    @property
    def ratio(self) -> float:
        """sigma_0 / sigma_1: Inf for rank one, NaN for a single row and for zeros."""
        if len(self.sigma) < 2 or self.sigma[0] == 0:
            return math.nan
        return self.sigma[0] / self.sigma[1] if self.sigma[1] else math.inf

    @property
    def stable_rank(self) -> float:
        """(Frobenius norm / sigma_0)^2, between 1 and the rank; NaN for zeros."""
        return (self.frobenius / self.sigma[0]) ** 2 if self.sigma[0] else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that are not finite become None, and ``finite`` says whether the weight is."""
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
        }
        if self.operator_sigma is not None:
            record["operator_sigma"] = [_number(value) for value in self.operator_sigma]
            record["operator_converged"] = self.operator_converged
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

    Raises:
        CheckpointError: the file is not a checkpoint or has no weights.
        ValueError: an argument is out of its range.
    """
    if sort not in SORT_KEYS:
        raise ValueError(f"sort is one of {', '.join(SORT_KEYS)}; got {sort!r}")
    checkpoint = read_weights(path, everything)
    weights = _with_transposed(checkpoint.weights, transposed)
    if operator is not None:
        _check_size(operator.size, weights)
    spectra = []
    total = len(weights)
    for done, weight in enumerate(weights):
        if on_progress:
            on_progress(done, total, weight.name)
        spectra.append(_spectrum(weight, k, method, tol, operator))
    if on_progress:
        on_progress(total, total, "")
    return _sorted(spectra, sort), checkpoint.left_out


def _with_transposed(weights: list[StoredWeight], patterns: Sequence[str]) -> list[StoredWeight]:
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


def _check_size(size: tuple[int, ...], weights: list[StoredWeight]) -> None:
    """A spatial size must fit some convolution of the file; those with other numbers of axes have no operator then."""
    kinds = sorted({weight.kind for weight in weights if weight.kind.startswith("conv")})
    if f"conv{len(size)}d" not in kinds:
        holds = f"only {' and '.join(kinds)}" if kinds else "no convolutions"
        raise ValueError(
            f"an operator's size has one number for each spatial axis: {'x'.join(map(str, size))} fits "
            f"conv{len(size)}d weights, and the file holds {holds}"
        )


def _spectrum(weight: StoredWeight, k: int, method: str, tol: float, operator: Convolution | None) -> Spectrum:
    tensor = weight.read()
    matrix = as_matrix(tensor, weight.transposed)
    shape = (matrix.shape[0], matrix.shape[1])
    if matrix.numel() == 0:
        return Spectrum(weight.name, weight.kind, shape, (), 0.0, 0.0, True, True)
    found = top_singular_values(matrix, k, method, tol)
    spectrum = Spectrum(
        name=weight.name,
        kind=weight.kind,
        shape=shape,
        sigma=tuple(found.values.tolist()),
        residual=float(found.residuals.max()),
        frobenius=float(torch.linalg.vector_norm(matrix, dtype=torch.float64)),
        converged=found.converged,
        finite=found.finite,
    )
    if operator is None or weight.kind != f"conv{len(operator.size)}d":
        return spectrum
    linear = convolution_operator(_layer(tensor, operator), operator.size, tensor)
    values = top_singular_values(linear, k, method, tol)
    return replace(spectrum, operator_sigma=tuple(values.values.tolist()), operator_converged=values.converged)


def _layer(weight: Tensor, convolution: Convolution) -> nn.Module:
    """A convolution of the weight's shape, without memory of its own."""
    kernel = tuple(weight.shape[2:])
    halves = tuple(convolution.dilation * (side - 1) // 2 for side in kernel)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[weight.dim() - 3]
    return kind(
        weight.shape[1],
        weight.shape[0],
        kernel,
        stride=convolution.stride,
        padding=halves if convolution.padding is None else convolution.padding,
        dilation=convolution.dilation,
        padding_mode=convolution.padding_mode,
        bias=False,
        device="meta",
    )


def _sorted(spectra: list[Spectrum], sort: str) -> list[Spectrum]:
    if sort == "network":
        return spectra
    if sort == "name":
        return sorted(spectra, key=lambda s: s.name)

    def descending(spectrum: Spectrum) -> tuple[bool, float]:
        value = spectrum.sigma[0] if sort == "sigma" else getattr(spectrum, sort)
        return (not math.isnan(value), -value if not math.isnan(value) else 0.0)

    return sorted(spectra, key=descending)

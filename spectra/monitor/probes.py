"""The probes: one small class for each kind of measurement, listed in `PROBES`. A new one is a class and a line there.

Another package adds its own from an extension (`spectra.extensions`).

A probe reads a `Snapshot` and returns its numbers by series name, `QUANTITY/SUBJECT`; the subject is a weight matrix,
a parameter, or any name that the probe chooses. Numbers may be tensors of one entry: all are fetched from their device
at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spectra.draw.charts import Chart
from spectra.extensions import load_extensions
from spectra.monitor.snapshot import norms_of
from spectra.nearest import nearest

if TYPE_CHECKING:  # naming the probes, as help does, does not wait for torch
    from torch import Tensor

    from spectra.monitor.snapshot import Snapshot

    Numbers = Mapping[str, float | Tensor]


class Probe(ABC):
    """Base of all probes.

    Attributes:
        frame: where `spectra.load` puts the quantities: "spectra" (subjects are matrices), "gradients" (parameters),
            "embeddings" (MATRIX/ROW) or "scalars".
        quantities: what stands before the slash in the names of its series; "sigma*" stands for sigma0, sigma1, ...
        charts: how its quantities are drawn, those that should be: in TensorBoard, and by `spectra plot`.
        needs_gradients: whether `after_backward` must be called.
        needs_before: whether `before_update` should be called.
        needs_last: whether the last measurement's singular vectors are read.
    """

    frame = "spectra"
    quantities: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    needs_gradients = False
    needs_before = False
    needs_last = False

    @abstractmethod
    def measure(self, snapshot: Snapshot) -> Numbers:
        """The numbers by series name."""


class SingularValues(Probe):
    """sigma0, sigma1, ... of each raw weight matrix (Section 4.1), the largest residual, and whether they converged."""

    quantities = ("sigma*", "residual", "converged", "tracked")
    charts = (
        Chart("sigma_0", "sigma0", r"$\sigma_0$"),
        Chart("sigma_1", "sigma1", r"$\sigma_1$"),
        Chart("sigma_2", "sigma2", r"$\sigma_2$"),
        Chart("sigma_0 / sigma_1", "ratio", r"$\sigma_0 / \sigma_1$"),
    )

    def measure(self, snapshot: Snapshot) -> Numbers:
        """A matrix with fewer rows than values has fewer; values that did not converge are recorded as they are."""
        numbers: dict[str, float | Tensor] = {}
        for matrix, found in zip(snapshot.matrices, snapshot.top, strict=True):
            numbers |= {f"sigma{i}/{matrix.name}": value for i, value in enumerate(found.values.tolist())}
            numbers[f"residual/{matrix.name}"] = max(found.residuals.tolist(), key=lambda r: (math.isnan(r), r))
            numbers[f"converged/{matrix.name}"] = float(found.converged)
            if found.method == "tracked":
                numbers[f"tracked/{matrix.name}"] = 1.0
        return numbers


class Frobenius(Probe):
    """The Frobenius norm of each raw weight matrix (Figures 27a and b); the stable rank follows from it on loading."""

    quantities = ("frobenius",)
    charts = (Chart("Frobenius norm", "frobenius", r"$\|W\|_F$"),)

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Summed in float64."""
        known = {m.name: snapshot.norms.get(snapshot.name_of(m)) for m in snapshot.matrices}
        others = norms_of({m.name: m.raw() for m in snapshot.matrices if known[m.name] is None})
        return {f"frobenius/{name}": others[name] if norm is None else norm for name, norm in known.items()}


class SigmaEstimate(Probe):
    """Spectral Normalization's own estimate of sigma0, where there is one; its lag follows from it on loading."""

    quantities = ("sigma_estimate",)

    def measure(self, snapshot: Snapshot) -> Numbers:
        """The sigma that the layer divides by, without changing its vectors."""
        from spectra.networks.matrices import sigma_estimates

        estimates = zip(snapshot.matrices, sigma_estimates(snapshot.matrices), strict=True)
        return {f"sigma_estimate/{m.name}": value for m, value in estimates if value is not None}


class SingularVectorAngle(Probe):
    """How far the top singular directions turned since the last measurement, in radians, from 0 to pi.

    turn0 is the angle between the matrices u v^T of the largest triplet then and now: no change of both vectors' signs
    moves it. Where two singular values are nearly equal, their directions are arbitrary and turn freely.
    """

    quantities = ("turn*",)
    needs_last = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Skips a run's first measurement, and a matrix that was not measured with this shape last time."""
        import torch

        names: list[str] = []
        vectors: dict[str, list[Tensor]] = {"left": [], "right": [], "left then": [], "right then": []}
        for matrix, now in zip(snapshot.matrices, snapshot.top, strict=True):
            then = snapshot.last.get(matrix.name)
            if then is None or (len(then.left), len(then.right)) != (len(now.left), len(now.right)):
                continue
            both = min(now.left.shape[1], then.left.shape[1])
            for side in ("left", "right"):
                vectors[side].append(getattr(now, side)[:, :both])
                vectors[f"{side} then"].append(getattr(then, side)[:, :both].to(now.left))
            names += [f"turn{i}/{matrix.name}" for i in range(both)]
        if not names:
            return {}
        cosines = torch.ones(len(names), dtype=torch.float64)
        for side in ("left", "right"):
            products = torch._foreach_mul(vectors[side], vectors[f"{side} then"])
            cosines *= torch.cat([product.sum(0).cpu() for product in products])
        return dict(zip(names, torch.arccos(cosines.clamp(-1, 1)).tolist(), strict=True))


class TopShares(Probe):
    """The share of the gradient, and of the step's update, in the top singular directions (Section 4.2).

    For a change X of W it is |U^T X V|^2 / |X|^2, with the top k vectors of the weight after the step: from 0 to 1, and
    about k^2 / (rows * columns) for a change in a random direction. NaN if nothing changed.
    """

    quantities = ("gradient_share", "update_share")
    needs_gradients = needs_before = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Skips matrices that have no gradient or are not trained."""
        import numpy as np

        blocks, whole = {}, []
        for matrix, found in zip(snapshot.matrices, snapshot.top, strict=True):
            name = snapshot.name_of(matrix)
            for what, changes, norms in (
                ("gradient", snapshot.gradients, snapshot.gradient_norms),
                ("update", snapshot.updates, snapshot.update_norms),
            ):
                if name in changes and snapshot.took_part(name):
                    change = matrix.view(changes[name])
                    # in this order: a few rows times a matrix is much faster than a matrix times a few columns
                    block = (found.left.T.to(change.dtype) @ change) @ found.right.to(change.dtype)
                    blocks[f"{what}_share/{matrix.name}"] = block
                    whole.append(norms[name])
        with np.errstate(all="ignore"):
            shares = (np.array(list(norms_of(blocks).values())) / np.array(whole)) ** 2
        return dict(zip(blocks, shares.tolist(), strict=True))


class WeightAngle(Probe):
    """The angle, in radians, by which the step turned each weight: between W / |W| before and after it.

    Under Spectral Normalization the length of W does not act and grows by itself: this is how fast the function moves,
    which a growing sigma0 does not tell.
    """

    quantities = ("rotation",)
    needs_gradients = needs_before = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Skips matrices that are not trained, or had no gradient."""
        import numpy as np

        trained = {m.name: snapshot.name_of(m) for m in snapshot.matrices if snapshot.name_of(m) in snapshot.before}
        names = {matrix: name for matrix, name in trained.items() if snapshot.took_part(name)}
        lengths = (snapshot.before_norms, snapshot.norms, snapshot.update_norms)
        then, now, moved = (np.array([norms[name] for name in names.values()]) for norms in lengths)
        with np.errstate(all="ignore"):
            # The chord between the directions, from lengths alone; a cosine would lose small angles.
            chord = np.sqrt(np.maximum((moved**2 - (now - then) ** 2) / (now * then), 0))
            angles = 2 * np.arcsin(np.minimum(chord / 2, 1))
        return {f"rotation/{name}": angle for name, angle in zip(names, angles.tolist(), strict=True)}


class GradientNorms(Probe):
    """Each parameter's gradient norm."""

    frame = "gradients"
    quantities = ("gradient_norm",)
    needs_gradients = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Of the last update of the step, before clipping."""
        return {f"gradient_norm/{name}": norm for name, norm in snapshot.gradient_norms.items()}


class GradientVariance(Probe):
    """The variance over all of a network's parameters of their gradients' norms (Figure 27d)."""

    frame = "scalars"
    quantities = ("gradient_variance",)
    charts = (Chart("variance of all gradient norms", "gradient_variance"),)
    needs_gradients = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """The population's variance: a network of one parameter has 0."""
        import numpy as np

        norms: dict[str, list[float]] = {}
        for name, norm in snapshot.gradient_norms.items():
            norms.setdefault(name.partition(".")[0], []).append(norm)
        with np.errstate(all="ignore"):
            return {f"gradient_variance/{name}": float(np.var(n)) for name, n in norms.items()}


class UpdateSizes(Probe):
    """The length of the step's update of each parameter, over the length that the parameter had."""

    frame = "gradients"
    quantities = ("relative_update",)
    needs_gradients = needs_before = True

    def measure(self, snapshot: Snapshot) -> Numbers:
        """Inf if a parameter of zeros changes, NaN if it does not; skips parameters without a gradient."""
        import numpy as np

        moved = {name: norm for name, norm in snapshot.update_norms.items() if snapshot.took_part(name)}
        with np.errstate(all="ignore"):
            shares = np.array(list(moved.values())) / np.array([snapshot.before_norms[name] for name in moved])
        return {f"relative_update/{name}": share for name, share in zip(moved, shares.tolist(), strict=True)}


class ClassNorms(Probe):
    """The length of each row of an embedding: those of classes that go wrong grow (Appendix H).

    Of one with more than `most` rows, whose rows would be most of the record, only the `ends` longest and shortest
    have their own numbers; the mean over all, `class_norm_mean`, is among the scalars.
    """

    frame = "embeddings"
    quantities = ("class_norm",)
    most = 1000
    ends = 10

    def measure(self, snapshot: Snapshot) -> Numbers:
        """By the row's number. Rows that are not finite count as the longest."""
        import numpy as np

        numbers: dict[str, float | Tensor] = {}
        for matrix in snapshot.matrices:
            if matrix.kind != "embedding":
                continue
            norms = matrix.raw().norm(dim=1).tolist()
            rows: Sequence[int] = range(len(norms))
            if len(norms) > self.most:
                numbers[f"class_norm_mean/{matrix.name}"] = float(np.mean(norms))
                ordered = sorted(rows, key=lambda i: (math.isnan(norms[i]), norms[i]))
                rows = sorted({*ordered[: self.ends], *ordered[-self.ends :]})
            numbers |= {f"class_norm/{matrix.name}/{i}": norms[i] for i in rows}
        return numbers


PROBES: dict[str, type[Probe]] = {
    "singular_values": SingularValues,
    "frobenius": Frobenius,
    "sigma_estimate": SigmaEstimate,
    "turns": SingularVectorAngle,
    "top_shares": TopShares,
    "rotation": WeightAngle,
    "gradient_norms": GradientNorms,
    "gradient_variance": GradientVariance,
    "update_sizes": UpdateSizes,
    "class_norms": ClassNorms,
}
"""Every probe by name; a monitor takes all of them unless told otherwise."""


def find_probes(chosen: Sequence[str | Probe] | None) -> list[Probe]:
    """Probes by name, or as they are given; None: all of `PROBES`. Raises `ValueError` for an unknown name."""
    load_extensions()
    found = []
    if isinstance(chosen, str):
        chosen = [chosen]
    for probe in PROBES if chosen is None else chosen:
        if isinstance(probe, str) and probe not in PROBES:
            raise ValueError(f"unknown probe {probe!r}{nearest(probe, PROBES)} Known: {', '.join(PROBES)}")
        if isinstance(probe, type) or not (isinstance(probe, str) or hasattr(probe, "measure")):
            raise TypeError(f"a probe is a name or an instance of a subclass of spectra.Probe; got {probe!r}")
        found.append(PROBES[probe]() if isinstance(probe, str) else probe)
    return found

"""What a probe may read after a step; what several probes need is computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from spectra.linalg.result import TopSingularValues
    from spectra.monitor.vectors import Directions
    from spectra.networks.matrices import WeightMatrix


@dataclass
class Snapshot:
    """What a probe may read, after a step. It must change none of it.

    Attributes:
        matrices: the weight matrices of all networks.
        parameters: by name with the network's before it ("G.linear.weight"): every one that is trained.
        gradients: copies by parameter name, of the last update of this step, before clipping. A parameter that had
            none is missing.
        before: copies by parameter name, from before this step's first update; empty where none could be made.
        top_k: how many singular values are asked for.
        last: the singular vectors of the last measurement by matrix, as far as they are known.
        tol: largest error of a singular value, relative to sigma0.
        step: the step that is measured.
    """

    matrices: Sequence[WeightMatrix]
    parameters: Mapping[str, nn.Parameter]
    gradients: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    top_k: int
    last: Mapping[str, Directions] = field(default_factory=dict)
    tol: float = 1e-5
    step: int = 0
    names: Mapping[int, str] = field(default_factory=dict)  # of parameters, by id
    followed: Mapping[str, Tensor] = field(default_factory=dict)  # by matrix: what `track` starts from

    @cached_property
    def top(self) -> list[TopSingularValues]:
        """The top singular triplets of each matrix as it is now, computed once for all probes.

        Those in `followed` from the directions of the last measurement, without a certificate; the others certified,
        from random vectors of the step's own: these are a function of the weights and the step alone.
        """
        from spectra.linalg.topk import top_singular_values_batch
        from spectra.linalg.tracked import track

        raw = [m.raw() for m in self.matrices]
        given = ((i, self.followed.get(m.name)) for i, m in enumerate(self.matrices))
        known = {i: start for i, start in given if start is not None and _can_start(start, raw[i])}
        others = [i for i in range(len(raw)) if i not in known]
        found = dict(zip(known, track([raw[i] for i in known], list(known.values()), self.top_k), strict=True))
        certified = top_singular_values_batch([raw[i] for i in others], self.top_k, tol=self.tol, seed=self.step)
        found.update(zip(others, certified, strict=True))
        return [found[i] for i in range(len(raw))]

    @cached_property
    def gradient_norms(self) -> dict[str, float]:
        """The lengths of `gradients`, summed in float64, by parameter name."""
        return norms_of(self.gradients)

    @cached_property
    def before_norms(self) -> dict[str, float]:
        """The lengths of the parameters before the step, where these are known."""
        return norms_of(self.before)

    @cached_property
    def norms(self) -> dict[str, float]:
        """The lengths of the parameters now."""
        return norms_of({name: parameter.detach() for name, parameter in self.parameters.items()})

    @cached_property
    def updates(self) -> dict[str, Tensor]:
        """What the step added to each parameter, where the parameter before it is known."""
        import torch

        if not self.before:
            return {}
        now = [self.parameters[name].detach() for name in self.before]
        return dict(zip(self.before, torch._foreach_sub(now, list(self.before.values())), strict=True))

    @cached_property
    def update_norms(self) -> dict[str, float]:
        """The lengths of `updates`."""
        return norms_of(self.updates)

    @cached_property
    def parts(self) -> list[Snapshot]:
        """The same for each layer alone, for what fails on all of them together."""
        from spectra.monitor.measuring import split

        return list(split(self))

    def took_part(self, name: str) -> bool:
        """Whether a parameter had a gradient, or moved without: else its update of 0 is none."""
        return name in self.gradients or self.update_norms.get(name, 0.0) != 0

    def name_of(self, matrix: WeightMatrix) -> str:
        """The name of a matrix's parameter; empty where it is not trained."""
        return self.names.get(id(matrix.parameter()), "")


def _can_start(start: Tensor, matrix: Tensor) -> bool:
    """Whether directions are of a matrix's shorter side, and not of one that was not finite."""
    import torch

    return len(start) == min(matrix.shape) and bool(torch.isfinite(start).all())


def norms_of(tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Lengths, summed in float64, fetched from each device at once."""
    import torch

    by_device: dict[torch.device, list[str]] = {}
    for name, tensor in tensors.items():
        by_device.setdefault(tensor.device, []).append(name)
    found: dict[str, float] = {}
    for names in by_device.values():
        norms = torch._foreach_norm([tensors[name] for name in names], 2, dtype=torch.float64)
        found.update(zip(names, torch.stack(norms).tolist(), strict=True))
    return {name: found[name] for name in tensors}

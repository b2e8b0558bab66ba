"""BatchNorm statistics that a generator brings with it, for several truncations of z: published BigGAN-deep's."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from biggan.errors import UserError
from biggan.evaluation.standing import converge_sigma
from biggan.networks.base import GeneratorNetwork

STORED_STATISTICS = "stored_statistics."
"""How the names of their tensors begin in a checkpoint: `stored_statistics.LAYER.means` and `.variances`, (N, width),
for N truncations from 0 to 1 at equal distances."""


def stored_at(table: Tensor, truncation: float) -> Tensor:
    """The statistics (width,) at a truncation in [0, 1], between two of the table's (N, width) in proportion."""
    place = truncation * (len(table) - 1)
    below = min(int(place), len(table) - 2)
    return torch.lerp(table[below], table[below + 1], place - below)


@torch.no_grad()
def with_stored_statistics(
    G: GeneratorNetwork, tensors: Mapping[str, Tensor], truncation: float | None, path: Path
) -> GeneratorNetwork:
    """A copy of `G` in eval mode under the statistics among a checkpoint's tensors, at a truncation (None: 1).

    Raises `UserError` where the checkpoint has none, and for a truncation that they do not reach.
    """
    tables = {
        name.removeprefix(STORED_STATISTICS): table
        for name, table in tensors.items()
        if name.startswith(STORED_STATISTICS)
    }
    if not tables:
        raise UserError(f"{path} has no stored BatchNorm statistics. Use --statistics standing.")
    if truncation is not None and not 0 < truncation <= 1:
        raise UserError(f"--truncation is {truncation}, and stored statistics are for more than 0, up to 1.")
    network = copy.deepcopy(G)
    converge_sigma(network)
    layers = dict(network.named_modules())
    for name, table in tables.items():
        layer, _, kind = name.rpartition(".")
        statistic = {"means": "running_mean", "variances": "running_var"}[kind]
        getattr(layers[layer], statistic).copy_(stored_at(table, 1.0 if truncation is None else truncation))
    return network.requires_grad_(False).eval()

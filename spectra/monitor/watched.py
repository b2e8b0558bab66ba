"""The networks that a monitor watches: their weight matrices and parameters, and the record's description of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.segments import read_legend

if TYPE_CHECKING:
    from torch import nn

    from spectra.monitor.probes import Probe
    from spectra.networks.matrices import WeightMatrix


class WatchedNetworks:
    """Named networks, as they are now.

    Args:
        networks: by name, without dots and slashes; or (name, network) pairs.

    Attributes:
        named: the networks.
        matrices: all their weight matrices.
        parameters: every parameter that is trained, by name with the network's before it.
        by_network: the same, by network.

    Raises:
        ValueError: two networks of one name, one network twice, or a network without a weight matrix.
    """

    def __init__(self, networks: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]) -> None:
        self.named = _named(networks)
        self._identities: tuple[int, ...] | None = None
        self.read()

    def read(self) -> None:
        """The matrices and parameters, read again only where a parameter has been replaced."""
        now = tuple(id(p) for network in self.named.values() for p in network.parameters())
        if now == self._identities:
            return
        from spectra.networks.matrices import weight_matrices

        self._identities = now
        self.matrices: list[WeightMatrix] = weight_matrices(self.named) if self.named else []
        self.parameters: dict[str, nn.Parameter] = {
            f"{name}.{path}": p
            for name, network in self.named.items()
            for path, p in network.named_parameters()
            if p.requires_grad
        }
        self.by_network = {
            network: {name: p for name, p in self.parameters.items() if name.partition(".")[0] == network}
            for network in self.named
        }

    def legend(self, probes: Sequence[Probe], top_k: int) -> dict[str, Any]:
        """What the record's names mean: each matrix's and parameter's place, and the frame of each quantity."""
        if not self.named:
            return {}
        layers = {
            m.name: {"network": m.network, "kind": m.kind, "depth": m.depth, "shape": list(m.shape)}
            for m in self.matrices
        }
        parameters = {
            name: {"network": network, "depth": depth}
            for network in self.named
            for depth, name in enumerate(self.by_network[network])
        }
        frames = {
            quantity.replace("*", str(i)): probe.frame
            for probe in probes
            for quantity in probe.quantities
            for i in (range(top_k) if "*" in quantity else [0])
        }
        return {"layers": layers, "parameters": parameters, "frames": frames}

    def check_same_run(self, run: Path) -> None:
        """Raise `ValueError` if the record in `run` has other layers."""
        then = {name: facts["shape"] for name, facts in read_legend(run).get("layers", {}).items() if "shape" in facts}
        now = {m.name: list(m.shape) for m in self.matrices}
        strangers = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if then and now and strangers:
            raise ValueError(
                f"{run} holds the record of another run: its layers differ from these networks' ({strangers[0]} is "
                f"{then.get(strangers[0], 'missing')} there and {now.get(strangers[0], 'missing')} here). Choose "
                "another "
                "run directory"
            )


def _named(networks: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]) -> dict[str, nn.Module]:
    pairs = list(networks.items()) if isinstance(networks, Mapping) else list(networks)
    found: dict[str, nn.Module] = {}
    for name, network in pairs:
        if not name or "." in name or "/" in name:
            raise ValueError(f"a network's name begins the names of its layers, without dots and slashes; got {name!r}")
        if name in found:
            raise ValueError(f"two networks are called {name!r}: give each a name of its own")
        twin = next((other for other, known in found.items() if known is network), None)
        if twin is not None:
            raise ValueError(f"{twin!r} and {name!r} are one and the same network: give it once")
        found[name] = network
    return found

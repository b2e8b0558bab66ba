"""The networks that a monitor watches: their weight matrices and parameters, and the record's description of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.record.segments import read_last_legend

if TYPE_CHECKING:
    from torch import Tensor, nn

    from spectra.monitor.probes import Probe
    from spectra.networks.matrices import WeightMatrix


class WatchedNetworks:
    """Named networks, as they are now: training may add, remove, replace, reshape and unfreeze layers.

    Args:
        networks: one network, which is then called "model"; or by name, without dots and slashes; or (name, network)
            pairs.

    Attributes:
        named: the networks, without what wraps them (`spectra.networks.wrappers`).
        matrices: all their weight matrices that can be measured.
        parameters: every parameter that is trained and can be measured, by name with the network's before it.
        by_network: the same, by network.
        refused: why a layer or parameter cannot be measured, by name.
        generation: how often they have been read.

    Raises:
        ValueError: two networks of one name, one network twice, one without a weight matrix that can be measured, or
            one that is sharded over processes.
    """

    def __init__(self, networks: nn.Module | Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]) -> None:
        self.named = _named(networks)
        self.generation = 0
        self._seen: list[Any] = []
        self._held: list[nn.Parameter] = []
        if not self.named:
            self._find([], {})
            return
        from spectra.networks.matrices import weight_matrices

        for name, network in self.named.items():
            _check_whole(name, network)
        self._has_changed()
        self._find(weight_matrices(self.named), {})
        if not self.matrices:
            layer, reason = next(iter(self.refused.items()))
            raise ValueError(f"no weight matrix can be measured: of {layer!r}, for one, {reason}")

    def read(self) -> bool:
        """Read the matrices and parameters again where one has changed other than in its values; whether that was so.

        Raises nothing: what cannot be read is among `refused`.
        """
        if not self.named or not self._has_changed():
            return False
        from spectra.networks.matrices import readable_matrices

        self._find(*readable_matrices(self.named))
        return True

    def _has_changed(self) -> bool:
        found = [
            (name, p) for network, module in self.named.items() for name, p in module.named_parameters(prefix=network)
        ]
        now = [(name, id(p), p.requires_grad, _form(p)) for name, p in found]
        if now == self._seen:
            return False
        self._seen, self._held = now, [p for _, p in found]  # held, so that no new one can get the id of an old one
        return True

    def _find(self, matrices: Sequence[WeightMatrix], unreadable: Mapping[str, str]) -> None:
        from spectra.networks.matrices import why_not_measured
        from spectra.networks.wrappers import plain_name

        self.generation += 1
        self.refused = dict(unreadable)
        self.matrices: list[WeightMatrix] = []
        for matrix in matrices:
            reason = why_not_measured(matrix.parameter())
            if reason is None:
                self.matrices.append(matrix)
            else:
                self.refused[matrix.name] = reason
        matrices_refused = {id(matrix.parameter()) for matrix in matrices if matrix.name in self.refused}
        self.by_network: dict[str, dict[str, nn.Parameter]] = {}
        for network, module in self.named.items():
            mine = self.by_network[network] = {}
            for path, p in module.named_parameters():
                name = f"{network}.{plain_name(module, path)}"
                reason = None if id(p) in matrices_refused else why_not_measured(p)
                if reason is not None:
                    self.refused.setdefault(name, reason)
                elif p.requires_grad and id(p) not in matrices_refused:
                    mine[name] = p
        self.parameters = {name: p for mine in self.by_network.values() for name, p in mine.items()}

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
        """Raise `ValueError` if the record in `run` has, at its end, other layers."""
        layers = read_last_legend(run).get("layers", {})
        then = {name: facts["shape"] for name, facts in layers.items() if "shape" in facts}
        now = {m.name: list(m.shape) for m in self.matrices}
        strangers = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if then and now and strangers:
            raise ValueError(
                f"{run} holds the record of another run: its layers differ from these networks' ({strangers[0]} is "
                f"{then.get(strangers[0], 'missing')} there and {now.get(strangers[0], 'missing')} here). Choose "
                "another "
                "run directory"
            )


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies to compute with: dense, at least float32."""
    import torch

    dense = [t.detach().to_dense() if t.is_sparse else t.detach() for t in tensors.values()]
    found = [torch.empty_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in dense]
    if found:
        torch._foreach_copy_(found, dense)
    return dict(zip(tensors, found, strict=True))


def those_that_fit(tensors: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Those copies whose parameter is still there, with its shape, where it was."""
    fitting = {name: parameters[name] for name in tensors if name in parameters}
    return {name: tensors[name] for name, p in fitting.items() if (p.shape, p.device) == _place(tensors[name])}


def _place(tensor: Tensor) -> tuple[Any, Any]:
    return tensor.shape, tensor.device


def _form(parameter: nn.Parameter) -> Any:
    """What of a parameter can change in place, by `parameter.data = ...`, and is not its values."""
    import torch

    if isinstance(parameter, torch.nn.parameter.UninitializedParameter):
        return None
    return parameter.shape, parameter.dtype, parameter.device, parameter.layout


def _check_whole(name: str, network: nn.Module) -> None:
    """Raise `ValueError` for a network of which this process holds shards alone."""
    sharded = next((path for path, p in network.named_parameters() if hasattr(p, "device_mesh")), None)
    flat = any(type(module).__name__ == "FullyShardedDataParallel" for module in network.modules())
    if sharded is None and not flat:
        return
    which = f"the parameter {sharded!r} of {name!r} is a DTensor" if sharded else f"{name!r} is wrapped by FSDP"
    raise ValueError(
        f"{which}: its weights are sharded over processes, and a shard's singular values are not the weight's. Watch a "
        "network under DistributedDataParallel instead, or save full state dicts and run `spectra scan` on them"
    )


def _named(networks: nn.Module | Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]]) -> dict[str, nn.Module]:
    if networks is None or isinstance(networks, str):
        raise TypeError(f"a network, or networks by name, are expected; got {networks!r}")
    given: Any = {"model": networks} if hasattr(networks, "named_parameters") else networks
    pairs = list(given.items() if isinstance(given, Mapping) else given)
    if not pairs:
        return {}
    from torch import nn

    from spectra.networks.wrappers import unwrapped

    found: dict[str, nn.Module] = {}
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
            raise TypeError(f"networks are given by name, as {{'G': G, 'D': D}}; got {type(pair).__name__}")
        name, network = pair
        if not isinstance(network, nn.Module):
            raise TypeError(f"the network {name!r} must be a torch module; got {type(network).__name__}")
        network = unwrapped(network)
        if not name or "." in name or "/" in name:
            raise ValueError(f"a network's name begins the names of its layers, without dots and slashes; got {name!r}")
        if name in found:
            raise ValueError(f"two networks are called {name!r}: give each a name of its own")
        twin = next((other for other, known in found.items() if known is network), None)
        if twin is not None:
            raise ValueError(f"{twin!r} and {name!r} are one and the same network: give it once")
        found[name] = network
    return found

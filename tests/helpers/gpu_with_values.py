"""A GPU that is not there, but computes: tensors that say they are on `cuda:0` and hold their numbers on the CPU.

`python gpu_with_values.py LIBRARY biggan-train ARGUMENTS ...` runs a command of this project on it. An operation on
tensors of both places is an error, as on a GPU, and so is reading a tensor there without moving it. Numbers are the
CPU's, so what a command leaves can be compared with what it leaves on the CPU, to the bit. LIBRARY is fake_gpu.cpp,
compiled; it has to be loaded before torch, so this is a program of its own.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

MAINS = {
    "biggan-train": ("biggan.cli.train", "train_main"),
    "biggan-eval": ("biggan.cli.evaluate", "eval_main"),
    "biggan-sample": ("biggan.cli.sample", "sample_main"),
    "biggan-intervene": ("interventions.cli.main", "main"),
}


def main(library: str, command: str, *arguments: str) -> int:
    """Run the command; its exit code."""
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    module, name = MAINS[command]
    with pretended():
        return getattr(importlib.import_module(module), name)(list(arguments))


@contextmanager
def pretended() -> Any:
    """Inside, torch finds a GPU."""
    from unittest import mock

    import torch

    stream = SimpleNamespace(wait_stream=lambda other: None)
    stand_ins = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "get_device_name": lambda device=None: "a GPU that is not there",
        "Stream": lambda device=None: stream,
        "current_stream": lambda device=None: stream,
        "stream": lambda stream: nullcontext(),
        "synchronize": lambda device=None: None,
        "is_bf16_supported": lambda *_, **__: True,
    }
    swapped = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # or `Module.to` would put a CPU's data in place
    with (
        mock.patch.multiple(torch.cuda, **stand_ins),
        mock.patch.object(torch.cuda.amp.common, "amp_definitely_not_available", return_value=False),
        mock.patch.multiple(torch.Tensor, **_methods()),
        mock.patch.multiple(torch, **_factories()),
        _mode(),
    ):
        yield
    torch.__future__.set_swap_module_params_on_conversion(swapped)


def _methods() -> dict[str, Any]:
    """Methods that never reach the dispatcher."""
    import torch

    as_list = torch.Tensor.tolist
    return {
        "pin_memory": lambda self: self,
        "record_stream": lambda self, stream: None,
        "tolist": lambda self: as_list(getattr(self, "held", self)),
    }


def _factories() -> dict[str, Any]:
    """Functions that copy data to the device by themselves."""
    import torch

    def made(make: Any) -> Any:
        return lambda data, *, device=None, **settings: make(data, **settings).to(device or "cpu")

    as_tensor = torch.as_tensor

    def taken(data: Any, *, device: Any = None, **settings: Any) -> Any:
        found = as_tensor(data, **settings)
        return found if device is None else found.to(device)

    return {"tensor": made(torch.tensor), "as_tensor": taken}


def _mode() -> Any:
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves, tree_map

    class OnGpu(torch.Tensor):
        """Its numbers are in `held`, on the CPU; views share them."""

        held: torch.Tensor

        @staticmethod
        def __new__(cls: type, held: torch.Tensor) -> OnGpu:
            layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
            made = torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device="cuda:0", **layout)
            made.held = held
            return made

        def __repr__(self, **_: Any) -> str:
            return f"OnGpu({self.held})"

        @classmethod
        def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return computed(func, args, kwargs or {})

    def held(leaf: Any) -> Any:
        return leaf.held if isinstance(leaf, OnGpu) else leaf

    def computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, OnGpu)]
        here = [tensor for tensor in tensors if not isinstance(tensor, OnGpu) and tensor.dim() > 0]
        if there and here and name not in ("_to_copy", "copy_"):
            raise RuntimeError(f"{func}: tensors on cuda:0 and on the CPU, shapes {[tuple(t.shape) for t in here]}")
        target = kwargs.get("device")
        on_cpu = {key: tree_map(held, value) for key, value in kwargs.items()}
        if target is not None:
            on_cpu["device"] = torch.device("cpu")
        on_cpu.pop("pin_memory", None)
        if name == "_to_copy":  # another place is a copy, never the same memory
            on_cpu.pop("non_blocking", None)
        found = func(*tree_map(held, args), **on_cpu)
        gpu = torch.device(target).type == "cuda" if target is not None else bool(there)
        if func._schema.is_mutable:
            return _same(func, args, kwargs, found)
        return tree_map(lambda leaf: OnGpu(leaf) if gpu and isinstance(leaf, torch.Tensor) else leaf, found)

    def _same(func: Any, args: Any, kwargs: dict[str, Any], found: Any) -> Any:
        """What a function that writes into an argument returns is that argument."""
        written = [
            args[index] if index < len(args) else kwargs.get(argument.name)
            for index, argument in enumerate(func._schema.arguments)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        returns = func._schema.returns
        if not returns:
            return found
        if all(one.alias_info is not None and one.alias_info.is_write for one in returns):
            return written[0] if len(returns) == 1 else tuple(written[: len(returns)])
        gpu = any(isinstance(leaf, OnGpu) for leaf in tree_leaves((args, kwargs)))
        return tree_map(lambda leaf: OnGpu(leaf) if gpu and isinstance(leaf, torch.Tensor) else leaf, found)

    class Pretend(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return computed(func, args, kwargs or {})

    return Pretend()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

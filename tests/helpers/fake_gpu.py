"""Updates on a GPU that is not there: tensors with shapes and devices and no memory (torch's FakeTensorMode).

`python fake_gpu.py LIBRARY NAME ...` prints as JSON what went wrong in each named case, or null. LIBRARY is
fake_gpu.cpp, compiled; it has to be loaded before torch, so this is a program of its own.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import warnings
from typing import Any

TINY: dict[str, Any] = {
    "device": "cuda",
    "model": {"resolution": 8, "ch": 4, "z_dim": 12},
    "train": {"batch": 8},
}
ATTENTION = {"attention_G": [8], "attention_D": [4]}
SWITCHES = {"narrow_skips": True, "fused_resampling": True, "channels_last": True, "batched_power_iteration": True}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "attention": {"model": ATTENTION},
    "deep": {"model": {"family": "biggan-deep", "resolution": 32, "ch": 8}},
    "imagenet128": {"model": {"resolution": 128, "ch": 8, "z_dim": 120, "classes": 1000}},
    "no spectral norm": {"model": {"spectral_norm_G": False, "spectral_norm_D": False}},
    "BatchNorm in D": {"model": {"norm_D": "batch"}},
    "conditional BatchNorm in D": {"model": {"norm_D": "conditional"}},
    "WeightNorm": {"model": {"norm_G": "weight"}},
    "MLP projections": {"model": {"projection": "mlp"}},
    "no shared embedding": {"model": {"shared_embedding": False, "skip_z": False}},
    "D shares the embedding": {"model": {"share_embedding_with_D": True}},
    "clamped forward": {"model": {"clamp_D": {"ratio": 1.05}}},
    "clamped by projection": {"model": {"clamp_D": {"ratio": 1.05, "mode": "project"}}},
    "R1": {"regularizers": {"r1": 1.0}},
    "R1, BatchNorm in D": {"model": {"norm_D": "batch"}, "regularizers": {"r1": 1.0}},
    "gradient penalty": {"regularizers": {"gradient_penalty": 3.0}},
    "orthogonal": {"regularizers": {"orthogonal_G": 1e-4}},
    "decays": {"regularizers": {"l2_D": 1e-3, "embedding_decay": 1e-2}},
    "sigma": {"regularizers": {"sigma_G": {"strength": 1e-2, "ratio": 1.1}}},
    "dropout": {"regularizers": {"dropout_keep": 0.8}},
    "accumulation": {"train": {"accumulate": 2}},
    "recomputation": {"train": {"recompute": True}},
    "frozen G": {"train": {"freeze": "G"}},
    "frozen D": {"train": {"freeze": "D"}},
    "clipping": {"optim": {"G": {"lr": 1e-3, "clip_global": 1.0}, "D": {"lr": 1e-3, "clip_tensor": 0.5}}},
    "switches": {"speed": SWITCHES},
    "bfloat16": {"speed": {"precision": "bfloat16"}},
    "float16": {"speed": {"precision": "float16"}},
    "bfloat16 and switches": {"model": ATTENTION, "speed": {**SWITCHES, "precision": "bfloat16"}},
    "one of two ranks": {},
}
BROKEN = {"broken: a tensor on the CPU": {}, "broken: a number is read": {}, "broken: a copy that waits": {}}


ATTEMPTS = 4


def main(library: str, names: list[str]) -> None:
    """Run the cases, each in a child of its own.

    With fake tensors torch 2.13 sometimes dies of a damaged heap, mostly in the second case of a process. It never
    fails with an error then. A child that dies is tried again.
    """
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    import torch

    for module in ("_decomp", "_dynamo", "_meta_registrations", "_refs", "fx.experimental.symbolic_shapes"):
        importlib.import_module(f"torch.{module}")  # once for all children
    importlib.import_module("biggan.training.step")

    torch.Tensor.pin_memory = lambda self: self  # type: ignore[method-assign]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    warnings.filterwarnings("error", "CUDA is not available")  # of autocast, which would be off
    gc.disable()
    found = {}
    for name in names:
        answers = (in_a_child(name) for _ in range(ATTEMPTS))
        found[name] = next((answer for answer in answers if answer != DIED), DIED)
    print(json.dumps(found))


DIED = "died of a signal"


def in_a_child(name: str) -> str | None:
    """What went wrong in a case: an error, or `DIED`."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            play(name, {**TINY, **{key: {**TINY.get(key, {}), **part} for key, part in (CASES | BROKEN)[name].items()}})
            said = None
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps(said and said[:3000]).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        print(f"{name}: {DIED}", file=sys.stderr)
    return json.loads(answer) if answer else DIED


def play(name: str, values: dict[str, Any]) -> None:
    """An update of D, one of G and one of the average; what they return is to be on the GPU."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from biggan.config import from_dict
    from biggan.distributed.ranks import BatchShard
    from biggan.training.state import TrainingState
    from biggan.training.step import Updater

    config = from_dict(values)
    batch, size = config.train.batch, config.model.resolution
    with FakeTensorMode(allow_non_fake_inputs=True), movable_modules():
        state = TrainingState(config, "cuda", initialize=False)
        updater = Updater(config, state, lambda *_: None, lambda *_: None)
        if name in ("one of two ranks", "broken: a copy that waits"):
            updater.share = updater.draws.share = BatchShard(batch, of=(0, 2))
            updater.share.rows_on(torch.device("cuda:0"))  # once for all updates
            batch //= 2
        if name in BROKEN:
            damage(name, updater)
        images = torch.empty(batch, 3, size, size, device="cuda")
        labels = torch.zeros(batch, dtype=torch.int64, device="cuda")
        with nothing_waits():
            stats = updater.update_discriminator(0, images, labels)
            stats |= updater.update_generator()
            state.ema.update(state.G, 2000, stats.get("skipped/G"))
    elsewhere = [key for key, value in stats.items() if value.device.type != "cuda"]
    assert not elsewhere, elsewhere


def damage(name: str, updater: Any) -> None:
    """What the check is to find."""
    import torch

    of_G = updater.loss.generator
    if name.endswith("CPU"):
        updater.loss.generator = lambda logits: of_G(logits + torch.zeros(len(logits)))
    if name.endswith("read"):
        updater.loss.generator = lambda logits: of_G(logits) * float(logits.mean() > 0)
    if name.endswith("waits"):
        rows = updater.share.rows
        updater.share.rows_on = lambda device: torch.from_numpy(rows).to(device)


def movable_modules() -> Any:
    """`Module.to` for fake tensors, whose parameters torch cannot move in place."""
    from unittest import mock

    from torch import nn

    def move(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:
        for module in self.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(fn(parameter.detach()), parameter.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = fn(buffer)
        return self

    return mock.patch.object(nn.Module, "_apply", move)


def nothing_waits() -> Any:
    """Inside it raise where a tensor goes from the GPU to the CPU, or there without `non_blocking`."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class NothingWaits(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            found = func(*args, **kwargs)
            name = func.overloadpacket.__name__
            if name in ("_to_copy", "copy_"):
                source = args[1] if name == "copy_" else args[0]
                at_once = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
                if source.device.type != found.device.type and not (found.is_cuda and at_once):
                    raise RuntimeError(f"{func} from {source.device} to {found.device} waits for the device")
            elif name in ("index", "index_put", "index_put_"):
                index = [leaf for leaf in tree_leaves(args[1]) if isinstance(leaf, torch.Tensor)]
                if args[0].is_cuda and not all(tensor.is_cuda for tensor in index):
                    raise RuntimeError(f"{func} with an index on the CPU waits for the device")
            return found

    return NothingWaits()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

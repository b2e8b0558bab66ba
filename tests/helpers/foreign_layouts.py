"""Files as other programs write them, made of this program's own states: the layouts, spelt out a second time."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biggan.config import Config
from biggan.training.state import TrainingState

Tensors = dict[str, Tensor]


def trained_state(config: Config) -> TrainingState:
    """A state as after some steps: nothing in it is zero, one or equal to something else by chance."""
    state = TrainingState(config)
    random = torch.Generator().manual_seed(1)
    for name, tensor in state.tensors().items():
        if name.endswith(".step"):
            tensor.fill_(7)
        elif name.endswith((".exp_avg_sq", ".running_var")):
            tensor.copy_(torch.rand(tensor.shape, generator=random) + 0.5)
        elif name.endswith(".u"):
            tensor.copy_(nn.functional.normalize(torch.randn(tensor.shape, generator=random), dim=0))
        elif name.startswith("optim") or tensor.ndim < 2:
            tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.1)
        elif name.startswith("G_ema."):
            tensor.add_(torch.randn(tensor.shape, generator=random) * 0.01)
    state.step = 7
    return state


def _block_numbers(names: Mapping[str, Any], *, deep: bool, of_D: bool) -> dict[int, tuple[int, int]]:
    """Our number of each place in `blocks` -> theirs, (outer, inner), as BigGAN-PyTorch nests them."""
    places = sorted({int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))})
    numbers: dict[int, tuple[int, int]] = {}
    outer, inner = -1, 0
    for place in places:
        if f"blocks.{place}.theta.weight" in names:
            numbers[place] = (outer, inner + 1)
        elif f"blocks.{place}.conv1.weight" in names:
            if deep and of_D and outer >= 0 and inner == 0:
                inner = 1  # the second block of a stage
            else:
                outer, inner = outer + 1, 0
            numbers[place] = (outer, inner)
    return numbers


def _class_first(name: str, tensor: Tensor, config: Config, z: int) -> Tensor:
    """[z, class] -> [class, z] in the columns that take the condition."""
    deep = config.model.family == "biggan-deep"
    takes = re.search(r"norm\d\.(gain|bias)\.weight$", name) or (deep and name == "linear.weight")
    if not (config.model.skip_z and takes):
        return tensor
    return torch.cat([tensor[:, z:], tensor[:, :z]], dim=1).contiguous()


def biggan_pytorch_name(name: str, numbers: Mapping[int, tuple[int, int]], role: str) -> str:
    """Our name of a tensor of G or D -> BigGAN-PyTorch's."""
    found = re.match(r"blocks\.(\d+)\.(.+)", name)
    if found and int(found[1]) in numbers:
        outer, inner = numbers[int(found[1])]
        rest = re.sub(r"^norm(\d)", r"bn\1", found[2].replace("skip", "conv_sc"))
        rest = "gamma" if rest == "gain" else rest
        name = f"blocks.{outer}.{inner}.{rest}"
    elif found:
        name = f"input_conv.{found[2]}"
    elif role == "D":
        name = name.replace("embedding", "embed")
    else:
        name = name.replace("embedding", "shared").replace("to_rgb", "output_layer.2")
        name = name.replace("norm.weight", "output_layer.0.gain").replace("norm.", "output_layer.0.")
    name = name.replace("running_", "stored_")
    return f"{name[:-2]}.u0" if name.endswith(".u") else name


def _z_width(state: TrainingState, config: Config) -> int:
    G: Any = state.G
    return G.z_dim if config.model.family == "biggan-deep" else G.chunk


def _network(state: TrainingState, config: Config, role: str) -> tuple[Tensors, dict[str, str]]:
    """The tensors of a network under BigGAN-PyTorch's names, in another order than ours; and ours -> theirs."""
    own = {"G": state.G, "D": state.D, "G_ema": state.ema.network}[role].state_dict()
    numbers = _block_numbers(own, deep=config.model.family == "biggan-deep", of_D=role == "D")
    names = {name: biggan_pytorch_name(name, numbers, role) for name in own}
    tensors: Tensors = {}
    for name, tensor in own.items():
        kept = _class_first(name, tensor, config, _z_width(state, config)) if role != "D" else tensor
        tensors[names[name]] = kept[None] if name.endswith(".u") else kept
        if name.endswith(".u"):
            tensors[names[name].replace("u0", "sv0")] = torch.ones(1)
    return {name: tensors[name].clone() for name in sorted(tensors)}, names


def _optimizer(
    state: TrainingState, role: str, order: list[str], shaped: Callable[[str, Tensor], Tensor], *, old: bool
) -> dict[str, Any]:
    """Adam's state dict, parameters numbered in this order of our names; `old`: as torch 1.0 numbers and counts."""
    named = dict(state.networks()[role].named_parameters())
    adam = state.optimizers[role]
    numbers = {name: 140_000_000 + 56 * i if old else i for i, name in enumerate(order)}
    saved = {}
    for name, number in numbers.items():
        moments = adam.state[named[name]]
        saved[number] = {key: shaped(name, moments[key]).clone() for key in ("exp_avg", "exp_avg_sq")}
        saved[number]["step"] = 7 if old else moments["step"].clone()
    group = {key: value for key, value in adam.param_groups[0].items() if key != "params"}
    return {"state": saved, "param_groups": [{**group, "params": list(numbers.values())}]}


BUFFERS = (".u", "running_mean", "running_var")


def write_biggan_pytorch(
    state: TrainingState,
    config: Config,
    folder: Path,
    *,
    suffix: str = "",
    wrapped: bool = False,
    old: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """The six files of BigGAN-PyTorch. `wrapped`: as DataParallel names tensors; `old`: torch's format before zip."""
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, content: Any) -> None:
        torch.save(content, folder / f"{name}{suffix}.pth", _use_new_zipfile_serialization=not old)

    for role in ("G", "D", "G_ema"):
        tensors, names = _network(state, config, role)
        save(role, {f"module.{name}" if wrapped else name: tensor for name, tensor in tensors.items()})
        if role != "G_ema":
            own = sorted((name for name in names if not name.endswith(BUFFERS)), key=names.__getitem__)

            def shaped(name: str, moment: Tensor, role: str = role) -> Tensor:
                return _class_first(name, moment, config, _z_width(state, config)) if role == "G" else moment

            save(f"{role}_optim", _optimizer(state, role, own, shaped, old=old))
    if settings is not None:
        said = {"G_activation": nn.ReLU(inplace=True), "D_activation": nn.ReLU(inplace=True), **settings}
        save("state_dict", {"itr": state.step, "epoch": 0, "best_IS": 0, "best_FID": 999999, "config": said})


def _studiogan_name(name: str, numbers: Mapping[int, int], role: str) -> str:
    """Our name -> StudioGAN's, without what spectral normalization adds."""
    if found := re.match(r"blocks\.(\d+)\.(.+)", name):
        if int(found[1]) not in numbers:
            return f"input_conv.{found[2]}"
        rest = re.sub(r"^conv(\d)", r"conv2d\1", found[2]).replace("skip", "conv2d0")
        rest = re.sub(r"^norm(\d)\.running", r"bn\1.bn.running", rest)
        rest = re.sub(r"^norm(\d)", r"bn\1", rest)
        rest = re.sub(r"^(theta|phi|g)\.", r"conv1x1_\1.", rest)
        rest = re.sub(r"^o\.", "conv1x1_attn.", rest)
        return f"blocks.{numbers[int(found[1])]}.0.{'sigma' if rest == 'gain' else rest}"
    if role == "D":
        return name.replace("linear", "linear1")
    name = name.replace("embedding", "shared").replace("linear", "linear0").replace("to_rgb", "conv2d5")
    return re.sub(r"^norm\.", "bn4.", name)


def write_studiogan(state: TrainingState, config: Config, folder: Path) -> None:
    """The three files of StudioGAN."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for role in ("G", "D", "G_ema"):
        own = {"G": state.G, "D": state.D, "G_ema": state.ema.network}[role].state_dict()
        with_input = "blocks.0.weight" in own
        places = sorted({int(found[1]) for name in own if (found := re.match(r"blocks\.(\d+)\.", name))})
        numbers = {place: i for i, place in enumerate(places[1:] if with_input else places)}
        normalized = {name[:-2] for name in own if name.endswith(".u")}
        tensors: Tensors = {}
        names: dict[str, str] = {}
        for name, tensor in own.items():
            layer, _, end = name.rpartition(".")
            theirs = _studiogan_name(name, numbers, role)
            if layer in normalized and end in ("weight", "u"):
                theirs = f"{theirs.rpartition('.')[0]}.{'weight_orig' if end == 'weight' else 'weight_u'}"
            kept = _class_first(name, tensor, config, _z_width(state, config)) if role != "D" else tensor
            tensors[theirs] = kept.reshape(1) if theirs.endswith(".sigma") else kept.clone()
            names[name] = theirs
            if end == "u":
                tensors[theirs.replace("weight_u", "weight_v")] = torch.randn(3)
            if end == "running_mean":
                tensors[theirs.replace("running_mean", "num_batches_tracked")] = torch.tensor(9)
        content: dict[str, Any] = {"state_dict": {name: tensors[name] for name in sorted(tensors)}}
        if role != "G_ema":
            order = sorted((name for name in names if not name.endswith(BUFFERS)), key=names.__getitem__)

            def shaped(name: str, moment: Tensor, role: str = role, names: dict[str, str] = names) -> Tensor:
                moment = _class_first(name, moment, config, _z_width(state, config)) if role == "G" else moment
                return moment.reshape(1) if names[name].endswith(".sigma") else moment

            content["optimizer"] = _optimizer(state, role, order, shaped, old=False)
        if role == "D":
            content |= {"seed": 0, "run_name": "x", "step": state.step, "best_fid": np.float64(12.5), "aa_p": None}
            content |= {"lecam_emas": {"G_loss": 7777, "decay": 0.9}}
        torch.save(content, folder / f"model={role}-current-weights-step={state.step}.pth")

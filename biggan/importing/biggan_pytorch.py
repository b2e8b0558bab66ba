"""Folders of BigGAN-PyTorch: G, D, their optimizers, the average and `state_dict`, one .pth file each.

Architectures, layouts and what that trainer does are facts of its public source, version 98459431a5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from biggan.errors import UserError
from biggan.importing.contents import read_values, state_dict_of
from biggan.importing.conversion import convert
from biggan.importing.foreign import ForeignCheckpoint, ForeignLayout, cannot_import
from biggan.importing.naming import Names

_FILE = re.compile(r"(G_ema|G_optim|D_optim|state_dict|G|D)(?:_(.+))?\.pth")

_INSIDE = {
    r"(conv[1-4]|theta|phi|g|o)": r"\1",
    r"conv_sc": "skip",
    r"bn([1-4])(\.bn)?": r"norm\1",
    r"bn([1-4])\.(gain|bias)": r"norm\1.\2",
}
_ENDS: dict[str, str | None] = {
    "weight": "weight",
    "bias": "bias",
    "u0": "u",
    "gamma": "gain",
    "norm.gain": "weight",
    "stored_mean": "running_mean",
    "stored_var": "running_var",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
_LEFT_OUT = (r".*\.sv\d+", r".*\.u[1-9]\d*", r".*\.accumulation_counter", r".*\.num_batches_tracked")
_BLOCK = r"blocks\.(\d+)\.(\d+)\."
_GENERATOR = Names(
    _BLOCK,
    {"shared": "embedding", "linear": "linear", r"output_layer\.0(\.bn)?": "norm", r"output_layer\.2": "to_rgb"},
    _INSIDE,
    _ENDS,
    left_out=_LEFT_OUT,
)
_OUTSIDE_D = {"linear": "linear", "embed": "embedding", "input_conv": "blocks.0"}


def _find_files(source: Path, which: str | None) -> dict[str, Path]:
    """Role (`G`, `D`, `G_optim`, ...) -> file, of one of the sets in a folder; `which` is a set's suffix.

    Raises `UserError` where there is no set, or several and none is chosen.
    """
    folder = source if source.is_dir() else source.parent
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := _FILE.fullmatch(path.name):
            sets.setdefault(found[2] or "", {})[found[1]] = path
    sets = {suffix: files for suffix, files in sets.items() if {"G", "G_ema"} & files.keys()}
    if source.is_file() and which is None and (found := _FILE.fullmatch(source.name)):
        which = found[2] or ""
    names = ", ".join(sorted(name or "(none)" for name in sets))
    if which is None:
        if not sets:
            raise cannot_import(
                source, "it has no G*.pth of BigGAN-PyTorch", "Give the folder that holds G.pth and D.pth."
            )
        if "" not in sets and len(sets) > 1:
            raise cannot_import(
                source, f"it holds several states, with the suffixes {names}", "Choose one with --which."
            )
        which = "" if "" in sets else next(iter(sets))
    if which not in sets:
        raise UserError(f"--which is '{which}', and {folder} has G*.pth with the suffixes {names}.")
    return sets[which]


def _is_here(source: Path) -> bool:
    """Whether this is such a folder, or a file in one."""
    if source.is_file():
        return _FILE.fullmatch(source.name) is not None
    return any(_FILE.fullmatch(path.name) and path.name.startswith("G") for path in source.iterdir())


def _read(source: Path, which: str | None, optimizers: bool) -> ForeignCheckpoint:
    """Read one state, with or without the optimizers'. Raises `UserError` where it does not map exactly."""
    files = _find_files(source, which)
    found = ForeignCheckpoint("biggan-pytorch", list(files.values()), {}, differences=list(_DIFFERENCES))
    for role in ("G", "G_ema", "D"):
        if role in files:
            tensors = _standing(state_dict_of(files[role], read_values(files[role])))
            names = _names(role, tensors).renamed(files[role], tensors)
            found.networks[role] = {ours: tensors[theirs] for theirs, ours in names.items()}
    saved = {role: files[f"{role}_optim"] for role in ("G", "D") if optimizers and f"{role}_optim" in files}
    convert(found, files, {role: (path, read_values(path)) for role, path in saved.items()})
    _add_settings(found, files.get("state_dict"))
    return found


def _names(role: str, tensors: Mapping[str, Tensor]) -> Names:
    if role != "D":
        return _GENERATOR
    first = 1 if "input_conv.weight" in tensors else 0
    return Names(_BLOCK, _OUTSIDE_D, _INSIDE, _ENDS, first_block=first, left_out=_LEFT_OUT)


def _standing(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, with standing statistics, which are sums while they are accumulated, divided by their count."""
    found = dict(tensors)
    for name, count in tensors.items():
        if name.endswith(".accumulation_counter") and count.item() > 0:
            path = name.removesuffix("accumulation_counter")
            for end in ("stored_mean", "stored_var"):
                found[path + end] = found[path + end] / count.item()
    return found


_SAID = {
    "model.batchnorm_eps": ("BN_eps", 1e-5),
    "model.spectral_norm_eps": ("SN_eps", 1e-8),
    "train.d_steps": ("num_D_steps", 2),
    "ema.decay": ("ema_decay", 0.9999),
}
"""Field -> the name of that program's setting, and its default there."""
_INITIALIZATIONS = {"ortho": "orthogonal", "N02": "normal", "glorot": "xavier", "xavier": "xavier"}


def _add_settings(found: ForeignCheckpoint, path: Path | None) -> None:
    """What `state_dict.pth` says of the run: its step and settings; what it does not say is assumed."""
    content: Any = {}
    try:
        content = read_values(path) if path is not None else {}
    except UserError as error:
        found.differences.append(f"Settings and step could not be read: {error}")
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is not a state of BigGAN-PyTorch's trainer. Expected `itr` and `config`.")
    if isinstance(content.get("itr"), int):
        found.step = content["itr"]
    elif "G" in found.moments:  # one update of G an iteration
        found.step = int(max(t.item() for n, t in found.moments["G"].items() if n.endswith(".step")))
    said = content.get("config")
    settings: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    _check_settings(path, settings)
    fields: dict[str, tuple[str | None, Any]] = {
        field: (name, settings.get(name, default)) for field, (name, default) in _SAID.items()
    }
    accumulate = settings.get("num_D_accumulations", 1)
    fields["train.batch"] = ("batch_size", settings.get("batch_size", 64) * accumulate)
    fields["train.accumulate"] = ("num_D_accumulations", accumulate)
    fields["ema.start"] = ("ema_start", max(settings.get("ema_start", 0) - 1, 0))
    fields["regularizers.orthogonal_G"] = ("G_ortho", settings.get("G_ortho", 0.0) / 2)
    fields["regularizers.orthogonal_D"] = ("D_ortho", settings.get("D_ortho", 0.0) / 2)
    fields["model.init"] = ("G_init", _INITIALIZATIONS.get(str(settings.get("G_init", "ortho")), "orthogonal"))
    for field, (name, value) in fields.items():
        found.fields[field] = value
        if name not in settings:
            found.assumed[field] = value
    found.fields["model.batchnorm_eps_last"] = 1e-5
    _add_differences(found, settings)


_REFUSED = {
    "norm_style": ("bn", "another normalization than BatchNorm in G"),
    "num_G_SV_itrs": (1, "several power iterations a forward in G"),
    "num_D_SV_itrs": (1, "several power iterations a forward in D"),
}
"""Settings that have no equal here, with the only value that has."""


def _check_settings(path: Path | None, settings: Mapping[str, Any]) -> None:
    where = path or "the folder"
    for name, (usual, what) in _REFUSED.items():
        if settings.get(name, usual) != usual:
            raise cannot_import(
                where, f"it was trained with {what} ({name} {settings[name]})", "That has no equal here."
            )
    for name in ("G_nl", "D_nl"):
        if (given := settings.get(name, "relu")) not in ("relu", "inplace_relu", "ir"):
            raise cannot_import(where, f"its activation is {given} ({name})", "Here it is ReLU.")


def _add_differences(found: ForeignCheckpoint, settings: Mapping[str, Any]) -> None:
    """Differences that only some of their runs have."""
    of_G = max(settings.get("G_batch_size", 0), settings.get("batch_size", 64)) * settings.get("num_G_accumulations", 1)
    if settings and of_G != found.fields["train.batch"]:
        found.differences.append(
            f"G's updates took {of_G} images and D's {found.fields['train.batch']}; here both take train.batch."
        )
    tables = not found.fields["model.shared_embedding"]
    if (tables and found.fields["regularizers.orthogonal_G"]) or found.fields["regularizers.orthogonal_D"]:
        found.differences.append(
            "Orthogonal regularization was also on the class embeddings of D and of G's BatchNorms; here on none."
        )
    if settings.get("split_D"):
        found.differences.append("D saw real and generated images in two forwards, with a power iteration in each.")
    if settings and not settings.get("ema") and "G_ema" in found.networks:
        found.differences.append("The run had no average; the one in the files is not of training.")
    if settings.get("G_fp16") or settings.get("D_fp16"):
        found.differences.append("The networks were trained in half precision; here they are float32.")


_DIFFERENCES = (
    "Orthogonal regularization of strength s there is s/2 here, where eq. 3 is as printed.",
    "G's last BatchNorm has an epsilon of 1e-5 whatever BN_eps says (model.batchnorm_eps_last).",
    "The average was over buffers too: BatchNorm statistics and singular vectors; here only over parameters.",
    "Running BatchNorm statistics had the unbiased variance and moved in each forward of G, also in D's updates and in "
    "each micro-batch; here they have the biased one and move once in each update of G. Training uses none of them.",
    "Spectral Normalization did a power iteration in each forward, so in each micro-batch; here one in each update, "
    "which is the same without accumulation.",
    "G's images for an update of D were made in micro-batches, and normalized over each; here in one forward.",
    "Adam of early versions of torch added epsilon before the second moment's bias correction, which tells in the "
    "first few thousand steps only.",
    "In eval mode it did half a power iteration more than here, without keeping it.",
    "The order of the images and their preprocessing were that program's; here they are this one's, from seed 0.",
)
"""What is different in every run of that program."""

BIGGAN_PYTORCH = ForeignLayout("biggan-pytorch", _is_here, _read)
"""`--kind biggan-pytorch`."""

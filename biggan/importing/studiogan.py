"""Checkpoints of StudioGAN: `model=G-current-weights-step=N.pth` and those of D and G_ema beside it.

Of its backbones `big_resnet`, and BigGAN-deep as `big_resnet_deep_legacy`, are this program's networks. Layouts are
facts of its public source.
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

_FILE = re.compile(r"model=(G_ema|G|D)-(\w+)-weights-step=(\d+)\.pth")

_INSIDE = {
    r"conv2d0": "skip",
    r"conv2d([1-4])": r"conv\1",
    r"bn([1-4])\.bn": r"norm\1",
    r"bn([1-4])\.(gain|bias)": r"norm\1.\2",
    r"conv1x1_(theta|phi|g)": r"\1",
    r"conv1x1_attn": "o",
}
_ENDS: dict[str, str | None] = {
    "weight_orig": "weight",
    "weight": "weight",
    "bias": "bias",
    "weight_u": "u",
    "sigma": "gain",
    "running_mean": "running_mean",
    "running_var": "running_var",
}
_LEFT_OUT = (r".*\.weight_v", r".*\.num_batches_tracked")
_BLOCK = r"blocks\.(\d+)\.(\d+)\."
_GENERATOR = Names(
    _BLOCK,
    {"shared": "embedding", "linear0": "linear", "bn4": "norm", "conv2d5": "to_rgb"},
    _INSIDE,
    _ENDS,
    left_out=_LEFT_OUT,
)
_OUTSIDE_D = {"linear1": "linear", "embedding": "embedding", "input_conv": "blocks.0"}


def _find_files(source: Path, which: str | None) -> tuple[dict[str, Path], int]:
    """Role (`G`, `D`, `G_ema`) -> file, and their step: of the set `which` (current or best), the newest.

    Raises `UserError` where there is none.
    """
    folder = source if source.is_dir() else source.parent
    sets: dict[tuple[str, int], dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if found := _FILE.fullmatch(path.name):
            sets.setdefault((found[2], int(found[3])), {})[found[1]] = path
    if source.is_file() and (one := _FILE.fullmatch(source.name)):
        return sets[one[2], int(one[3])], int(one[3])
    kinds = sorted({kind for kind, _ in sets})
    if which is None:
        which = "current" if "current" in kinds else next(iter(kinds), "current")
    steps = [step for kind, step in sets if kind == which]
    if not steps:
        raise UserError(
            f"{folder} has no model=G-{which}-weights-step=N.pth; it has {', '.join(kinds) or 'none'}. Give --which."
        )
    return sets[which, max(steps)], max(steps)


def _is_here(source: Path) -> bool:
    """Whether this is a folder of such files, or one of them."""
    names = [source.name] if source.is_file() else [path.name for path in source.iterdir()]
    return any(_FILE.fullmatch(name) for name in names)


def _read(source: Path, which: str | None, optimizers: bool) -> ForeignCheckpoint:
    """Read one state, with or without the optimizers'. Raises `UserError` where it does not map exactly."""
    files, step = _find_files(source, which)
    found = ForeignCheckpoint("studiogan", list(files.values()), {}, step=step, differences=list(_DIFFERENCES))
    contents = {role: _content(path) for role, path in files.items()}
    for role, content in contents.items():
        tensors = state_dict_of(files[role], content["state_dict"])
        _check_conditioning(files[role], role, tensors)
        names = _names(role, tensors).renamed(files[role], tensors)
        found.networks[role] = {ours: tensors[theirs] for theirs, ours in names.items()}
    saved = {role: contents[role].get("optimizer") for role in ("G", "D") if optimizers and role in contents}
    convert(found, files, {role: (files[role], content) for role, content in saved.items() if content})
    found.fields |= {"model.batchnorm_eps": 1e-4, "model.spectral_norm_eps": 1e-6}
    found.assumed |= _ASSUMED
    found.fields |= _ASSUMED
    return found


def _content(path: Path) -> Mapping[str, Any]:
    content = read_values(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise UserError(f"{path} is not a checkpoint of StudioGAN. Expected `state_dict` and `optimizer`.")
    return content


def _check_conditioning(path: Path, role: str, tensors: Mapping[str, Tensor]) -> None:
    """Refuse, with the reason, what is a network of that program and none of this one's."""
    names = set(tensors)
    reasons = {
        "its G has no class embedding (g_cond_mtd W/O)": role != "D" and "shared.weight" not in names,
        "its G has latents of InfoGAN (info_type)": any(name.startswith("info_") for name in names),
        "its D is not a projection discriminator (d_cond_mtd PD)": role == "D" and not _has_projection(names),
        "its D has BatchNorm instead of Spectral Normalization (apply_d_sn off)": role == "D"
        and any(re.search(r"\.bn\d\.", name) for name in names),
        "it is no BigGAN (backbone)": not any(re.match(_BLOCK, name) for name in names),
    }
    for reason, holds in reasons.items():
        if holds:
            raise cannot_import(
                path, reason, "Only its BigGAN and its BigGAN-Deep (legacy) with cBN and PD map exactly."
            )


def _has_projection(names: set[str]) -> bool:
    whole = any(name.startswith("embedding.") for name in names)
    return whole and not any(name.startswith(("linear2.", "embedding_mi.", "linear_mi.")) for name in names)


def _names(role: str, tensors: Mapping[str, Tensor]) -> Names:
    if role != "D":
        return _GENERATOR
    first = 1 if any(name.startswith("input_conv.") for name in tensors) else 0
    return Names(_BLOCK, _OUTSIDE_D, _INSIDE, _ENDS, first_block=first, left_out=_LEFT_OUT)


_ASSUMED = {
    "train.batch": 256,
    "train.accumulate": 1,
    "train.d_steps": 2,
    "ema.decay": 0.9999,
    "ema.start": 20000,
}
"""What the checkpoints do not say, as most of that program's BigGAN configurations have it."""

_DIFFERENCES = (
    "D saw real and generated images in two forwards, with a power iteration in each; here in one.",
    "The average was over buffers too: BatchNorm statistics and singular vectors; here only over parameters.",
    "Running BatchNorm statistics had the unbiased variance; here they have the biased one.",
    "In eval mode sigma was that of the last training step, with both singular vectors stored; here the right one is "
    "computed from the left one.",
    "Augmentation (DiffAug, ADA, APA), consistency regularization, LeCam and top-k, where they were on, are not here.",
    "The order of the images and their preprocessing were that program's; here they are this one's, from seed 0.",
)
"""What is different in every run of that program."""

STUDIOGAN = ForeignLayout("studiogan", _is_here, _read)
"""`--kind studiogan`."""

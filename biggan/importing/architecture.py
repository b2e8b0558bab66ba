"""The configuration of the networks that tensors are of, from their names and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.config import Config
from biggan.importing.foreign import cannot_import
from biggan.networks import build_networks
from biggan.networks.architectures import BASE_RESOLUTION, TABLE, resolutions

OTHER = "Only what this program's own networks can be exactly is imported; docs/checkpoints.md says what that is."


def generator_fields(path: Path, G: Mapping[str, Tensor]) -> dict[str, Any]:
    """The fields of `model` for a generator, by its tensors in this program's names.

    Raises `UserError` where this program has no such generator.
    """
    kinds = _blocks(G)
    blocks = [kind for kind in kinds if kind != "attention"]
    deep = "deep" in blocks
    doublings = len(blocks) // 2 if deep else len(blocks)
    family, resolution = "biggan-deep" if deep else "biggan", BASE_RESOLUTION * 2**doublings
    if (family, resolution) not in TABLE or not blocks:
        raise cannot_import(path, f"its generator has {len(blocks)} blocks, and no {family} here has", OTHER)
    row = TABLE[family, resolution]
    rows = row.blocks("G")
    places = resolutions(rows, BASE_RESOLUTION)
    _check_skips(path, G, deep=deep)
    fields: dict[str, Any] = {
        "model.family": family,
        "model.resolution": resolution,
        "model.ch_G": len(G["norm.weight"]) // rows[-1].after,
        "model.attention_G": sorted({places[number] for number in _attention(kinds)}),
        "model.spectral_norm_G": "linear.u" in G,
    }
    return fields | _conditioning(path, G, deep=deep, blocks=len(blocks))


def _check_skips(path: Path, G: Mapping[str, Tensor], *, deep: bool) -> None:
    if deep and any(re.fullmatch(r"blocks\.\d+\.skip\.weight", name) for name in G):
        raise cannot_import(
            path,
            "its BigGAN-deep has a convolution in each block's skip connection, where the paper's keeps the first "
            "channels (Figure 16)",
            OTHER,
        )


def _conditioning(path: Path, G: Mapping[str, Tensor], *, deep: bool, blocks: int) -> dict[str, Any]:
    """The fields of z, of the classes and of how they reach the blocks."""
    condition, first = G["blocks.0.norm1.gain.weight"].shape[-1], G["linear.weight"].shape[1]
    if "embedding.weight" not in G:
        table = G["blocks.0.norm1.gain.weight"]
        return {
            "model.shared_embedding": False,
            "model.skip_z": False,
            "model.classes": len(table),
            "model.z_dim": first,
            "model.embedding_dim": None,
        }
    classes, dim = G["embedding.weight"].shape
    z = first - dim if deep else first
    skip = condition == (first if deep else first + dim)
    if z < 1 or (not skip and (deep or condition != dim)):
        raise cannot_import(
            path,
            f"its blocks take a condition of {condition} numbers, and z of {z} with a class embedding of {dim} does "
            "not give that here",
            OTHER,
        )
    return {
        "model.shared_embedding": True,
        "model.skip_z": skip,
        "model.classes": classes,
        "model.z_dim": z * (blocks + 1) if skip and not deep else z,
        "model.embedding_dim": dim,
    }


def discriminator_fields(path: Path, D: Mapping[str, Tensor], model: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `model` for a discriminator, beside those of its generator.

    Raises `UserError` where this program has no such discriminator.
    """
    kinds = _blocks(D)
    rows = TABLE[model["model.family"], model["model.resolution"]].blocks("D")
    blocks = [kind for kind in kinds if kind != "attention"]
    if len(blocks) != len(rows):
        raise cannot_import(
            path,
            f"its discriminator has {len(blocks)} blocks, and that of {model['model.family']} at "
            f"{model['model.resolution']} pixels has {len(rows)} here",
            OTHER,
        )
    width = D["linear.weight"].shape[1]
    ch = width // rows[-1].after
    thin = model["model.family"] == "biggan" and len(D["blocks.0.conv1.weight"]) == 3
    if thin and rows[0].after * ch != 3:
        raise cannot_import(
            path,
            "the first convolution of its discriminator has 3 filters (SN-GAN's channel pattern, D_wide off), and "
            "here it always has the block's width",
            OTHER,
        )
    classes = len(D["embedding.weight"])
    if classes != model["model.classes"]:
        raise cannot_import(path, f"D has {classes} classes and G {model['model.classes']}", "Give files of one model.")
    return {
        "model.ch_D": ch,
        "model.attention_D": [],
        "model.attention_blocks_D": _attention(kinds),
        "model.spectral_norm_D": "linear.u" in D,
    }


def tidied(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The same model in the words that a person would use: one `ch`, and D's attention by resolution where that says
    it, and nothing said that is the resolution's own choice."""
    found = dict(fields)
    if "model.ch_D" not in found or found["model.ch_G"] == found["model.ch_D"]:
        found["model.ch"] = found.pop("model.ch_G")
        found.pop("model.ch_D", None)
    if (numbers := found.get("model.attention_blocks_D")) is not None:
        places = _discriminator_places(found)
        wanted = sorted({places[number] for number in numbers})
        if numbers == [i for i, place in enumerate(places) if place in wanted and place not in places[i + 1 :]]:
            found |= {"model.attention_D": wanted, "model.attention_blocks_D": None}
    return found


def _discriminator_places(fields: Mapping[str, Any]) -> list[int]:
    resolution = fields["model.resolution"]
    return resolutions(TABLE[fields["model.family"], resolution].blocks("D"), resolution)


def _blocks(tensors: Mapping[str, Tensor]) -> list[str]:
    """What stands in each place of `blocks`: "attention", "deep", "plain" or (D's first) "conv"."""
    inside: dict[int, set[str]] = {}
    for name in tensors:
        if found := re.match(r"blocks\.(\d+)\.([\w]+)", name):
            inside.setdefault(int(found[1]), set()).add(found[2])
    kinds = [("attention", "theta"), ("deep", "conv4"), ("plain", "conv1"), ("conv", "weight")]
    return [next((kind for kind, mark in kinds if mark in inside[number]), "unknown") for number in sorted(inside)]


def _attention(kinds: list[str]) -> list[int]:
    """The numbers of the blocks that a non-local block follows."""
    places, blocks = [], -1
    for kind in kinds:
        if kind == "attention":
            places.append(blocks)
        else:
            blocks += 1
    return places


def check_networks(path: Path, networks: Mapping[str, Mapping[str, Tensor]], config: Config) -> None:
    """Raise `UserError` where the networks of `config` have other tensors than those that were read."""
    with torch.device("meta"):
        built = build_networks(config)
    own = {"G": built.G, "G_ema": built.G, "D": built.D}
    for name, tensors in networks.items():
        wanted = own[name].state_dict()
        wrong = [f"{one} is missing" for one in wanted if one not in tensors]
        wrong += [f"{one} is unknown" for one in tensors if one not in wanted]
        wrong += [
            f"{one} is {list(tensors[one].shape)}, expected {list(tensor.shape)}"
            for one, tensor in wanted.items()
            if one in tensors and tensors[one].shape != tensor.shape
        ]
        if wrong:
            more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise cannot_import(
                path, f"{name} is not a {config.model.family} of this program ({', '.join(wrong[:3])}{more})", OTHER
            )

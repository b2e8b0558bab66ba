"""BigGAN-deep as DeepMind published it, in the layout of the package pytorch-pretrained-biggan: config.json and a state
dict. A generator alone, its averaged weights, with BatchNorm statistics for 51 truncations of z.

Layouts are facts of the package's version 0.1.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.errors import UserError
from biggan.evaluation.stored_statistics import STORED_STATISTICS, stored_at
from biggan.importing.architecture import generator_fields
from biggan.importing.contents import read_values, state_dict_of
from biggan.importing.conversion import unit_vector
from biggan.importing.foreign import ForeignCheckpoint, ForeignLayout, cannot_import
from biggan.importing.naming import Names
from biggan.networks.architectures import BASE_RESOLUTION, TABLE
from biggan.run.small_files import read_json

_CONFIG = "config.json"

_BLOCK = r"generator\.layers\.(\d+)\."
_GENERATOR = Names(
    _BLOCK,
    {
        "embeddings": "embedding",
        r"generator\.gen_z": "linear",
        r"generator\.bn": "norm",
        r"generator\.conv_to_rgb": "to_rgb",
    },
    {
        **{f"conv_{k}": f"conv{k + 1}" for k in range(4)},
        **{f"bn_{k}": f"norm{k + 1}" for k in range(4)},
        **{rf"bn_{k}\.scale": f"norm{k + 1}.gain" for k in range(4)},
        **{rf"bn_{k}\.offset": f"norm{k + 1}.bias" for k in range(4)},
        r"snconv1x1_(theta|phi|g)": r"\1",
        "snconv1x1_o_conv": "o",
    },
    {
        **{"weight": "weight", "weight_orig": "weight", "bias": "bias", "weight_u": "u", "gamma": "gain"},
        **{"running_means": "means", "running_vars": "variances"},
    },
    left_out=(r".*\.weight_v",),
)


def _find_files(source: Path) -> tuple[Path, Path]:
    """The configuration and the weights. Raises `UserError` where they are not there."""
    folder = source if source.is_dir() else source.parent
    configs, weights = (sorted(folder.glob(f"*{end}")) for end in (_CONFIG, ".bin"))
    weights = [source] if source.is_file() and source.suffix != ".json" else weights
    if len(weights) != 1 or not configs:
        raise cannot_import(
            source,
            f"it holds {len(configs)} files *{_CONFIG} and {len(weights)} files *.bin",
            "Give a folder with config.json and pytorch_model.bin of one model.",
        )
    stem = weights[0].name.replace("pytorch_model.bin", _CONFIG)
    return next((path for path in configs if path.name == stem), configs[0]), weights[0]


def _is_here(source: Path) -> bool:
    """Whether this is such a folder, or a file in one."""
    folder = source if source.is_dir() else source.parent
    return any(folder.glob(f"*{_CONFIG}")) and any(folder.glob("*.bin"))


def _read(source: Path, which: str | None, optimizers: bool) -> ForeignCheckpoint:
    """Read the generator. Raises `UserError` where it does not map exactly."""
    config_path, path = _find_files(source)
    config = read_json(config_path, "Copy it again.")
    tensors = state_dict_of(path, read_values(path))
    names = _GENERATOR.renamed(path, tensors)
    named = {ours: tensors[theirs] for theirs, ours in names.items()}
    statistics = {name: tensor for name, tensor in named.items() if name.endswith((".means", ".variances"))}
    G = {name: tensor for name, tensor in named.items() if name not in statistics}
    G["embedding.weight"] = G["embedding.weight"].t().contiguous()
    sigma = _last_sigma(G, tensors)
    G |= _running(statistics)
    fields = generator_fields(path, G)
    fields |= {"model.spectral_norm_rgb": False, "model.batchnorm_eps": float(config.get("eps", 1e-4))}
    fields["model.spectral_norm_eps"] = fields["model.batchnorm_eps"]
    _check_config(config_path, config, fields)
    found = ForeignCheckpoint(
        "biggan-deep-hub", [config_path, path], {}, step=0, fields=fields, differences=list(_DIFFERENCES)
    )
    found.networks["G_ema"] = _converted(G, sigma)
    found.others = {f"{STORED_STATISTICS}{name}": tensor for name, tensor in statistics.items()}
    return found


def _last_sigma(G: dict[str, Tensor], tensors: Mapping[str, Tensor]) -> Tensor:
    """What the published network divides its last convolution by: sigma of all its `ch` filters."""
    matrix = G["to_rgb.weight"].flatten(1)
    place = "generator.conv_to_rgb"
    v = tensors.get(f"{place}.weight_v")
    u = G.pop("to_rgb.u")
    if v is None:
        v = unit_vector(matrix.t() @ u)
    return torch.dot(u, matrix @ v)


def _converted(G: Mapping[str, Tensor], sigma: Tensor) -> dict[str, Tensor]:
    """The tensors in this program's form: the last convolution's three filters in use, divided by sigma; the first
    layer's rows by channel, then place; singular vectors of length 1; attention's gain as a scalar."""
    found = dict(G)
    found["to_rgb.weight"] = (G["to_rgb.weight"][:3] / sigma).contiguous()
    found["to_rgb.bias"] = G["to_rgb.bias"][:3].contiguous()
    for name in ("linear.weight", "linear.bias", "linear.u"):
        places = BASE_RESOLUTION, BASE_RESOLUTION
        rows = G[name].unflatten(0, (*places, -1))
        found[name] = rows.movedim(2, 0).flatten(0, 2).contiguous()
    for name, tensor in found.items():
        if name.endswith(".u"):
            found[name] = unit_vector(tensor)
        elif name.startswith("blocks.") and name.endswith(".gain") and tensor.numel() == 1:
            found[name] = tensor.reshape(())
    return found


def _running(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Running statistics: those stored for a truncation of 1."""
    ends = {"means": "running_mean", "variances": "running_var"}
    return {
        f"{name.rpartition('.')[0]}.{ends[name.rpartition('.')[2]]}": stored_at(tensor, 1.0)
        for name, tensor in statistics.items()
    }


def _check_config(path: Path, config: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    """Raise `UserError` where the configuration describes another network than the tensors are of."""
    row = TABLE["biggan-deep", fields["model.resolution"]]
    layers = [[block.kind == "up", block.before, block.after] for block in row.blocks("G")]
    given = config.get("layers", layers)
    if fields["model.family"] != "biggan-deep" or [list(layer) for layer in given] != layers:
        raise UserError(
            f"{path} has the layers {given}, and BigGAN-deep at {fields['model.resolution']} pixels has {layers} here."
        )
    said = {"output_dim": "model.resolution", "num_classes": "model.classes", "z_dim": "model.z_dim"}
    for name, field in said.items():
        if name in config and config[name] != fields[field]:
            raise UserError(
                f"{path} has {name} {json.dumps(config[name])}, and the tensors are of {fields[field]}. Give the "
                "configuration of these weights."
            )


_DIFFERENCES = (
    "The last convolution there has more filters than the three in use, divided by sigma of all of them; here it "
    "has three, with sigma folded into their weights and model.spectral_norm_rgb off.",
    "Truncation there is t times a normal cut at -2 and 2 (--truncation-kind scaled); here entries beyond t are drawn "
    "again.",
    "BatchNorm statistics there are stored for 51 truncations (--statistics stored); the package interpolates between "
    "two with their weights swapped, which is not done here. By default this program computes standing statistics.",
    "Sigma there is that of the stored singular vectors; here it is that of the weights (power iterations to the end).",
    "It is the average of a generator: there is no discriminator, and nothing to train on with.",
)
"""What is different from this program's own runs."""

DEEP_HUB = ForeignLayout("biggan-deep-hub", _is_here, _read)
"""`--kind biggan-deep-hub`."""

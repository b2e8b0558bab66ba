"""An imported checkpoint as a run directory, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from biggan.config import Config, flatten, from_dict, to_dict, unflatten
from biggan.errors import UserError
from biggan.importing.architecture import check_networks, tidied
from biggan.importing.contents import file_facts
from biggan.importing.foreign import ForeignCheckpoint
from biggan.run.checkpoint import save_checkpoint
from biggan.run.directory import RunDirectory, make_event


@dataclass(frozen=True)
class Imported:
    """A run that was made of a foreign checkpoint."""

    run: RunDirectory
    config: Config
    checkpoint: Path
    step: int
    trains: bool
    """Whether it can be resumed and branched."""
    assumed: dict[str, Any]
    """Fields that neither the files nor the caller said."""


OF_SHAPES = {
    *("model.family", "model.resolution", "model.classes", "model.ch", "model.ch_G", "model.ch_D", "model.z_dim"),
    *("model.shared_embedding", "model.embedding_dim", "model.skip_z", "model.attention_G", "model.attention_D"),
    *("model.attention_blocks_D", "model.spectral_norm_G", "model.spectral_norm_D", "model.spectral_norm_rgb"),
}
"""Fields that the tensors decide, which cannot be given."""


def configuration_of(found: ForeignCheckpoint, given: Mapping[str, Any], step: int) -> Config:
    """The configuration of the run: what the files say, then the fields `given` by the caller.

    It has no data yet: `data.source` is auto, without a path. Raises `UserError` for fields that do not go together.
    """
    shape = {name: value for name, value in tidied(found.fields).items() if name in OF_SHAPES}
    for name in shape.keys() & given.keys():
        if given[name] != shape[name]:
            raise UserError(f"{name} is {given[name]}, and by the shapes of its tensors it is {shape[name]}. Omit it.")
    fields = flatten(to_dict(Config())) | {"data.source": "auto", "steps": max(step, 1)}
    fields |= {"model.embedding_dim": None} | tidied(found.fields)
    return from_dict(unflatten(fields | dict(given)))


def write_run(
    found: ForeignCheckpoint, source: Path, out: Path, given: Mapping[str, Any], step: int | None
) -> Imported:
    """Make the run directory `out` of what was read from `source`.

    `given` are fields of the configuration that go before what the files say, `step` the same for the step.
    Raises `UserError`, before anything is written, where the networks are not those of the configuration, or the files
    do not say a step and none is given.
    """
    run = RunDirectory(out)
    run.check_new()
    at = found.step if step is None else step
    if at is None:
        raise UserError(f"the files in {source} do not say their step. Give it with --step N.")
    config = configuration_of(found, given, at)
    check_networks(source, found.networks, config)
    with_average(found)
    tensors = tensors_of(found)
    assumed = {name: value for name, value in found.assumed.items() if name not in given}
    facts = {
        "imported": {
            "kind": found.kind,
            "step": at,
            "source": str(source.resolve()),
            "files": file_facts(found.files),
            "trains": found.trains,
            "assumed": assumed,
            "differences": found.differences,
        }
    }
    name = f"step-{at:08d}.safetensors"

    def fill(made: RunDirectory) -> None:
        made.append_event(make_event("started", at, imported=found.kind))
        digest = save_checkpoint(made.checkpoints / name, tensors, at, to_dict(config))
        made.append_event(make_event("checkpoint", at, path=f"checkpoints/{name}", digest=digest))
        made.append_event(make_event("finished", at))  # nothing is left to do until a resume gives more steps

    run.create_whole(config, facts, fill)
    run.unlock()
    return Imported(run, config, run.checkpoints / name, at, found.trains, assumed)


def with_average(found: ForeignCheckpoint) -> None:
    """Where the files have no average, G stands for it, and the run says so."""
    if "G_ema" not in found.networks:
        found.networks["G_ema"] = {name: tensor.clone() for name, tensor in found.networks["G"].items()}
        found.differences.append("The files hold no average of G: it begins as a copy of G.")


def tensors_of(found: ForeignCheckpoint) -> dict[str, Tensor]:
    """The checkpoint's tensors by the names that a run's have; those with a fraction as float32."""
    named = {f"{role}.{name}": tensor for role, one in found.networks.items() for name, tensor in one.items()}
    for role, moments in found.moments.items():
        named |= {f"optim_{role}.{name}": tensor for name, tensor in moments.items()}
    named |= found.others
    other = sorted({str(t.dtype).removeprefix("torch.") for t in named.values() if t.dtype != torch.float32})
    if other:
        found.differences.append(f"The files hold {', '.join(other)}; here all is float32.")
    return {name: tensor.float() for name, tensor in named.items()}

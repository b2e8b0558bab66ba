"""Opening a run, new or resumed: everything is checked before anything is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from biggan.choices import check_names
from biggan.config import Config, differences, flatten, to_dict
from biggan.data.headers import check_headers
from biggan.data.images import Source
from biggan.data.sources.opening import open_source
from biggan.distributed.collectives import copy_from_main, from_main
from biggan.distributed.consensus import all_ranks_or_none, check_alike
from biggan.distributed.launch import launch_id, restarts
from biggan.distributed.ranks import BatchShard, is_main, local_world_size
from biggan.errors import UserError
from biggan.evaluation.features.cache import cache_folder
from biggan.evaluation.reference import check_classes
from biggan.objective.gradient_penalties import strengths
from biggan.permissions import check_features
from biggan.run.checkpoint import Checkpoint, checkpoint_paths, newest_checkpoint, save_checkpoint
from biggan.run.directory import RunDirectory, default_path, make_event
from biggan.run.folding import load_state
from biggan.run.heap import keep_freed_memory
from biggan.run.small_files import edits_not_read
from biggan.training.state import TrainingState
from spectra.monitor.vectors import copy_directions
from spectra.record.segments import truncate_record


@dataclass
class Session:
    """What a trainer is made of."""

    config: Config
    run: RunDirectory
    state: TrainingState
    source: Source
    notes: list[str] = field(default_factory=list)
    """Notes for the user before training begins."""
    about_scores: list[str] = field(default_factory=list)
    """What to say of the scores once more when training has ended."""


def open_new(
    config: Config, preset: str, facts: Mapping[str, Any] | None = None, *, left_to_data: Collection[str] = ()
) -> Session:
    """A new run of `config` in `config.out`; `facts` join its run.json.

    `left_to_data` are fields that nobody gave beside `data.path`: model.classes becomes the data's number of classes,
    and what they are is said. Raises `UserError` before anything is written.
    """
    run = RunDirectory(Path(from_main(config.out or str(default_path(preset)))))
    config = _on_this_device(config, run.path)
    with all_ranks_or_none():
        if is_main():
            run.check_new()
            if 0 < config.eval.every <= config.steps:
                cache_folder()  # evaluations may need it
        source = _open_data(config, any_classes="model.classes" in left_to_data)
        config = with_classes(config, len(source.classes))
        if 0 < config.eval.every <= config.steps and config.data.train_per_class is None:
            images = source.train if config.eval.reference == "train" else source.val
            check_classes(images, source.classes, config.eval.reference)  # before there is a run directory
        state = TrainingState(config, config.device, initialize=is_main())
    check_alike(source.identity(), "other data")
    with all_ranks_or_none():
        if is_main():
            started = make_event("started", 0, preset=preset)
            all_facts = {**_data_facts(source), **(facts or {})}
            run.create_whole(config, all_facts, lambda made: made.append_event(started))
    copy_from_main(state.tensors())
    notes = [said_of_data(config, left_to_data)] if left_to_data else []
    return Session(config, run, state, source, [*notes, *source.notes, *config_notes(config)])


def with_classes(config: Config, classes: int) -> Config:
    """`config` for data of so many classes."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, classes=classes))


def said_of_data(config: Config, names: Collection[str]) -> str:
    """What was taken from the data, for the user."""
    values = flatten(to_dict(config))
    listed = ", ".join(f"{name} {values[name]}" for name in sorted(names))
    options = " and ".join(f"--{name}" for name in sorted(names))
    return f"taken from the data in {config.data.path}: {listed} ({options} would decide otherwise)"


def open_branched(
    config: Config,
    checkpoint: Checkpoint,
    facts: Mapping[str, Any],
    prepare: Callable[[TrainingState], None],
    *,
    events: Iterable[Mapping[str, Any]] = (),
    data: Mapping[str, Any] | None = None,
    past: Path | None = None,
) -> Session:
    """A new run in `config.out` that continues from `checkpoint` with `config`, with the same noise and images.

    `prepare` may change the loaded state in place; what comes out is saved as the run's first checkpoint. `facts`
    join its run.json, and `events`, which belong to the time before, its list of events. `data`, where it is given,
    is what the data must be (see `Source.identity`). `past` is the run that the checkpoint is of: how far singular
    vectors turn is measured from those that it last recorded. Raises `UserError` before anything is written; the
    directory appears under its name when it is whole.
    """
    run = RunDirectory(Path(config.out or ""))
    config = dataclasses.replace(config, device=resolve_device(config.device))
    run.check_new()
    source = _open_data(config)
    if data is not None:
        _changed_data(dict(data), source.identity(), checkpoint.path.parent.parent, allow_change=False)
    state = TrainingState(config, config.device, initialize=False)
    load_state(state, checkpoint, config)
    prepare(state)

    def fill(made: RunDirectory) -> None:
        for event in events:
            made.append_event(event)
        if past is not None:
            copy_directions(past, made.path, state.step)
        lineage = {name: facts[name] for name in ("parent", "changes") if name in facts}
        made.append_event(make_event("started", state.step, **lineage))
        path = made.checkpoints / f"step-{state.step:08d}.safetensors"
        digest = save_checkpoint(path, state.tensors(), state.step, to_dict(config))
        made.append_event(make_event("checkpoint", state.step, path=f"checkpoints/{path.name}", digest=digest))

    run.create_whole(config, {**_data_facts(source), **facts}, fill)
    return Session(
        config, run, state, source, [*source.notes, f"branching at step {state.step}", *config_notes(config)]
    )


@dataclass(frozen=True)
class ResumePoint:
    """Where a resumed run continues: the newest checkpoint that verifies, or step 0 if none was saved yet."""

    config: Config
    checkpoint: Checkpoint | None
    skipped: list[str]
    """Why each newer checkpoint was skipped."""

    @property
    def step(self) -> int:
        """The number of finished steps."""
        return 0 if self.checkpoint is None else self.checkpoint.step


def find_start(path: Path) -> ResumePoint:
    """Where the run in `path` continues. Raises `UserError` if it is not a run, or if all its checkpoints are damaged.

    Rank 0 alone reads it and has the checkpoint's tensors.
    """
    with all_ranks_or_none():
        start = _find_start(path) if is_main() else None
    bare = start
    if start is not None and start.checkpoint is not None:
        bare = dataclasses.replace(start, checkpoint=dataclasses.replace(start.checkpoint, tensors={}))
    sent = from_main(bare)
    return start or sent


def _find_start(path: Path) -> ResumePoint:
    if not checkpoint_paths(path):
        config = RunDirectory(path).read_config()
        saved = [e["step"] for e in RunDirectory(path).events() if e["event"] == "checkpoint"]
        if saved:
            raise UserError(
                f"{path} has no checkpoint left, although one of step {max(saved)} was saved there. Put the files "
                "back into "
                f"{path}/checkpoints, or begin a new run with another --out."
            )
        return ResumePoint(config, None, [])
    checkpoint, skipped = newest_checkpoint(path)
    return ResumePoint(RunDirectory(path).with_data(checkpoint.config), checkpoint, skipped)


def is_run_in(path: Path) -> bool:
    """Whether a run was begun in this directory. Only rank 0 looks, and sends the answer to all ranks."""
    with all_ranks_or_none():
        begun = is_main() and RunDirectory(path).is_begun()
    return bool(from_main(begun))


def run_to_continue(out: str | None, preset: str) -> Path | None:
    """The run that this launch began before torchrun restarted its processes (`--max-restarts`); else none.

    Only rank 0 looks, and sends the answer to all ranks.
    """
    if restarts() == 0:
        return None
    found: Path | None = None
    for path in ([Path(out)] if out else sorted(Path("runs").glob(f"{preset}*"))) if is_main() else ():
        try:
            run = RunDirectory(path)
            launch = run.facts().get("launch")
        except (OSError, UserError):
            continue
        if launch and launch == launch_id() and run.is_begun():
            found = path
    return from_main(found)


def check_resumed(
    config: Config, path: Path, start: ResumePoint, *, allow_change: bool
) -> tuple[Config, dict[str, list[Any]]]:
    """`config` on this device, and what it changes in the numbers of the run in `path`.

    Raises `UserError` for a change that `allow_change` does not allow, and for another directory.
    """
    if config.out is not None and Path(config.out) not in (path, Path(start.config.out or path)):
        raise UserError(f"--out is {config.out}, but a resumed run stays in its directory {path}. Omit --out.")
    config = _on_this_device(config, path)
    with all_ranks_or_none():
        return config, _changed_numbers(config, start, path, allow_change=allow_change)


def open_resumed(config: Config, path: Path, start: ResumePoint, *, allow_change: bool) -> Session:
    """The run in `path` at `start`, under `config`.

    Raises `UserError`, before anything is written, where `config` or other data would change the numbers and
    `allow_change` is off, where the run has reached its last step, where the state does not fit, or where another
    process has the run.
    """
    config, changed = check_resumed(config, path, start, allow_change=allow_change)
    run = RunDirectory(path)
    with all_ranks_or_none():
        if start.step >= config.steps:
            raise UserError(
                f"the run in {path} has reached step {start.step}, and --steps is {config.steps}. To train further, "
                f"give a larger total."
            )
        source = _open_data(config)
        data = source.identity()
        before = (run.data_identity() if is_main() else None) or data
        changed |= _changed_data(before, data, path, allow_change=allow_change)
        state = TrainingState(config, config.device, initialize=is_main() and start.checkpoint is None)
        if is_main() and start.checkpoint is not None:
            load_state(state, start.checkpoint, config)
    check_alike(data, "other data")
    notes: list[str] = []
    with all_ranks_or_none():
        if is_main():
            notes = _reopen(run, config, start, changed, source)
    copy_from_main(state.tensors())
    state.step = start.step
    return Session(config, run, state, source, notes)


def _data_facts(source: Source) -> dict[str, Any]:
    """The data's entry in run.json: its identity, and the classes' names by their numbers."""
    return {"data": source.identity(), "class_names": list(source.classes)}


def _reopen(
    run: RunDirectory, config: Config, start: ResumePoint, changed: dict[str, list[Any]], source: Source
) -> list[str]:
    """Discard what lies after `start`, and record that the run continues. Returns notes for the user."""
    run.lock()
    elsewhere = run.changed_facts(config)
    unread = [] if start.checkpoint is None else edits_not_read(run.path / "config.yaml", start.config)
    truncate_record(run.path, start.step)
    run.supersede_events(start.step)
    run.write_config(config)
    data = source.identity()
    run.write_data_identity(data, source.classes)
    event = {"skipped": start.skipped, "changes": changed, "other_versions": elsewhere, "data": data}
    run.append_event(make_event("resumed", start.step, **event))
    notes = [f"skipped: {reason}" for reason in start.skipped] + unread
    notes += [
        f"{name} was {old} when the run began and is {new}: bits may differ" for name, (old, new) in elsewhere.items()
    ]
    return [*notes, *source.notes, f"resuming at step {start.step}", *config_notes(config)]


def _on_this_device(config: Config, path: Path) -> Config:
    """`config` with its run directory and device, after checking that all ranks have the same."""
    with all_ranks_or_none():
        config = dataclasses.replace(config, out=str(path), device=resolve_device(config.device))
    check_alike(flatten(to_dict(config)), "another configuration")
    with all_ranks_or_none():
        BatchShard(config.train.batch, config.train.accumulate)  # an image for each rank
    return config


def _changed_numbers(config: Config, start: ResumePoint, path: Path, *, allow_change: bool) -> dict[str, list[Any]]:
    """What differs from the run's own configuration in fields that decide the numbers; refused unless allowed."""
    before = dataclasses.replace(start.config, device=resolve_device(start.config.device))
    changed = differences(before, config, numbers_only=True)
    if changed and not allow_change:
        listed = "; ".join(f"{name}: {old} -> {new}" for name, (old, new) in changed.items())
        raise UserError(
            f"these options would change the numbers of the run in {path}: {listed}. To continue it exactly, "
            f"omit them or give the run's own values; to continue with them, give --allow-change."
        )
    return {name: list(pair) for name, pair in changed.items()}


DATA_FACTS = {
    "train": "training images",
    "val": "validation images",
    "classes": "classes",
    "images": "images by name",
    "labels": "labels",
    "class_names": "class names",
}
"""What `Source.identity` says of the data, in words."""


def _changed_data(
    before: dict[str, Any], now: dict[str, Any], path: Path, *, allow_change: bool
) -> dict[str, list[Any]]:
    """How the data differs from the run's recorded data. Raises `UserError` unless allowed."""
    changed = {name: [before.get(name), now[name]] for name in now if before.get(name) != now[name]}
    if changed and not allow_change:
        counts = [f"{DATA_FACTS[name]}: {old} -> {new}" for name, (old, new) in changed.items() if isinstance(new, int)]
        others = [DATA_FACTS[name] for name, (_, new) in changed.items() if not isinstance(new, int)]
        listed = "; ".join([*counts, *([f"other {', '.join(others)}"] if others else [])])
        raise UserError(
            f"the data differs from the data that the run in {path} was trained on (before -> now): {listed}. Give the "
            f"--data.path of the same data to continue it exactly, or --allow-change to continue with this data."
        )
    return {f"data.{name}": pair for name, pair in changed.items()}


def _open_data(config: Config, *, any_classes: bool = False) -> Source:
    """The data, after setting the configured arithmetic and checking the names in the configuration."""
    use_arithmetic(config)
    check_names(config)
    if config.eval.every:
        check_features(config.eval.features)
    source = open_source(config, any_classes=any_classes)
    if is_main():
        check_headers(source, config.data)
    return source


def resolve_device(device: str) -> Literal["cpu", "cuda"]:
    """ "cpu" or "cuda". Raises `UserError` for a GPU that is not there: each process of a machine needs its own."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gpus, processes = torch.cuda.device_count(), local_world_size()
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here. Give --device cpu, or auto.")
    if device == "cuda" and gpus < processes:
        raise UserError(
            f"{processes} processes of this machine need one GPU each, but torch finds {gpus} here."
            f" Start {gpus} (torchrun --nproc-per-node {gpus}), or give --device cpu."
        )
    return "cuda" if device == "cuda" else "cpu"


def use_arithmetic(config: Config) -> None:
    """Set what the bits depend on: CPU threads, and deterministic algorithms on a GPU. On a CPU keep freed memory."""
    torch.set_num_threads(config.threads)
    if config.device == "cpu":
        keep_freed_memory()
    if config.device == "cuda":
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(config.deterministic)
        # No bits depend on memory that nothing has written.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = not config.deterministic


def config_notes(config: Config) -> list[str]:
    """Notes for the user of `config`."""
    notes = []
    if config.speed.compile and strengths(config):
        notes.append(
            f"speed.compile: only G is compiled. The penalty on D's gradient ({', '.join(strengths(config))}) needs a "
            f"second derivative, which compiled code does not have"
        )
    has_batchnorm = {"G": config.model.norm_G == "batch", "D": config.model.norm_D != "none"}
    normalized = [name for name, has in has_batchnorm.items() if has]
    if config.train.accumulate == 1 or not normalized:
        return notes
    micro = config.train.batch // config.train.accumulate
    whose = " and ".join(f"{name}'s" for name in normalized)
    return [
        *notes,
        f"gradient accumulation: in {whose} updates BatchNorm normalizes each micro-batch of {micro} by its own "
        f"statistics (over all processes), unlike an undivided batch of {config.train.batch}; for D's updates G "
        "makes all "
        f"{config.train.batch} images in one forward pass",
    ]

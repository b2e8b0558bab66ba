"""Replays one step of a run and records every image, logit and gradient.

The step is replayed from the last checkpoint before it. Its numbers are compared with the recorded ones, to show that
the replay is what happened in the run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.errors import UserError, check_exists
from biggan.run.checkpoint import Checkpoint, all_checkpoints
from biggan.run.directory import run_of
from biggan.training.observer import Observer
from interventions.branch.parent import Parent, find_parent, listed

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from biggan.data.images import Source
    from biggan.training.state import TrainingState
    from biggan.training.trainer import Trainer
    from interventions.branch.timeline import Phase

MOST_AHEAD = 500
"""The most steps that are replayed to reach the requested one."""


@dataclass
class ReplayedStep:
    """One replayed step."""

    step: int
    since: int
    """The checkpoint that it was replayed from."""
    stats: dict[str, float]
    recorded: dict[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def different(self) -> dict[str, tuple[float, float]]:
        """Numbers that differ from the recorded ones in any bit: name -> (replayed, recorded)."""
        pairs = {name: (value, self.recorded[name]) for name, value in self.stats.items() if name in self.recorded}
        return {n: (a, b) for n, (a, b) in pairs.items() if a != b and not (math.isnan(a) and math.isnan(b))}

    @property
    def equal(self) -> bool:
        """Whether numbers were recorded, and all replayed ones equal them."""
        return bool(set(self.stats) & set(self.recorded)) and not self.different

    def images(self) -> pd.DataFrame:
        """One row per image that D saw: update ("D" or "G"), k, kind ("real" or "fake"), position in the batch, index
        among the training images (real ones), class, logit, input_gradient (|d logit / d image|), loss_slope
        (|d loss / d logit|) and parameter_gradient (the norm of its part of D's gradient, without penalties; NaN in G's
        update)."""
        import pandas as pd

        return pd.DataFrame(self.rows)


def replay_step(place: str | Path, step: int) -> ReplayedStep:
    """Replay step `step` of a run (the first step is 1); `place` is the run or one of its checkpoints.

    Nothing is written. Raises `UserError` if no checkpoint lies close before the step (the message lists those that
    exist), or if the run has not reached the step.
    """
    check_exists(place)
    run = Path(place) if Path(place).is_dir() else None
    if run is None:
        found = run_of(Path(place))
        if found is None:
            raise UserError(f"{place} is not in a run directory, and a replay needs the run's record. Give the run.")
        run = found.path
    recorded = _recorded(run, step)
    files = {at: path for at, path in all_checkpoints(run).items() if at < step}
    if not files or step - max(files) > MOST_AHEAD:
        raise UserError(
            f"no checkpoint of {run} lies close before step {step} (at most {MOST_AHEAD} steps): it has checkpoints of "
            f"steps {listed(run)}. Choose a step soon after one of them."
        )
    parent = find_parent(files[max(files)])
    trainer, batches = _play(parent, step - 1)
    lens = ForwardRecorder(trainer)
    trainer.observers.members.append(lens)
    with lens:
        stats = trainer.train_step(batches)
    return ReplayedStep(step, parent.step, stats, recorded, lens.rows)


def _recorded(run: Path, step: int) -> dict[str, float]:
    from spectra.record.segments import last_step, read_record

    last = last_step(run)
    if step < 1 or last is None or step > last:
        raise UserError(f"--at is {step}, but the record of {run} goes from step 1 to {last or 0}.")
    record = read_record(run)
    mine = record[record["step"] == step]
    return dict(zip(mine["name"].astype(str), mine["value"].astype(float), strict=True))


def _play(parent: Parent, step: int) -> tuple[Trainer, Any]:
    """A trainer in memory whose state is that after `step`, and its batches from there on."""
    from biggan.data.loader import training_batches
    from biggan.data.sources.opening import open_source
    from biggan.run.directory import RunDirectory
    from biggan.run.session import use_arithmetic
    from biggan.training.trainer import Trainer
    from interventions.branch.timeline import make_timeline

    checkpoint = parent.checkpoint
    phases = make_timeline(checkpoint.config, parent.step, step + 1, [], *parent.open_changes()).phases
    for phase in phases:
        use_arithmetic(phase.config)
        source = open_source(phase.config)
        state = _state(checkpoint, phase)
        trainer = Trainer(phase.config, state, source, RunDirectory(Path("nowhere")), [])
        batches = training_batches(phase.config, source, state.step)
        while state.step < min(phase.stop, step):
            trainer.train_step(batches)
        checkpoint = _in_memory(checkpoint, state, phase)
    return trainer, batches


def _state(checkpoint: Checkpoint, phase: Phase) -> TrainingState:
    import torch

    from biggan.run.folding import load_state
    from biggan.training.state import TrainingState

    state = TrainingState(phase.config, phase.config.device, initialize=False)
    load_state(state, checkpoint, phase.config)
    with torch.no_grad():
        for change in phase.operations:
            change.operate(state, phase.config)
    return state


def _in_memory(checkpoint: Checkpoint, state: TrainingState, phase: Phase) -> Checkpoint:
    tensors = {name: tensor.detach().clone() for name, tensor in state.tensors().items()}
    return Checkpoint(checkpoint.path, state.step, phase.config, "", True, tensors)


class ForwardRecorder(Observer):
    """Observes every forward pass of D in an update, with that update's normalized weights, without changing
    anything."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.state = trainer, trainer.state
        self.rows: list[dict[str, Any]] = []
        self._inside = False
        self._network, self._k, self._micro = "D", 0, 0
        config = trainer.config
        self._size = config.train.batch // config.train.accumulate

    def __enter__(self) -> ForwardRecorder:
        D = self.state.D
        self._parts = D.parts
        D.parts = self._watched  # type: ignore[method-assign]  # every forward of D goes through it
        return self

    def __exit__(self, *_: object) -> None:
        del self.state.D.parts

    def _watched(self, x: Tensor, y: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self._parts(x, y, mask)
        self._look(x, y, mask)
        return found

    def before_update(self, network: str, k: int) -> None:
        """Begin a new update: count its forward passes from 0."""
        self._network, self._k, self._micro = network, k, 0

    def _look(self, images: Tensor, labels: Tensor, mask: Tensor | None) -> None:
        expected = self._size * (2 if self._network == "D" else 1)
        if self._inside or len(images) != expected:  # a penalty's own pass, or the one below
            return
        self._inside = True
        try:
            self._record(images, labels, mask)
        finally:
            self._inside = False
        self._micro += 1

    def _record(self, images: Tensor, labels: Tensor, mask: Tensor | None) -> None:
        import torch

        from biggan.networks.batchnorm import not_collecting

        D = self.state.D
        with torch.enable_grad(), not_collecting(D):
            x = images.detach().requires_grad_()
            logits = D(x, labels, mask=mask)
            derivatives = self._loss_derivatives(logits.detach())
            (gradient,) = torch.autograd.grad(logits.sum(), x, retain_graph=True)
            parameters = [p for p in D.parameters() if p.requires_grad]
            norms = [math.nan] * len(logits)
            if self._network == "D":
                norms = [
                    _norm(torch.autograd.grad(logit, parameters, retain_graph=True, allow_unused=True))
                    for logit in logits
                ]
        inputs = gradient.flatten(1).norm(dim=1).tolist()
        indices = self._indices()
        for i, logit in enumerate(logits.tolist()):
            real = self._network == "D" and i >= self._size
            position = self._micro * self._size + i % self._size
            self.rows.append(
                {
                    "update": self._network,
                    "k": self._k,
                    "kind": "real" if real else "fake",
                    "position": position,
                    "index": indices[position] if real else -1,
                    "class": int(labels[i]),
                    "logit": logit,
                    "input_gradient": inputs[i],
                    "loss_slope": abs(derivatives[i]),
                    "parameter_gradient": abs(derivatives[i]) * norms[i],
                }
            )

    def _loss_derivatives(self, logits: Tensor) -> list[float]:
        """d loss / d logit of every image, where the loss is the mean over the global batch."""
        import torch

        updater, accumulate = self.trainer.updater, self.trainer.config.train.accumulate
        logits = logits.requires_grad_()
        if self._network == "D":
            fake, real = logits.split(self._size)
            of_real, of_fake = updater.loss.discriminator(real, fake)
            loss = of_real + of_fake
        else:
            loss = updater.loss.generator(logits)
        (derivatives,) = torch.autograd.grad(loss / accumulate, logits)
        return derivatives.tolist()

    def _indices(self) -> list[int]:
        from biggan.data.sampler import PositionalSampler

        config, source = self.trainer.config, self._source
        sampler = PositionalSampler(
            len(source.train), batch=config.train.batch, d_steps=config.train.d_steps, seed=config.seed
        )
        return [position.index for position in sampler.positions(self.state.step, self._k)]

    @property
    def _source(self) -> Source:
        return self.trainer.source


def _norm(gradients: tuple[Tensor | None, ...]) -> float:
    import torch

    return float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients if g is not None])))


def describe(replayed: ReplayedStep, most: int = 8) -> str:
    """What was replayed, whether it equals the record, and the images with the largest gradients."""
    known = sorted(set(replayed.stats) & set(replayed.recorded))
    lines = [f"step {replayed.step}, replayed from the checkpoint of step {replayed.since}:"]
    lines += [f"  {name:<24}{value:.6g}" for name, value in replayed.stats.items()]
    if replayed.equal:
        lines.append(f"All {len(known)} numbers equal the recorded ones, bit for bit.")
    elif not known:
        lines.append("The record has none of these numbers for this step, so nothing could be compared.")
    else:
        lines.append("The replayed step differs from the recorded one:")
        lines += [f"  {name}: {a!r}, recorded {b!r}" for name, (a, b) in replayed.different.items()]
    frame = replayed.images()
    for update in ("D", "G"):
        mine = frame[frame["update"] == update]
        key = "parameter_gradient" if update == "D" else "input_gradient"
        if len(mine):
            top = mine.sort_values(key, ascending=False).head(most)
            lines.append(f"{update}'s update, the {len(top)} of {len(mine)} images with the largest {key}:")
            top = top.drop(columns="update").dropna(axis="columns", how="all")  # G's update has no gradient in D
            top["index"] = top["index"].where(top["index"] >= 0, "")  # which image of the data: a real one's alone
            lines.append(top.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    return "\n".join(lines)

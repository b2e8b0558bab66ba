"""One call of `biggan-eval`: the checkpoints, their evaluation, and where results are stored."""

from __future__ import annotations

import dataclasses
import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed

from biggan.config import Config
from biggan.data.sources.opening import open_source
from biggan.errors import UserError, check_exists
from biggan.evaluation.bias import bias_warning
from biggan.evaluation.discriminator import DiscriminatorScores, discriminator_scores, draw_discriminator_scores
from biggan.evaluation.evaluator import Evaluator, Settings
from biggan.evaluation.generate import BLOCK, LatentSpec, block_count
from biggan.evaluation.pictures.grids import load_generator
from biggan.evaluation.pictures.strips import class_difficulty, interpolations, nearest_neighbours, truncation_strips
from biggan.evaluation.reference import SplitName, make_reference, open_complete_source
from biggan.evaluation.scores import class_leakage, compute_scores, unknown_scores
from biggan.evaluation.shares import SampleShard
from biggan.evaluation.stored_statistics import with_stored_statistics
from biggan.evaluation.table import ScoreRow, ScoreTable, csv_text
from biggan.evaluation.truncation import Curve, draw_curve, truncation_curve
from biggan.networks import build_discriminator
from biggan.networks.base import GeneratorNetwork
from biggan.observers.evaluation import to_json
from biggan.run.checkpoint import Checkpoint, CheckpointError, checkpoint_at, checkpoint_paths, read_checkpoint
from biggan.run.directory import run_of
from biggan.run.files import check_out
from biggan.run.heap import keep_freed_memory
from biggan.run.session import resolve_device
from spectra.record.files import make_folder, write_text

MOST_LEAKAGE = 100  # classes up to which the leakage matrix is stored


def print_note(text: str) -> None:
    """Print a progress note on stderr."""
    print(text, file=sys.stderr, flush=True)


@dataclass
class EvaluationJob:
    """What `biggan-eval` was asked to do, opened and checked."""

    paths: list[Path]
    evaluator: Evaluator
    settings: Settings
    share: SampleShard
    folder: Path
    config: Config
    device: str

    @classmethod
    def open(cls, arguments: Namespace, share: SampleShard) -> EvaluationJob:
        """Find the checkpoints, the features and the real images. Raises `UserError` where one is missing."""
        given = Path(arguments.ckpt)
        paths, first = find_checkpoints(given, every=arguments.all)
        run = run_of(first.path)
        config = first.config if run is None else run.with_data(first.config)
        if arguments.data_path is not None:
            config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=arguments.data_path))
        device = resolve_device(arguments.device)
        if device == "cpu":
            keep_freed_memory()
        if share.ranks > block_count(arguments.samples):
            raise UserError(
                f"{share.ranks} processes share {arguments.samples} samples in blocks of {BLOCK}, so at least one "
                "would "
                f"have none. Start at most {block_count(arguments.samples)} processes."
            )
        folder = _folder_of(arguments, paths[0])
        if share.is_main:
            check_out(folder)
        if share.ranks > 1:  # what is trained and measured once is made by one of them
            _main_first(share)
        evaluator = Evaluator.of_run(
            config,
            arguments.features,
            weights=arguments.weights,
            reference=arguments.reference,
            report=print_note if share.is_main else lambda text: None,
            device=device,
        )
        if share.ranks > 1:
            _others_follow(share)
        settings = evaluator.settings(
            "raw" if arguments.raw else "ema",
            samples=arguments.samples,
            passes=arguments.standing_passes,
            truncation=arguments.truncation,
            seed=arguments.seed,
            truncation_kind=arguments.truncation_kind,
            statistics=arguments.statistics,
        )
        labels = torch.arange(arguments.samples) % config.model.classes  # as `LatentSpec` assigns them
        unknown = unknown_scores(labels, evaluator.reference)
        if arguments.truncation_curve is not None and "is" in unknown:
            raise UserError(f"--truncation-curve needs the IS, which {unknown['is']}. Give more --samples.")
        if share.is_main:
            report_beforehand(evaluator, arguments.samples, unknown)
        return cls(paths, evaluator, settings, share, folder, config, device)

    def scores(self) -> ScoreTable:
        """Score every checkpoint, and the real images beside them."""
        table = ScoreTable.open(self.settings, self.folder)
        many = len(self.paths) > 1
        for path in self.paths:
            table.add(self._row(read_checkpoint(path), strict=not many))
            if many and self.share.is_main:
                print_note(f"{path.name} scored")
        table.real = self.real_rows()
        return table

    def _row(self, checkpoint: Checkpoint, *, strict: bool) -> ScoreRow:
        if strict and not checkpoint.finite:
            raise UserError(f"{checkpoint.path} holds NaN or Inf, so it cannot be scored. Choose an earlier one.")
        sampler = self._sampler(checkpoint)
        embedded = self.evaluator.embed(sampler, self.settings, checkpoint.step, self.share)
        found: dict[str, float] = {}
        if has_discriminator(checkpoint):
            found = self._discriminator_scores(checkpoint, sampler, min(self.settings.samples, 1000)).memorization()
        leakage = None
        classes = self.config.model.classes
        if self.evaluator.reference.own_classes and classes <= MOST_LEAKAGE:
            leakage = class_leakage(embedded, classes).tolist()
        return ScoreRow(
            of=checkpoint.path.name,
            step=checkpoint.step,
            images=len(embedded),
            scores=compute_scores(embedded, self.evaluator.reference),
            digest=checkpoint.digest,
            accuracies={name[9:]: value for name, value in found.items() if name.startswith("accuracy/")},
            memorization={name: value for name, value in found.items() if not name.startswith("accuracy/")},
            leakage=leakage,
        )

    def real_rows(self) -> list[ScoreRow]:
        """The splits of real images that there are, as many of each as samples are scored, or as there are (C.3)."""
        source = open_complete_source(self.config)
        rows = []
        splits: list[SplitName] = ["train", "val"] if len(source.val) else ["train"]
        for split in splits:
            try:
                subset = make_reference(self.evaluator.network, source, split, self.device).subset
            except UserError as error:  # the evaluator's own split has passed
                if self.share.is_main:
                    print_note(f"real {split} images are not scored: {error}")
                continue
            subset = subset.take(slice(0, self.settings.samples))
            if self.share.is_main:
                for name, reason in unknown_scores(subset.labels, self.evaluator.reference).items():
                    print_note(f"real {split}: {name} is nan: it {reason}")
            rows.append(ScoreRow(f"real {split}", None, len(subset), compute_scores(subset, self.evaluator.reference)))
        return rows

    def truncation_curve(self, thresholds: list[float]) -> tuple[Curve, list[Path]]:
        """The curve of one checkpoint, and the CSV, JSON and plot that were written."""
        checkpoint = self._one()
        real = next((row for row in self.real_rows() if row.of == "real val"), None)
        G = load_generator(checkpoint, raw=self.settings.weights == "raw").to(self.device)
        curve = truncation_curve(
            self.evaluator,
            G,
            self.settings,
            thresholds,
            (float("nan"), 0) if real is None else (real.scores.get("is", float("nan")), real.images),
            step=checkpoint.step,
            report=lambda p: print_note(f"threshold {'none' if p.threshold is None else f'{p.threshold:.3g}'} scored"),
        )
        stem = self._stem("truncation-curve", checkpoint)
        paths = [self._made(stem + ending) for ending in (".csv", ".json", ".png")]
        whole = {
            "checkpoint": checkpoint.path.name,
            "digest": checkpoint.digest,
            "settings": self.settings.as_dict(),
            "validation_is": curve.validation_is,
            "validation_images": curve.validation_images,
            "table2": {name: point and point.as_dict() for name, point in curve.table2().items()},
            "amenable": curve.amenable(),
        }
        facts = {name: value for name, value in self.settings.as_dict().items() if name != "truncation"}
        write_text(paths[0], csv_text([point.as_dict() | facts for point in curve.points]))
        write_text(paths[1], json.dumps(to_json(whole), indent=1, allow_nan=False) + "\n")
        title = f"step {checkpoint.step}, {_law(self.settings)}, {self.settings.samples:,} samples per threshold"
        draw_curve(curve, paths[2], title)
        return curve, paths

    def discriminator(self) -> tuple[DiscriminatorScores, list[Path]]:
        """D's scores at one checkpoint, and the files that were written."""
        checkpoint = self._one()
        if not has_discriminator(checkpoint):
            raise UserError(f"{checkpoint.path} holds a generator alone, and D's scores need a discriminator.")
        found = self._discriminator_scores(checkpoint, self._sampler(checkpoint), self.settings.samples)
        stem = self._stem("discriminator", checkpoint)
        paths = [self._made(stem + ending) for ending in (".json", ".png")]
        whole = {
            "checkpoint": checkpoint.path.name,
            "digest": checkpoint.digest,
            "settings": self.settings.as_dict(),
            "images": {name: len(logits) for name, logits in found.logits.items()},
            "accepted_as_real": found.accepted_as_real(),
            "memorization": found.memorization(),
            "by_class": dict(zip(found.classes, found.by_class(), strict=True)),
        }
        write_text(paths[0], json.dumps(to_json(whole), indent=1, allow_nan=False) + "\n")
        title = f"D after step {checkpoint.step}; generated by {_law(self.settings)}"
        draw_discriminator_scores(found, paths[1], title)
        return found, paths

    def pictures(self) -> list[Path]:
        """Draw all pictures of one checkpoint."""
        checkpoint = self._one()
        sampler = self._sampler(checkpoint)
        embedded = self.evaluator.embed(sampler, self.settings, checkpoint.step)
        source = open_source(self.config)
        draw = self._draw(checkpoint)
        about = f"step {checkpoint.step}, {_law(self.settings)}"
        found = {
            "interpolations": interpolations(sampler, draw, source.classes, about),
            "neighbours": nearest_neighbours(self.evaluator, sampler, source.train, draw, source.classes, about),
        }
        if self.config.latents.distribution in ("normal", "annealed_normal"):
            found["truncation-strips"] = truncation_strips(sampler, draw, source.classes, about)
        if self.evaluator.reference.by_class is not None:
            found["classes"] = class_difficulty(self.evaluator, sampler, embedded, draw, source.classes, about)
        paths = []
        for name, picture in found.items():
            paths.append(self._made(self._stem(name, checkpoint) + ".png"))
            picture.save(paths[-1])
        return paths

    def _sampler(self, checkpoint: Checkpoint) -> GeneratorNetwork:
        """The generator that is scored, under its statistics."""
        G = load_generator(checkpoint, raw=self.settings.weights == "raw").to(self.device)
        if self.settings.statistics == "stored":
            return with_stored_statistics(G, checkpoint.tensors, self.settings.truncation, checkpoint.path)
        return self.evaluator.sampler(G, self.settings, checkpoint.step)

    def _draw(self, checkpoint: Checkpoint) -> LatentSpec:
        settings = self.settings
        return LatentSpec(
            self.config.latents, settings.seed, checkpoint.step, settings.truncation, settings.truncation_kind
        )

    def _stem(self, kind: str, checkpoint: Checkpoint) -> str:
        """A file's name without its ending: what, of which step, and a digest of all settings."""
        return f"{kind}-step-{checkpoint.step:08d}-{self.settings.weights}-{self.settings.key()[:8]}"

    def _discriminator_scores(
        self, checkpoint: Checkpoint, sampler: GeneratorNetwork, count: int
    ) -> DiscriminatorScores:
        prefix = "D."
        D = build_discriminator(checkpoint.config)
        D.load_state_dict(
            {name.removeprefix(prefix): t for name, t in checkpoint.tensors.items() if name.startswith(prefix)}
        )
        draw = self._draw(checkpoint)
        return discriminator_scores(D.to(self.device).eval(), open_source(self.config), sampler, draw, count)

    def _one(self) -> Checkpoint:
        checkpoint = read_checkpoint(self.paths[0])
        if not checkpoint.finite:
            raise UserError(f"{checkpoint.path} holds NaN or Inf, so it cannot be judged. Choose an earlier one.")
        return checkpoint

    def _made(self, name: str) -> Path:
        try:
            make_folder(self.folder)
        except OSError as error:
            raise UserError(f"cannot make {self.folder}: {error}. Choose another --out.") from error
        return self.folder / name


def has_discriminator(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint holds D; one that was imported may hold a generator alone."""
    return any(name.startswith("D.") for name in checkpoint.tensors)


def _folder_of(arguments: Namespace, checkpoint: Path) -> Path:
    """Where the results are stored."""
    if arguments.out:
        return Path(arguments.out)
    return (checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent) / "evaluations"


def report_beforehand(evaluator: Evaluator, samples: int, unknown: Mapping[str, str]) -> None:
    """Print which scores will be NaN because there are too few samples."""
    if warning := bias_warning(evaluator.reference, samples, "--samples"):
        print_note(warning)
    for name, reason in unknown.items():
        print_note(f"{name} will be nan: it {reason}")


def find_checkpoints(given: Path, *, every: bool) -> tuple[list[Path], Checkpoint]:
    """The checkpoint files that are meant, and the first of them, read: a file, a run's newest, or all of a run's."""
    check_exists(given)
    if every:
        if not given.is_dir():
            raise UserError(f"--all is for a run directory, and {given} is not one. Give RUN, or omit --all.")
        paths = checkpoint_paths(given)
        if not paths:
            raise CheckpointError(f"{given} has no checkpoints (RUN/checkpoints/step-*.safetensors).")
        return paths, read_checkpoint(paths[0])
    checkpoint = checkpoint_at(given)
    return [checkpoint.path], checkpoint


def _law(settings: Settings) -> str:
    return "averaged weights" if settings.weights == "ema" else "the generator's own weights"


def _main_first(share: SampleShard) -> None:
    if not share.is_main:
        torch.distributed.barrier()


def _others_follow(share: SampleShard) -> None:
    if share.is_main:
        torch.distributed.barrier()

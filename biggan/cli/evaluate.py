"""`biggan-eval`: scores of checkpoints, truncation curves, what D memorizes, and pictures to look at."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, Parser, add_generation_options, add_version, guarded
from biggan.errors import UserError
from biggan.evaluation.registry import SCORES

if TYPE_CHECKING:
    from biggan.evaluation.job import EvaluationJob

_KEPT = "What was evaluated before is kept."


def eval_main(argv: list[str] | None = None) -> int:
    """`biggan-eval`. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan-eval", _eval, argv, stopped=f"stopped. {_KEPT}", kept=_KEPT)


def _eval(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    _check(arguments)
    from biggan.evaluation.job import EvaluationJob
    from biggan.evaluation.shares import joined
    from biggan.permissions import permitted
    from spectra.linalg.tf32 import tf32

    with permitted([arguments.features], trust_cache=arguments.trust_cache), tf32(False), joined() as share:
        job = EvaluationJob.open(arguments, share)
        if arguments.truncation_curve is not None:
            _curve(job, arguments.truncation_curve)
        elif arguments.discriminator:
            _discriminator(job)
        elif arguments.pictures:
            for path in job.pictures():
                print(path)
        else:
            _scores(job)
    return EXIT_DONE


def _check(arguments: argparse.Namespace) -> None:
    for name, least in (("samples", 2), ("standing_passes", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            option = name.replace("_", "-")
            raise UserError(f"--{option} is {getattr(arguments, name)}, expected at least {least}.")
    if arguments.truncation is not None and not arguments.truncation > 0:
        given = arguments.truncation
        raise UserError(f"--truncation is {given}, expected a threshold above 0 (the paper's: 0.04 to 2).")
    if arguments.truncation_curve is not None and arguments.statistics == "stored":
        raise UserError("--truncation-curve is under standing statistics. Omit --statistics stored.")
    if arguments.truncation_curve is not None:
        from biggan.evaluation.truncation import parse_thresholds

        arguments.truncation_curve = parse_thresholds(arguments.truncation_curve)
        if arguments.truncation is not None:
            raise UserError("--truncation (one threshold) and --truncation-curve (many) exclude each other. Omit one.")
    asked = [
        name
        for name, on in (
            ("--all", arguments.all),
            ("--truncation-curve", arguments.truncation_curve is not None),
            ("--discriminator", arguments.discriminator),
            ("--pictures", arguments.pictures),
        )
        if on
    ]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are different tasks. Give only one of them.")


def _scores(job: EvaluationJob) -> None:
    table = job.scores()
    if job.share.is_main:
        print(table.in_words())
        for path in table.save():
            print(path)


def _curve(job: EvaluationJob, thresholds: list[float]) -> None:
    from biggan.evaluation.table import aligned, short

    curve, paths = job.truncation_curve(thresholds)
    print(curve.settings.in_words().replace("z as in training, ", ""))
    rows = {"no truncation": curve.points[0], **curve.table2()}
    del rows["untruncated"]
    shown = [
        {"": name, "threshold": "not reached"}
        if p is None
        else {"": name, "threshold": "none" if p.threshold is None else f"{p.threshold:.3g}"}
        | {score: short(value) for score, value in p.scores.items()}
        for name, p in rows.items()
    ]
    print("\n".join(["", *aligned(shown)]))
    yes, why = curve.amenable()
    count = curve.validation_images
    fewer = ", fewer than the samples, which lowers it" if count < curve.settings.samples else ""
    if count:
        print(f"\nIS of the validation images: {curve.validation_is:.4g} ({count:,} images{fewer})")
    else:
        print("\nNo validation images were scored, so their IS is not known.")
    print(f"amenable to truncation: {'yes' if yes else 'no'}; {why}")
    for path in paths:
        print(path)


def _discriminator(job: EvaluationJob) -> None:
    from biggan.evaluation.table import aligned

    found, paths = job.discriminator()
    called = found.accepted_as_real()
    made = job.settings.in_words().split(" samples, ")[1].split("; ")[0]  # without what D does without
    print(f"accepted as real by D; generated: {made}\n")
    rows = [{"": "all", **{name: f"{share:.1%}" for name, share in called.items()}}]
    for name, shares in zip(found.classes, found.by_class(), strict=True):
        percentages = [f"{share:.1%}" for share in shares.values()]
        rows.append({"": name, **dict(zip(shares, percentages, strict=True))})
    print("\n".join(aligned(rows)))
    known = found.memorization()
    if "validation" not in called:
        print("\nThe data has no validation images (data.no_validation), so what D memorizes is not known.")
    print("\nwhatever its threshold (AUC 0.5: cannot tell them apart; gap in units of the logits' spread):")
    pairs = {"train_val": "training, validation", "real_fake": "training, generated"}
    pairs["val_fake"] = "validation, generated"
    rows = [{"": name, "AUC": f"{known[f'auc/{key}']:.3f}"} for key, name in pairs.items() if f"auc/{key}" in known]
    if "gap/train_val" in known:
        rows[0]["gap"] = f"{known['gap/train_val']:.3f}"
    print("\n".join(aligned(rows)))
    for path in paths:
        print(path)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="biggan-eval",
        description=f"Score a generator by {', '.join(SCORES)}. By default it uses the averaged weights with standing "
        "statistics. Every score is printed and stored with its settings: the features and their digest, the reference "
        "split, the number of samples, truncation, standing passes and weights.",
        epilog="Under torchrun every process generates its share of the samples. Exit codes: 0 done, 2 bad "
        "input, 1 anything else.",
    )
    add_version(parser)
    add = parser.add_argument
    add("--ckpt", required=True, metavar="PATH", help="a checkpoint file, or a run directory (its newest)")
    add(
        "--all",
        action="store_true",
        help="score every checkpoint of the run, with D's accuracies, in a table over steps",
    )
    add("--truncation-curve", metavar="LOW:HIGH:N", help="FID and IS at N thresholds: CSV, plot, Table 2's points")
    add(
        "--discriminator",
        action="store_true",
        help="D's accuracy on training, validation and generated images, and what D memorizes",
    )
    add(
        "--pictures",
        action="store_true",
        help="draw grids, interpolations, nearest training images and truncation strips",
    )
    add("--raw", action="store_true", help="use the generator's own weights instead of their average")
    add(
        "--samples",
        type=int,
        default=10_000,
        metavar="N",
        help="number of generated images (default 10000; the paper: 50000)",
    )
    add_generation_options(parser)
    add("--features", default="classifier", metavar="NAME", help="classifier (default), inception, or module:Name")
    add("--weights", metavar="FILE", help="the weights of the inception features; default: in the cache folder")
    add("--reference", choices=("train", "val"), default="train", help="real images to compare with (default train)")
    add("--standing-passes", type=int, default=100, metavar="N", help="forward passes for standing statistics (100)")
    add("--seed", type=int, default=0, help="seed of the latents (default 0)")
    add("--data-path", metavar="PATH", help="where the run's data is now; default: where it was in training")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to compute (default auto)",
    )
    add("--trust-cache", action="store_true", help="use files of the cache that belong to other users")
    add("--out", metavar="DIR", help="where to store the results; default: RUN/evaluations")
    return parser


if __name__ == "__main__":
    sys.exit(eval_main())

"""The command `biggan-sample`: a labelled grid, many images, or a film strip."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, Parser, add_generation_options, add_version, guarded
from biggan.errors import UserError

if TYPE_CHECKING:
    import argparse

    from biggan.evaluation.export import ExportSpec
    from biggan.run.checkpoint import Checkpoint

FILES_NOT_WRITTEN = {".png", ".jpg", ".jpeg", ".npy", ".pt", ".zip", ".tar", ".gz", ".tgz", ".h5"}
PROGRESS_IMAGES = 4096


def sample_main(argv: list[str] | None = None) -> int:
    """`biggan-sample`. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan-sample", _sample, argv, stopped="stopped; no grid was written.", kept="No grid was written.")


def _sample(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    draw: Callable[[argparse.Namespace], object]
    if arguments.film_strip:
        draw = _film_strip
    elif arguments.around is not None:
        raise UserError("--around needs --film-strip RUN. Name the run, or omit --around.")
    elif not arguments.ckpt:
        raise UserError("no checkpoint was given. Give --ckpt FILE, or --film-strip RUN.")
    else:
        draw = _grid if arguments.num is None else _many_images
    if arguments.num is None:
        from biggan.run.files import check_out

        check_out(Path(arguments.out or "x").parent)
    from spectra.linalg.tf32 import tf32

    with tf32(False):
        print(draw(arguments))
    return EXIT_DONE


def _grid(arguments: argparse.Namespace) -> Path:
    """The picture's path."""
    from biggan.evaluation.pictures.grids import save_checkpoint_grid

    return save_checkpoint_grid(
        Path(arguments.ckpt),
        Path(arguments.out) if arguments.out else None,
        per_class=arguments.per_class,
        classes=arguments.classes,
        truncation=arguments.truncation,
        seed=arguments.seed,
        raw=arguments.raw,
        passes=arguments.standing_passes,
        truncation_kind=arguments.truncation_kind,
        stored=arguments.statistics == "stored",
        report=_say,
    )


def _many_images(arguments: argparse.Namespace) -> Path | str:
    """The path of the file or folder; if other processes have not finished yet, a sentence that says so."""
    _check_many(arguments)
    from biggan.evaluation.export import export_samples
    from biggan.evaluation.pictures.grids import load_generator
    from biggan.evaluation.shares import share_from_environment
    from biggan.run.checkpoint import checkpoint_at
    from biggan.run.session import resolve_device

    given, out, share = Path(arguments.ckpt), Path(arguments.out), share_from_environment()
    checkpoint = checkpoint_at(given)
    G = load_generator(checkpoint, raw=arguments.raw).to(resolve_device("auto"))
    complete = export_samples(checkpoint, G, _export_spec(arguments, checkpoint), out, share, advance=_Counter().add)
    return out if complete else f"process {share.rank} of {share.ranks} is done; others are still running"


def _check_many(arguments: argparse.Namespace) -> None:
    if arguments.out is None:
        raise UserError("--num needs --out: give --out samples.npz, or --out with a folder for PNG files.")
    if Path(arguments.out).suffix in FILES_NOT_WRITTEN and not Path(arguments.out).is_dir():
        raise UserError(
            f"--out is {arguments.out}: with --num, expected a name that ends in .npz, or a folder for PNG files."
        )
    if arguments.classes is not None or arguments.per_class != 8:
        raise UserError("--num draws all classes in turn. Omit --classes and --per-class.")
    for name, value in (("--num", arguments.num), ("--standing-passes", arguments.standing_passes)):
        if value < 1:
            raise UserError(f"{name} is {value}, expected at least 1.")


def _export_spec(arguments: argparse.Namespace, checkpoint: Checkpoint) -> ExportSpec:
    from biggan.evaluation.export import ExportSpec
    from biggan.run.directory import class_names_of

    return ExportSpec(
        checkpoint=checkpoint.digest,
        step=checkpoint.step,
        weights="raw" if arguments.raw else "ema",
        num=arguments.num,
        seed=arguments.seed,
        truncation=arguments.truncation,
        standing_passes=arguments.standing_passes,
        class_names=class_names_of(checkpoint.path, checkpoint.config.model.classes),
        truncation_kind=arguments.truncation_kind,
        statistics=arguments.statistics,
    )


class _Counter:
    """Prints the number of images on stderr, every few thousand images."""

    made = 0

    def add(self, images: int) -> None:
        before, self.made = self.made, self.made + images
        if self.made // PROGRESS_IMAGES > before // PROGRESS_IMAGES:
            print(f"{self.made:,} images made by this process", file=sys.stderr, flush=True)


def _film_strip(arguments: argparse.Namespace) -> Path:
    """The picture's path."""
    others = {
        "--num": arguments.num is not None,
        "--ckpt": arguments.ckpt,
        "--truncation": arguments.truncation,
        "--statistics stored": arguments.statistics == "stored",
        "--raw": arguments.raw,
    }
    if given := [name for name, is_given in others.items() if is_given]:
        raise UserError(f"{given[0]} does not go with --film-strip, which shows a run's checkpoints. Omit it.")
    from biggan.evaluation.pictures.film_strip import draw_film_strip

    return draw_film_strip(
        Path(arguments.film_strip),
        Path(arguments.out) if arguments.out else None,
        around=arguments.around,
        frames=arguments.frames,
        classes=arguments.classes,
        seed=arguments.seed,
        passes=arguments.standing_passes,
        report=_say,
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="biggan-sample",
        description="Draw a labelled grid of samples, one row per class (averaged weights, standing statistics).",
    )
    add_version(parser)
    add = parser.add_argument
    add(
        "--ckpt",
        metavar="FILE",
        help="RUN/checkpoints/step-*.safetensors, or a run directory (its newest)",
    )
    add(
        "--out",
        metavar="PATH",
        help="the picture to write (default: samples-STEP-....png in this folder); for --num see there",
    )
    add(
        "--num",
        type=int,
        metavar="N",
        help="write N images instead of a grid, classes in turn, to --out: FILE.npz, or a folder of PNG files. If it "
        "is killed, the same command continues; under torchrun every process makes its share",
    )
    add(
        "--classes",
        type=int,
        nargs="+",
        metavar="C",
        help="class numbers (in the order of class_names in run.json); default: the first 10",
    )
    add("--per-class", type=int, default=8, metavar="N", help="images per class (default 8)")
    add_generation_options(parser)
    add("--seed", type=int, default=0, help="seed of the latents (default 0)")
    add("--raw", action="store_true", help="use the generator's own weights instead of their average")
    add("--standing-passes", type=int, default=100, metavar="N", help="forward passes for standing statistics (100)")
    strip = parser.add_argument_group(
        "film strip", "Samples of the same latents from the checkpoints around an event."
    ).add_argument
    strip(
        "--film-strip",
        metavar="RUN",
        help="the run to draw; with it --out, --classes, --seed and --standing-passes apply",
    )
    strip(
        "--around",
        type=int,
        metavar="STEP",
        help="the middle of the strip; default: the onset of the collapse, or the first alarm or spike, or the last "
        "step",
    )
    strip("--frames", type=int, default=9, metavar="N", help="how many checkpoints (default 9)")
    return parser

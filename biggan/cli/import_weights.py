"""The command `biggan-import`: other people's checkpoints as run directories."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, Parser, add_version, guarded
from biggan.errors import UserError

if TYPE_CHECKING:
    import argparse

    from biggan.importing.foreign import ForeignCheckpoint
    from biggan.importing.writing import Imported


def import_main(argv: list[str] | None = None) -> int:
    """`biggan-import`. Returns the exit code: 0 done, 2 bad input, 1 anything else."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded("biggan-import", _import, argv, stopped="stopped; no run was made.", kept="No run was made.")


def _import(argv: list[str]) -> int:
    arguments, others = _parser().parse_known_args(argv)
    if arguments.step is not None and not 0 <= arguments.step < 10**15:
        raise UserError(f"--step is {arguments.step}, expected 0 or more.")
    given = _fields(others, arguments.resolution)
    from biggan.importing.layouts import layout_of
    from biggan.importing.writing import write_run
    from biggan.run.directory import RunDirectory

    source, out = Path(arguments.source), Path(arguments.out)
    layout = layout_of(source, arguments.kind)
    RunDirectory(out).check_new()  # before minutes of reading
    found = layout.read(source, arguments.which, not arguments.no_optimizers)
    _say(write_run(found, source, out, given, arguments.step), found)
    return EXIT_DONE


def _fields(others: list[str], resolution: int | None) -> dict[str, Any]:
    """Fields of the configuration by dotted name, from options such as `--train.batch 2048`."""
    given: dict[str, Any] = {}
    if others:
        from biggan.cli.options import FLAGS, parse

        line = parse(others)
        if flags := [name for name, default in FLAGS.items() if line.flags[name] != default]:
            raise UserError(f"biggan-import takes no {flags[0].replace('_', '-')}: {' '.join(others)}. Omit it.")
        given = line.levels[-1]
    return given if resolution is None else {**given, "model.resolution": resolution}


def _say(made: Imported, found: ForeignCheckpoint) -> None:
    """What was imported, what is assumed and different, and what can be done with it."""
    from biggan.data.notes import classes_in_words

    model = made.config.model
    widths = f"ch {model.ch}" if model.width_G == model.width_D else f"ch {model.width_G} in G, {model.width_D} in D"
    classes = classes_in_words(model.classes)
    print(f"imported {found.kind}: {model.family}, {model.resolution} pixels, {classes}, {widths}")
    print(f"step {made.step}: {made.checkpoint}")
    if made.assumed and made.trains:
        print("not in the files, and assumed (give the right value as an option of biggan-import):")
        print("\n".join(f"  --{name} {_shown(value)}" for name, value in made.assumed.items()))
    print("what is different from the program that trained it (also in run.json):")
    print("\n".join(f"  - {sentence}" for sentence in found.differences))
    run, checkpoint = shlex.quote(str(made.run.path)), shlex.quote(str(made.checkpoint))
    has_data = made.config.data.path is not None
    lines = [
        f"biggan-sample --ckpt {run}",
        f"spectra scan {checkpoint}",
        f"biggan-eval --ckpt {run}{'' if has_data else ' --data-path DATA'}",
    ]
    if made.trains:
        data = "" if has_data else " --data.path DATA"
        lines += [
            f"biggan-train --resume {run}{data} --steps N",
            f"biggan-intervene --ckpt {run}{data} --steps N --lr G=x0.5",
        ]
    print("next:")
    print("\n".join(f"  {line}" for line in lines))
    if not made.trains:
        print("It cannot be trained further: that needs both networks and both optimizers.")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _parser() -> argparse.ArgumentParser:
    from biggan.importing.layouts import LAYOUTS

    parser = Parser(
        prog="biggan-import",
        description="Make a run directory of another program's checkpoint. Nothing in its files is executed, and the "
        "architecture is read from the shapes of its tensors.",
        epilog="Fields of the configuration go before what the files say: --train.batch 2048 --train.accumulate 8. "
        "Exit codes: 0 done, 2 bad input, 1 anything else.",
    )
    add_version(parser)
    add = parser.add_argument
    add("source", metavar="SOURCE", help="the folder with the checkpoint's files, or one of them")
    add("--out", required=True, metavar="RUN", help="the run directory to make")
    add("--kind", metavar="KIND", help=f"the layout: {', '.join(LAYOUTS)}; default: by the files' names")
    add("--which", metavar="NAME", help="which of several states: best0 or copy1 (BigGAN-PyTorch), best (StudioGAN)")
    add("--step", type=int, metavar="N", help="the number of finished G steps; default: what the files say")
    add("--resolution", type=int, metavar="R", help="the image size; default: that of the tensors, which it must be")
    add(
        "--no-optimizers", action="store_true", help="leave the optimizers out; the run can then not be trained further"
    )
    return parser


if __name__ == "__main__":
    sys.exit(import_main())

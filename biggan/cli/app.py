"""What the commands share: exit codes, errors as one paragraph, `--version`, and options with suggestions."""

from __future__ import annotations

import argparse
import errno
import re
import sys
import textwrap
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from biggan.errors import ReportedByOtherRank, UserError
from spectra.cli.output import unbreakable_output
from spectra.nearest import nearest
from spectra.record.damage import damage_in_words
from spectra.system import UNSUPPORTED, is_windows
from spectra.version import package_version

EXIT_DONE, EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 0, 1, 2, 130
EXIT_OF = {"finished": EXIT_DONE, "interrupted": EXIT_INTERRUPTED, "stopped": EXIT_FAILED}
"""The exit code for what `Trainer.train` returns."""

USERS_TO_FIX = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE),
    *(errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR),
}
"""Full disks, quotas and limits; places where nothing may be written; names that cannot be."""


def guarded(
    program: str,
    command: Callable[[list[str]], int],
    argv: list[str],
    *,
    stopped: str = "stopped at once; nothing was saved beyond the last checkpoint.",
    stopped_code: int = EXIT_FAILED,
    kept: str = "Earlier checkpoints are intact.",
) -> int:
    """Run a command; an error that the user can fix is printed as one paragraph, with exit code 2.

    `stopped` and `stopped_code` are the message and exit code for an interrupt that the command did not handle itself;
    `kept` describes what is left on disk when the system refuses to write. Where a reader of the output goes away, the
    command goes on without one.
    """
    with unbreakable_output():
        return _guarded(program, command, argv, stopped, stopped_code, kept)


def _guarded(
    program: str, command: Callable[[list[str]], int], argv: list[str], stopped: str, stopped_code: int, kept: str
) -> int:
    if is_windows() and not {"-h", "--help", "--version"} & set(argv):
        _complain(program, UNSUPPORTED)
        return EXIT_BAD_INPUT
    try:
        with damage_in_words(program):
            code = command(argv)
        sys.stdout.flush()  # here an output file on a full disk can still be said
        return code
    except ReportedByOtherRank:
        return EXIT_BAD_INPUT
    except UserError as error:
        _complain(program, str(error))
        return EXIT_BAD_INPUT
    except OSError as error:
        if error.errno not in USERS_TO_FIX:
            raise
        _complain(program, f"the system refused: {error}. {kept} Free space or choose another place.")
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        _complain(program, stopped)
        return stopped_code


def _complain(program: str, message: str) -> None:
    words = textwrap.fill(f"{program}: error: {message}", width=110, break_long_words=False, break_on_hyphens=False)
    with suppress(OSError):  # where it goes to a file on a full disk, the exit code still says it
        print(words, file=sys.stderr, flush=True)


def pairs_of(text: str, option: str) -> dict[str, str]:
    """`image=photo,label=species` as a mapping. Raises `UserError` for other text."""
    parts = [part.partition("=") for part in text.split(",") if part.strip()]
    if not parts or not all(equals and name.strip() for name, equals, _ in parts):
        raise UserError(f"{option} is '{text}', expected pairs such as image=photo,label=species.")
    return {name.strip(): value.strip() for name, _, value in parts}


def add_generation_options(parser: argparse.ArgumentParser) -> None:
    """How a generator's latents and statistics are made, for every command that samples."""
    add = parser.add_argument
    add("--truncation", type=float, metavar="T", help="truncate z at T (Section 3.1); default: z as in training")
    add(
        "--truncation-kind",
        choices=("threshold", "scaled"),
        default="threshold",
        help="threshold (default): draw entries beyond T again; scaled: T times a normal cut at 2, as published "
        "BigGAN-deep is sampled",
    )
    add(
        "--statistics",
        choices=("standing", "stored"),
        default="standing",
        help="BatchNorm statistics: standing (default): of fresh noise; stored: those that an imported BigGAN-deep has",
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Give a command `--version`."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}", help="show the version")


class Parser(argparse.ArgumentParser):
    """argparse's parser without abbreviations; for a misspelt option it suggests the nearest one."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**{"allow_abbrev": False, **arguments})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with code 2."""
        if wrong := re.search(r"unrecognized arguments: (?:.*? )?(--[^\s=]+)", message):
            message = f"unknown option '{wrong[1]}'{nearest(wrong[1], self._options())} See {self.prog} --help."
        super().error(message)

    def _options(self) -> list[str]:
        """Every option, including those of subcommands, because the outermost parser reports unknown options."""
        found: list[str] = []
        for action in self._actions:
            found += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                found += [option for parser in action.choices.values() for option in parser._options()]
        return found

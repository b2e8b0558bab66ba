"""The command `spectra`. Each subcommand X is a module X with `add_X_options` and `run_X`, imported when asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

from spectra.cli.output import unbreakable_output
from spectra.system import UNSUPPORTED, UNTESTED, is_windows
from spectra.version import package_version

EPILOG = """\
examples:
  spectra scan model.safetensors
  spectra scan model.pt --sort ratio --k 5
  spectra scan model.pt --operator 32x32 --json
  spectra plot runs/mine --figure 20
  spectra plot runs/a runs/b runs/c
  spectra report runs/mine
  spectra events runs/mine
  spectra detect runs/mine
"""

COMMANDS = {
    "scan": "the top singular values of every weight in a checkpoint",
    "plot": "the paper's figures from a run's record; several runs in one figure",
    "report": "one page of a run: spectra, gradients, events, what to look at",
    "events": "the list of a run's events",
    "detect": "spikes, explosions and other problems in a run's record",
}
"""The subcommands, each the module of its name in this folder, with a line of help."""

WRITING = ("plot", "report")
"""Those that write files."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, 2 for bad input (one paragraph on stderr), 130 when interrupted."""
    with unbreakable_output():  # the reader (head, less) may have seen enough
        return _main(sys.argv[1:] if arguments is None else list(arguments))


def _main(arguments: list[str]) -> int:
    options = _parser(arguments).parse_args(arguments)
    if is_windows():
        if options.command in WRITING:
            print(f"spectra: error: {UNSUPPORTED}", file=sys.stderr)
            return 2
        print(UNTESTED, file=sys.stderr)
    from spectra.record.damage import damage_in_words

    try:
        with damage_in_words("spectra"):
            code: int = options.run_command(options)
        sys.stdout.flush()
        return code
    except (ValueError, TypeError, OSError, MemoryError) as error:
        with suppress(OSError):  # where it goes to a file on a full disk, the exit code still says it
            print(f"spectra: error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print("spectra: interrupted", file=sys.stderr)
        return 130


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spectra",
        description="Singular values of the weights of any PyTorch network.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {package_version()}", help="show the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, words in COMMANDS.items():
        command = commands.add_parser(name, help=words)
        if name == chosen:  # the other subcommands' options are not needed, and may take a while to list
            module = import_module(f"spectra.cli.{name}")
            getattr(module, f"add_{name}_options")(command)
            command.set_defaults(run_command=getattr(module, f"run_{name}"))
    return parser


if __name__ == "__main__":
    sys.exit(main())

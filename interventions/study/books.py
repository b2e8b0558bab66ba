"""`python -m interventions.study.books FOLDER`: the page and the thinned copy of a study, as it grows.

A study's launcher starts it after each entry, in a process of its own, so that no core waits for it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from biggan.cli.app import EXIT_DONE, guarded

if TYPE_CHECKING:
    from interventions.compare.claims.judge import Verdict
    from interventions.compare.collect import Comparison

_CLOSING_SECONDS = 600.0


class Books:
    """Starts the bookkeeping of a study, one process at a time."""

    def __init__(self, folder: Path, record: Path | None = None, added: Path | None = None) -> None:
        self.folder, self.record, self.added = folder, record, added
        self._process: subprocess.Popen[bytes] | None = None

    def update(self) -> None:
        """Bring page and copy up to date; while an earlier update runs, the next one does that."""
        if self._process is not None and self._process.poll() is None:
            return
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
        command = [sys.executable, "-m", "interventions.study.books", str(self.folder)]
        command += [] if self.record is None else ["--record", str(self.record)]
        command += [] if self.added is None else ["--add", str(self.added)]
        (self.folder / "logs").mkdir(exist_ok=True)
        with open(self.folder / "logs" / "books.log", "w", encoding="utf-8") as words:
            self._process = subprocess.Popen(command, stdout=words, stderr=words, env=environment)

    def close(self) -> None:
        """Wait for the last update, so that nothing writes into the study any more."""
        if self._process is not None:
            try:
                self._process.wait(_CLOSING_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()


class StudyBooks(NamedTuple):
    """What the bookkeeping found and wrote."""

    comparison: Comparison
    verdicts: list[Verdict]
    written: list[Path]


def keep_books(folder: Path, record: Path | None = None, added: Path | None = None) -> StudyBooks:
    """Compare the study, with the recorded one that it adds to; write its tables and page into `folder`, and its
    thinned copy into `record`."""
    from interventions.compare.collect import compare_plans
    from interventions.compare.report import verdicts_of, write_report
    from interventions.study.thin import update_thinned

    found = compare_plans([folder] if added is None else [added, folder])
    verdicts = verdicts_of(found)
    written = write_report(found, folder, verdicts)
    return StudyBooks(found, verdicts, written if record is None else [*written, update_thinned(folder, record)])


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""

    def keep(argv: list[str]) -> int:
        parser = argparse.ArgumentParser(
            prog="python -m interventions.study.books", description=__doc__, allow_abbrev=False
        )
        parser.add_argument("folder", type=Path, help="the study's directory")
        parser.add_argument("--record", type=Path, help="the directory of the thinned copy")
        parser.add_argument("--add", type=Path, help="the recorded study that it adds to")
        options = parser.parse_args(argv)
        os.nice(10)  # the runs come first
        for path in keep_books(options.folder, options.record, options.add).written:
            print(path)
        return EXIT_DONE

    return guarded("interventions.study.books", keep, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())

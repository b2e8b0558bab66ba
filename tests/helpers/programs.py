"""Every command of the project by its name."""

from __future__ import annotations

from collections.abc import Callable

from biggan.cli.data import data_main
from biggan.cli.evaluate import eval_main
from biggan.cli.import_weights import import_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main

PROGRAMS: dict[str, Callable[[list[str]], int]] = {
    "biggan-train": train_main,
    "biggan-sample": sample_main,
    "biggan-eval": eval_main,
    "biggan-data": data_main,
    "biggan-import": import_main,
    "biggan-intervene": intervene_main,
    "spectra": spectra_main,
}

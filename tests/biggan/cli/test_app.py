"""What every command has."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import biggan
import interventions
import spectra
from biggan.cli.data import data_main
from biggan.cli.evaluate import eval_main
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from interventions.cli.main import main as intervene_main
from spectra.cli.commands import main as spectra_main

COMMANDS = {
    "biggan-train": train_main,
    "biggan-sample": sample_main,
    "biggan-eval": eval_main,
    "biggan-data": data_main,
    "biggan-intervene": intervene_main,
    "spectra": spectra_main,
}


@pytest.mark.parametrize("program", COMMANDS)
def test_every_command_says_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    command: Callable[[list[str]], int] = COMMANDS[program]
    with pytest.raises(SystemExit) as ended:
        command(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{program} {biggan.__version__}\n"


def test_the_packages_have_one_version() -> None:
    assert biggan.__version__ == spectra.__version__ == interventions.__version__
    assert biggan.__version__[0].isdigit()

"""What every command has."""

from __future__ import annotations

import pytest
from programs import PROGRAMS

import biggan
import interventions
import spectra


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_says_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = PROGRAMS[program]
    with pytest.raises(SystemExit) as ended:
        command(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{program} {biggan.__version__}\n"


def test_the_packages_have_one_version() -> None:
    assert biggan.__version__ == spectra.__version__ == interventions.__version__
    assert biggan.__version__[0].isdigit()

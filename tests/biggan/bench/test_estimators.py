"""The benchmark of the estimators covers BigGAN 128's weights."""

from __future__ import annotations

import math

import pytest

from biggan.bench import estimators as bench


def test_the_shapes_are_biggans() -> None:
    shapes = bench.biggan_shapes()
    assert len(shapes) == 65
    assert sum(rows * columns for rows, columns in shapes) == pytest.approx(158.37e6, rel=1e-3)
    assert max(shapes, key=math.prod) == (1536, 13824)


def test_bad_options(capsys: pytest.CaptureFixture) -> None:
    for arguments in (["--ch", "12"], ["--ch", "0"]):
        with pytest.raises(SystemExit) as error:
            bench.main(arguments)
        assert error.value.code == 2
    assert "multiple of 8" in capsys.readouterr().err

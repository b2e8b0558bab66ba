"""Images of very many pixels: refused by name, and read where it is asked for. With a limit of 1,000 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import configuration, encode, picture, write_folder
from PIL import Image
from tiny import TINY

from biggan.cli.data import data_main
from biggan.cli.train import train_main
from biggan.data import decode as decode_module
from biggan.data.decode import BrokenImage, decode, square
from biggan.data.headers import check_headers
from biggan.data.sources.opening import open_source
from biggan.errors import UserError

LARGE = picture(0, 40, 30)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    monkeypatch.setattr(decode_module, "MAX_PIXELS", 1000)
    root = write_folder(tmp_path / "photos", {"ant": 5, "bee": 6})
    (root / "ant/large.png").write_bytes(encode(LARGE))
    return root


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_limit_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * Image.MAX_IMAGE_PIXELS - decode_module.MAX_PIXELS in (0, 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(BrokenImage, match=r"it has 1,200 pixels, and at most 1,000 .* --data\.max_pixels 1200"):
        decode(encode(LARGE), 1000)
    with pytest.raises(BrokenImage, match="it has 1,200 pixels, and at most 1,199 "):
        decode(encode(LARGE), 1199)
    assert np.array_equal(decode(encode(LARGE), 1200), LARGE)


def test_training_names_it_at_the_start_and_reads_it_where_asked(photos: Path) -> None:
    config = configuration(photos, 2)
    with pytest.raises(UserError, match=r"1 image is broken: \S*large\.png: it has 1,200 pixels"):
        check_headers(open_source(config), config.data)
    config = configuration(photos, 2, max_pixels=1200)
    source = open_source(config)
    assert check_headers(source, config.data) == {}
    every = np.concatenate([source.train.pixels(slice(None)), source.val.pixels(slice(None))])
    assert any(np.array_equal(one, square(LARGE, 8)) for one in every)


def test_a_run_goes_on_with_a_larger_limit(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (photos / "ant/large.png").unlink()
    run = str(tmp_path / "run")
    line = ["--data.source=folder", f"--data.path={photos}", "--model.classes=2", *TINY, "--quiet"]
    assert train_main([*line, "--steps=1", "--out", run]) == 0
    assert train_main(["--resume", run, "--steps=2", "--quiet", "--data.max_pixels=100"]) == 2
    assert "at most 100 are decoded" in " ".join(capsys.readouterr().err.split())
    assert train_main(["--resume", run, "--steps=2", "--quiet", "--data.max_pixels=5000"]) == 0


def test_inspect_and_prepare_name_it_and_take_the_limit(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert data_main(["inspect", str(photos)]) == 0
    assert "large.png: it has 1,200 pixels" in capsys.readouterr().out
    assert data_main(["inspect", str(photos), "--max-pixels", "1200"]) == 0
    assert "broken: 0" in capsys.readouterr().out
    prepare = ["prepare", str(photos), "--resolution", "8", "--out", str(tmp_path / "out"), "--workers", "1"]
    assert data_main(prepare) == 2
    assert "biggan-data: --max-pixels" in " ".join(capsys.readouterr().err.split())
    assert data_main([*prepare[:-3], str(tmp_path / "fewer"), "--skip-broken"]) == 0
    capsys.readouterr()
    assert data_main([*prepare[:-3], str(tmp_path / "fewer"), "--max-pixels", "1200"]) == 0
    assert "1 broken images were skipped then. To try them again: another --out." in capsys.readouterr().out
    assert data_main([*prepare, "--max-pixels", "1200"]) == 0
    assert any(np.array_equal(one, square(LARGE, 8)) for one in np.load(tmp_path / "out/images.npy"))

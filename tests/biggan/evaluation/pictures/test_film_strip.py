"""Film strips: which checkpoints, and the same latents in each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from biggan.cli.sample import sample_main
from biggan.errors import UserError
from biggan.evaluation.pictures.film_strip import checkpoints_of, draw_film_strip


def test_a_strip_is_drawn_around_a_step(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checkpoints, the second only in a frozen ring; each frame is what the grid of its checkpoint shows."""
    import biggan.evaluation.pictures.film_strip as module
    from biggan.evaluation.pictures.grids import class_images, load_generator
    from biggan.run.checkpoint import read_checkpoint

    frozen = finished / "checkpoints" / "frozen-00000002"
    frozen.mkdir()
    shutil.move(finished / "checkpoints" / "step-00000002.safetensors", frozen)
    assert sorted(checkpoints_of(finished)) == [1, 2, 3]
    drawn = {}

    def remember(panels: dict, names: list, title: str) -> Image.Image:
        drawn.update(panels=panels, names=names, title=title)
        return Image.new("RGB", (4, 4))

    monkeypatch.setattr(module, "draw_grid", remember)
    path = draw_film_strip(finished, around=2, frames=2, classes=[3, 1], passes=2)
    assert path == finished / "figures" / "film-strip-00000002.png"
    assert drawn["names"] == ["1", "2 <"]
    checkpoint = read_checkpoint(frozen / "step-00000002.safetensors")
    for caption, raw in (("generator", True), ("its average (EMA)", False)):
        network = load_generator(checkpoint, raw=raw)
        expected = class_images(network, [3, 1], 1, distribution="normal", step=2, passes=2, refresh_sigma=not raw)
        assert np.array_equal(drawn["panels"][caption][1], expected[:, 0])
    with open(finished / "events.jsonl", "a") as file:
        file.write('{"event": "alarm", "step": 3, "onset": 1}\n')
    assert draw_film_strip(finished, frames=1, passes=1).name == "film-strip-00000001.png"
    with open(finished / "events.jsonl", "a") as file:
        file.write('{"event": "collapse", "step": 9, "onset": 7}\n')  # beyond the checkpoints: as near as they reach
    assert draw_film_strip(finished, frames=1, passes=1).name == "film-strip-00000003.png"
    with pytest.raises(UserError, match="--around is 7"):
        draw_film_strip(finished, around=7)
    with pytest.raises(UserError, match="--classes has"):
        draw_film_strip(finished, classes=[10], passes=1)


def test_from_the_command_line(finished: Path, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    out = tmp_path / "strip.png"
    assert sample_main(["--film-strip", str(finished), "--out", str(out), "--standing-passes=1", "--frames=2"]) == 0
    assert Image.open(out).size[0] > 10
    assert sample_main(["--film-strip", str(tmp_path / "no")]) == 2
    assert sample_main(["--film-strip", str(finished), "--raw"]) == 2
    assert sample_main([]) == 2
    assert "does not exist" in capsys.readouterr().err.replace("\n", " ")


def test_a_name_that_is_no_picture_s_is_refused_before_the_work(finished: Path, tmp_path: Path, capsys) -> None:  # noqa: ANN001
    assert sample_main(["--ckpt", str(finished), "--out", str(tmp_path / "x.txt")]) == 2
    said = capsys.readouterr()
    assert ".txt is no kind of picture. Give --out the path of a .png file." in " ".join(said.err.split())
    assert "standing statistics" not in said.out + said.err

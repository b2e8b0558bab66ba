"""What a thinned base run keeps beside its numbers: its configuration, and the samples of its film strip."""

from __future__ import annotations

import dataclasses
from pathlib import Path

COLOURS = 64
"""Of a kept picture's palette: a third of the file's size."""


def keep_look(run: Path, out: Path) -> None:
    """Copy the configuration of a base run, without its place, and the sample grids of `film_moments`, as far as it has
    them."""
    from PIL import Image

    import spectra
    from biggan.run.directory import RunDirectory
    from interventions.compare.page.film import film_moments
    from interventions.compare.series import course_from

    if not (run / "config.yaml").is_file():
        return
    config = RunDirectory(run).read_config()
    path = None if config.data.path is None else Path(config.data.path).name
    config = dataclasses.replace(config, out=None, data=dataclasses.replace(config.data, path=path))
    RunDirectory(out).write_config(config)
    for _, grid in film_moments(run, course_from(run.name, run, spectra.load(run), [])).values():
        (out / "samples").mkdir(exist_ok=True)
        with Image.open(grid) as picture:
            picture.convert("RGB").quantize(COLOURS).save(out / "samples" / grid.name, optimize=True)

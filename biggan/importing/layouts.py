"""The layouts by name. A new one is a `ForeignLayout` of its own file, and one line here."""

from __future__ import annotations

from pathlib import Path

from biggan.errors import UserError, check_known
from biggan.importing.foreign import ForeignLayout, cannot_import
from biggan.registry import Registry

LAYOUTS: Registry[ForeignLayout] = Registry(
    {
        "biggan-pytorch": "biggan.importing.biggan_pytorch:BIGGAN_PYTORCH",
        "studiogan": "biggan.importing.studiogan:STUDIOGAN",
        "biggan-deep-hub": "biggan.importing.deep_hub:DEEP_HUB",
    }
)
"""`--kind`: name -> layout."""


def layout_of(source: Path, kind: str | None) -> ForeignLayout:
    """The layout that is named, or the one that the files' names are of.

    Raises `UserError` where there is no such place, or where no layout is recognized.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist. Give the folder with the checkpoint's files.")
    if kind is not None:
        check_known(kind, LAYOUTS, "--kind")
        return LAYOUTS[kind]
    for layout in LAYOUTS.values():
        if layout.is_here(source):
            return layout
    inside = (
        sorted({path.parent for path in source.glob("*/*") if path.suffix in (".pth", ".bin")})
        if source.is_dir()
        else []
    )
    below = f" Is it {' or '.join(map(str, inside[:3]))}?" if inside else ""
    raise cannot_import(
        source,
        f"no layout of {', '.join(LAYOUTS)} is recognized by its files' names",
        f"Give the folder with G.pth, with model=G-...pth, or with config.json and pytorch_model.bin.{below}",
    )

"""Presets: named configurations, each a YAML file with what differs from its `base:`, another preset.

A preset without `base` differs from the defaults. To add presets from elsewhere, append a folder to `FOLDERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biggan.config.tree import flatten
from biggan.config.yaml_text import read_yaml_text
from biggan.errors import UserError, check_known

DEFAULT_PRESET = "digits"

RENAMED_PRESETS = {"jar": "digits"}
"""Earlier name of a preset -> its name."""

FOLDERS = [Path(__file__).parent]
"""Where `NAME.yaml` is looked for; of two presets of one name the first is taken."""


def preset_names() -> list[str]:
    """The names of all presets, the default first."""
    files = (file.name for folder in FOLDERS if folder.is_dir() for file in folder.iterdir())
    names = {name.removesuffix(".yaml") for name in files if name.endswith(".yaml")}
    return [DEFAULT_PRESET, *sorted(names - {DEFAULT_PRESET})]


def preset_text(name: str) -> str:
    """A preset's own YAML, without its bases. Raises `UserError` for an unknown name."""
    check_known(name, preset_names(), "preset")
    files = (folder.joinpath(f"{name}.yaml") for folder in FOLDERS)
    return next(file for file in files if file.is_file()).read_text(encoding="utf-8")


def preset_values(name: str) -> dict[str, Any]:
    """The fields that a preset and its bases set, by dotted name; what a preset sets wins over its base.

    Raises `UserError` for an unknown name, a cycle of bases, and for text that is not YAML.
    """
    values: dict[str, Any] = {}
    for one in reversed(preset_chain(name)):
        level = read_yaml(preset_text(one), f"the preset {one}")
        level.pop("base", None)
        lay_over(values, level)
    return values


def preset_chain(name: str) -> list[str]:
    """A preset, its base, the base of that, and so on. Raises `UserError` as `preset_values` does."""
    chain: list[str] = []
    following: Any = name
    while following is not None:
        following = RENAMED_PRESETS.get(str(following), str(following))
        if following in chain:
            raise UserError(f"presets are based on each other in a cycle: {' -> '.join([*chain, following])}.")
        chain.append(following)
        following = read_yaml(preset_text(following), f"the preset {following}").get("base")
    return chain


def lay_over(values: dict[str, Any], level: Mapping[str, Any]) -> None:
    """Let a later level win. `model.ch` sets both widths: it ends what an earlier level gave one of them."""
    if "model.ch" in level:
        values.update({"model.ch_G": None, "model.ch_D": None})
    values.update(level)


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """The fields in a YAML text by dotted name, unchecked. Raises `UserError`, naming `where`, for anything else."""
    values = read_yaml_text(text, where, floats=True)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"in {where}: expected fields such as 'steps: 2000', got {values!r:.60}.")
    return flatten(values)

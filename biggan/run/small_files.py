"""The small text files of a run, read so that a damaged one is named with what to do about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from biggan.config import Config, differences, from_dict
from biggan.config.yaml_text import read_yaml_text
from biggan.errors import UserError


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """The mapping in a JSON file. Raises `UserError`, which ends with `mend`, for any other contents."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({_briefly(error)}). {mend}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds {type(found).__name__}, expected a mapping). {mend}")
    return found


def read_run_json(path: Path) -> dict[str, Any]:
    """The contents of run.json; empty if it does not exist. Raises `UserError` if it is damaged."""
    mend = (
        "Restore an earlier copy, or move it away: the run then continues without its information on versions, data "
        "and class names."
    )
    if not path.is_file():
        return {}
    found = read_json(path, mend)
    wrong = [name for name, is_sound in _FACTS.items() if found.get(name) is not None and not is_sound(found[name])]
    if wrong:
        raise UserError(f"{path} is damaged ({wrong[0]} is not what this program writes there). {mend}")
    return found


def read_config(path: Path) -> Config:
    """The configuration in config.yaml. Raises `UserError` if it is damaged."""
    mend = "Copy the file of a run of the same configuration, or resume the run: its checkpoint rebuilds it."
    try:
        return from_dict(read_yaml_text(path.read_text(encoding="utf-8"), path.name) or {})
    except (UnicodeDecodeError, TypeError, UserError) as error:
        raise UserError(f"{path} is damaged ({_briefly(error)}). {mend}") from error


def _briefly(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) < 200 else f"{words[:200]} ..."


def is_step(value: Any) -> bool:
    """Whether this is a step of a run."""
    return type(value) is int and 0 <= value < 2**53


def _is_parent(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    return isinstance(value.get("path"), str) and isinstance(value.get("digest"), str) and is_step(value.get("step"))


def _are_changes(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_stored_change, value))


def is_stored_change(value: Any) -> bool:
    """Whether this is a change as run.json and plan.json hold it: {change, from, until, fields}; with a user's own
    code also {defined_in, code}, its file and digest."""
    if not isinstance(value, Mapping) or not isinstance(change := value.get("change"), Mapping):
        return False
    steps = is_step(value.get("from")) and (value.get("until") is None or is_step(value["until"]))
    fields = value.get("fields", {})
    pairs = isinstance(fields, Mapping) and all(isinstance(one, list) and len(one) == 2 for one in fields.values())
    own = all(value.get(name) is None or isinstance(value[name], str) for name in ("defined_in", "code"))
    return len(change) == 1 and steps and pairs and own


def _is_continued(value: Any) -> bool:
    files = value.get("change_files", []) if isinstance(value, Mapping) else None
    return isinstance(files, list) and all(isinstance(one, str) for one in files) and is_step(value.get("through"))


def _is_code(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(one, Mapping) and isinstance(one.get("source"), str) and isinstance(one.get("file"), str)
        for one in value.values()
    )


def _is_imported(value: Any) -> bool:
    return isinstance(value, Mapping) and is_step(value.get("step"))


_FACTS = {
    "parent": _is_parent,
    "changes": _are_changes,
    "inherited_changes": _are_changes,
    "data": lambda value: isinstance(value, Mapping),
    "class_names": lambda value: isinstance(value, list) and all(isinstance(name, str | int | float) for name in value),
    "continued_by": _is_continued,
    "code": _is_code,
    "imported": _is_imported,
    "started": lambda value: isinstance(value, str),
}
"""The facts of run.json that something is decided by, and what makes them sound."""


def edits_not_read(path: Path, config: Config) -> list[str]:
    """What a user may have meant by editing a run's config.yaml, which goes on with `config`, its checkpoint's."""
    try:
        found = differences(config, read_config(path), numbers_only=True)
    except (OSError, UserError) as error:
        return [f"config.yaml is replaced by the checkpoint's configuration: {error}"]
    listed = "; ".join(f"{name}: {new}" for name, (_, new) in found.items())
    return [f"edits of config.yaml are not read ({listed}); give them as options"] if listed else []

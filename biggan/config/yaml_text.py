"""Reading YAML from people: whatever it holds, plain data comes out, or one sentence about what is wrong."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from typing import Any

from biggan.errors import UserError

MOST_NODES, DEEPEST = 100_000, 40
_MOST_OPEN = 500
"""Brackets that may be open at once, in texts too; the parser takes minutes for some thousands."""


def read_yaml_text(text: str, where: str, *, floats: bool = False) -> Any:
    """The data in a YAML text: mappings with names as keys, lists, and plain values.

    `floats`: 1e-4 is a number, as in YAML 1.2. Raises `UserError`, naming `where`, for what is not YAML, for what
    contains itself, and for what is nested deeper or larger than any file of this program.
    """
    import yaml

    still_open = itertools.accumulate((one in "[{") - (one in "]}") for one in text if one in "[]{}")
    if max(still_open, default=0) > _MOST_OPEN:
        raise UserError(f"in {where}: this is nested too deeply.")
    try:
        found = copy.deepcopy(_loaded(text, floats))
    except RecursionError as error:
        raise UserError(f"in {where}: this is nested too deeply.") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:  # a date 2024-13-45, say
        raise UserError(f"in {where}: this is not YAML: {' '.join(str(error).split()):.300}.") from error
    problem = _problem(found)
    if problem:
        raise UserError(f"in {where}: {problem}.")
    return found


@functools.lru_cache(maxsize=64)
def _loaded(text: str, floats: bool) -> Any:
    """What PyYAML makes of a text; it takes milliseconds a line, and presets and configurations are read often."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads 1e-4 as a number, if asked to."""

    if floats:
        number = re.compile(r"[-+]?[0-9][0-9.]*[eE][-+]?[0-9]+$")
        Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return yaml.load(text, Loader)


def _problem(found: Any) -> str | None:
    """What is wrong with data as such; None for plain data of a usable size."""
    nodes, waiting = 0, [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        nodes += 1
        if depth > DEEPEST:
            return "this is nested too deeply, or contains itself"
        if nodes > MOST_NODES:
            return f"this has more than {MOST_NODES:,} values"
        if isinstance(value, dict):
            strange = next((key for key in value if not isinstance(key, (str, int, float, type(None)))), None)
            if strange is not None:
                return f"{strange!r:.60} is the name of something, expected a text"
            waiting += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, (list, tuple, set)):
            waiting += [(one, depth + 1) for one in value]
        elif not isinstance(value, (str, int, float, type(None))):
            return f"{value!s:.60} is a {type(value).__name__}, expected plain texts and numbers (write it in quotes)"
    return None

"""A run's events and other recorded values in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def event_words(fields: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """name=value, numbers to four digits; unless `whole`, digests are cut short and score settings omitted.

    Scores and details of their own are told as fields."""
    for name, value in fields.items():
        if value in ([], {}, None) or (name == "settings" and not whole):
            continue
        if name in ("scores", "details") and isinstance(value, dict):
            yield from event_words(value, whole=whole)
        elif isinstance(value, float):
            yield f"{name}={value:.4g}"
        else:
            yield f"{name}={value[:12] if name == 'digest' and not whole else value}"

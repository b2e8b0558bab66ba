"""Ways to damage a file, each a function of its bytes, and the commands that read a run's files."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from faulty import Command

Damage = Callable[[bytes, random.Random], bytes]


def _flip(data: bytes, draw: random.Random) -> bytes:
    """One bit is another."""
    if not data:
        return b"\x80"
    place = draw.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]


def _cut(data: bytes, draw: random.Random) -> bytes:
    """The end is missing."""
    return data[: draw.randrange(len(data))] if data else b""


def _hole(data: bytes, draw: random.Random) -> bytes:
    """A part is zeros, as after a power cut."""
    start = draw.randrange(max(len(data), 1))
    end = min(start + draw.randrange(1, 513), len(data))
    return data[:start] + bytes(end - start) + data[end:]


def _doubled(data: bytes, draw: random.Random) -> bytes:
    """A part is there twice."""
    start = draw.randrange(max(len(data), 1))
    return data[:start] + data[start : start + 200] + data[start:]


def _other_values(data: bytes, draw: random.Random) -> bytes:
    """Where it is JSON, or lines of JSON, one value is of another kind; else one line is another text."""
    lines = data.decode(errors="replace").splitlines() or [""]
    whole = _changed_json(data.decode(errors="replace"), draw)
    if whole is not None:
        return whole.encode()
    place = draw.randrange(len(lines))
    lines[place] = _changed_json(lines[place], draw) or _changed_line(lines[place], draw)
    return ("\n".join(lines) + "\n").encode()


ODD_VALUES = [None, 3, -1, 1e308, "x", [], {}, [1], {"a": 1}, True, "", 10**30, float("nan")]


def _changed_json(text: str, draw: random.Random) -> str | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or draw.random() < 0.15:
        return json.dumps(draw.choice(ODD_VALUES))
    inner = value
    while True:
        name = draw.choice(sorted(inner)) if inner else "x"
        if isinstance(inner.get(name), dict) and inner[name] and draw.random() < 0.7:
            inner = inner[name]
            continue
        if draw.random() < 0.3:
            inner.pop(name, None)
        else:
            inner[name] = draw.choice(ODD_VALUES)
        return json.dumps(value)


def _changed_line(line: str, draw: random.Random) -> str:
    name = line.split(":")[0]
    return draw.choice([f"{name}: [", f"{name}: 3", f"{name}: {{a: 1}}", "- x", "\t", "&a [*a]", f"{name}: null"])


DAMAGES: dict[str, Damage] = {
    "a bit flipped": _flip,
    "cut short": _cut,
    "a hole of zeros": _hole,
    "a part doubled": _doubled,
    "other values": _other_values,
    "empty": lambda data, draw: b"",
    "not text": lambda data, draw: bytes(draw.randrange(256) for _ in range(200)),
    "another line at its end": lambda data, draw: data + draw.choice([b"[]\n", b"3\n", b"{\n", b"\xff\xfe\n", b"null"]),
}

DAMAGED = [
    "run/config.yaml",
    "run/run.json",
    "run/events.jsonl",
    "run/records/spectra-00000000.arrow",
    "run/records/vectors-00000006.safetensors",
    "run/checkpoints/step-00000006.safetensors",
    "branch/run.json",
    "branch/events.jsonl",
    "branch/config.yaml",
    "branch/records/spectra-00000002.arrow",
]

READERS: dict[str, Command] = {
    "events": ("spectra", ["events", "run"]),
    "detect": ("spectra", ["detect", "run"]),
    "plot": ("spectra", ["plot", "run", "--figure", "3", "--out", "figures"]),
    "scan": ("spectra", ["scan", "run/checkpoints/step-00000006.safetensors"]),
    "sample": ("biggan-sample", ["--ckpt", "run", "--out", "grid.png", "--standing-passes", "2"]),
    "film strip": ("biggan-sample", ["--film-strip", "run", "--out", "strip.png", "--standing-passes", "2"]),
    "resume": ("biggan-train", ["--resume", "run", "--steps=7", "--quiet"]),
    "branch": (
        "biggan-intervene",
        ["--ckpt", "run", "--at", "4", "--control", "--steps", "1", "--out", "b", "--quiet"],
    ),
    "resume the branch": ("biggan-intervene", ["--resume", "branch", "--steps", "6", "--quiet"]),
    "compare": ("biggan-intervene", ["compare", "branch", "control"]),
    "eval": ("biggan-eval", ["--ckpt", "run", "--out", "scores", "--samples", "1000", "--standing-passes", "2"]),
}


def reads(reader: str, damaged: str) -> bool:
    """Whether the reader has anything to do with the run that the file is of."""
    of_branch = reader in ("compare", "resume the branch")
    return damaged.startswith("branch/") == of_branch


def damage(path: Path, kind: str, seed: str) -> None:
    """Damage a file in place."""
    path.write_bytes(DAMAGES[kind](path.read_bytes(), random.Random(seed)))

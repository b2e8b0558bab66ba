"""Odd plans, configurations and options, made from real ones by seeded changes."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import yaml
from faulty import Command

import biggan.config
import interventions.study.plans
from biggan.config import Config, flatten, to_dict

ODD: list[Any] = [
    None, 0, 1, 3, -1, 0.5, 1e308, 10**40, float("nan"), float("inf"), True, "", "x", "=", "G=", "G=x", "G=xinf",
    "xnan", "/0", "{m}", "{", "é", "0x10", "1e999", [], [[]], [1, "a", None], {}, {"a": {}}, {1: 2}, {None: 1},
    {"x": [1]}, "file.py:Name", "../..", "x" * 400,
]  # fmt: skip


def fuzzed(kind: str, draw: random.Random, folder: Path) -> Command:
    """A command with an odd input; files that it needs are written to `folder`."""
    if kind == "plan":
        plans = sorted(Path(interventions.study.plans.__file__).parent.glob("*.yaml"))
        _write(folder / "odd.yaml", draw.choice(plans), draw)
        return "biggan-intervene", ["--ckpt", "run", "--plan", "odd.yaml", "--dry-run", "--out", "out"]
    if kind == "configuration":
        presets = sorted((Path(biggan.config.__file__).parent / "presets").glob("*.yaml"))
        _write(folder / "odd.yaml", draw.choice(presets), draw)
        tail = ["--steps=1", "--quiet", "--out", "out"]
        return "biggan-train", [
            "--config",
            "odd.yaml",
            *tail,
            "--data.source=digits",
            "--model.ch=2",
            "--train.batch=2",
        ]
    if kind == "options":
        fields = sorted(flatten(to_dict(Config())))
        chosen = draw.sample(fields, draw.choice([1, 1, 1, 2, 3]))
        given = [f"--{name}={draw.choice(ODD)}" for name in chosen if name != "out"]
        small = ["--model.ch=2", "--train.batch=2", "--samples.every=0"]
        return "biggan-train", [*small, "--steps=1", "--quiet", "--out", "out", *given]
    changes = [
        "lr",
        "betas",
        "batch",
        "d-steps",
        "r1",
        "dropout",
        "sigma",
        "clamp",
        "moments",
        "freeze",
        "l2",
        "margin",
    ]
    changes += ["orthogonal", "loss", "latents", "clip", "set", "gradient-penalty", "train-per-class", "beta1"]
    given = [
        part for name in draw.sample(changes, draw.choice([1, 1, 2])) for part in (f"--{name}", str(draw.choice(ODD)))
    ]
    return "biggan-intervene", ["--ckpt", "run", "--at", "2", *given, "--steps", "1", "--dry-run", "--out", "out"]


def _write(path: Path, source: Path, draw: random.Random) -> None:
    """A YAML file as `source` is, with one to three changes, or with another text."""
    value = yaml.safe_load(source.read_text())
    for _ in range(draw.choice([1, 1, 2, 3])):
        value = _changed(copy.deepcopy(value), draw)
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    if draw.random() < 0.15:
        place = draw.randrange(len(text) + 1)
        text = (
            text[:place]
            + draw.choice([": ", "{", "[", "&a [*a]", "!!python/object:x.y", "\t", "- ", "%", "\0"])
            + text[place:]
        )
    if draw.random() < 0.03:
        text = f"entries: &a [*a, {draw.random()}]\n" if draw.random() < 0.5 else "a: " + "[" * 3000
    path.write_text(text, encoding="utf-8", newline="")


def _changed(value: Any, draw: random.Random) -> Any:
    """Somewhere in the tree a value, a key or the number of entries is another."""
    if not isinstance(value, (dict, list)) or not value or draw.random() < 0.12:
        return draw.choice(ODD)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        value[place] = _changed(value[place], draw)
        return value * draw.choice([1, 1, 1, 300]) if len(value) < 10 else value
    name = draw.choice(list(value))
    how = draw.random()
    if how < 0.1:
        value[draw.choice(["unknown", 3, None, "", "{a}", "seeds", "each", "from", "base"])] = value.pop(name)
    elif how < 0.2:
        del value[name]
    elif how < 0.3:
        value[draw.choice(["each", "seeds", "settings", "figures", "changes", "from", "entries"])] = draw.choice(ODD)
    else:
        value[name] = _changed(value[name], draw)
    return value

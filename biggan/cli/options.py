"""The command line as a configuration: one option per field, presets, and their precedence.

Precedence: defaults < preset < `--config` files in order < options, wherever they are on the line. A resumed run
starts from its own configuration instead of the defaults.
"""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import biggan.config
from biggan.choices import CHOICES, check_names
from biggan.cli.app import add_version, pairs_of
from biggan.config import LEFT_TO_DATA, RENAMED, Config, fields, flatten, from_dict, to_dict, unflatten
from biggan.config.fields import WHY_NOT
from biggan.config.presets import (
    DEFAULT_PRESET,
    RENAMED_PRESETS,
    lay_over,
    preset_names,
    preset_values,
    read_yaml,
)
from biggan.errors import UserError, check_known
from spectra.extensions import load_extensions
from spectra.nearest import nearest

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

FLAGS = {
    "preset": None,
    "config": (),
    "resume": None,
    "resume_or_start": False,
    "allow_change": False,
    "trust_cache": False,
    "quiet": False,
    "dry_run": False,
    "json": False,
    "memory": None,
    "processes": None,
    "notify": None,
}
"""Options that are not fields of the configuration, with their defaults."""


@dataclass(frozen=True)
class CommandLine:
    """A parsed `biggan-train` line: its flags, and the fields it gives, level by level."""

    flags: dict[str, Any]
    levels: tuple[dict[str, Any], ...]
    """The `--config` files in order, then the options: fields by dotted name."""

    @property
    def preset(self) -> str:
        """The preset's name."""
        name = self.flags["preset"] or DEFAULT_PRESET
        return RENAMED_PRESETS.get(name, name)

    @property
    def features(self) -> str | None:
        """The feature network that the options name, or none. What a file names is not imported."""
        return self.levels[-1].get("eval.features")

    def left_to_data(self) -> frozenset[str]:
        """The fields that the data at `data.path` decides, because the line gives the path and not them."""
        given = set().union(*self.levels)
        has_path = any(level.get("data.path") is not None for level in self.levels)
        return LEFT_TO_DATA - given if has_path else frozenset()

    def config(self, base: Config | None = None) -> Config:
        """The configuration, over the defaults and the preset; or over `base`, that of the run that is resumed.

        In a new one `data.source` is auto where the line leaves it to the data and the preset's does not read it.
        Raises `UserError` for a value out of its range and for values that do not go together.
        """
        values = flatten(to_dict(base or Config()))
        if base is None or self.flags["preset"] is not None:
            lay_over(values, _typed(_parser(), preset_values(self.preset), f"the preset {self.preset}"))
        for level in self.levels:
            lay_over(values, level)
        if base is None and "data.source" in self.left_to_data():
            from biggan.data.sources.opening import source_for

            values["data.source"] = source_for(values["data.path"], values["data.source"])
        if base is None and self.flags["preset"] is None and values["data.path"] is not None:
            lay_over(values, self._of_own_data(values["data.path"]))
        config = from_dict(unflatten(values))
        check_names(config)
        return config

    def _of_own_data(self, path: str) -> dict[str, Any]:
        """What nobody gave for data of the user's, where no preset is named: the default's are made for its digits."""
        from biggan.run.directory import default_path

        given = set().union(*self.levels)
        name = Path(path).resolve().name.partition(".")[0]
        own = {"device": "auto", "out": str(default_path(name or "data"))}
        return {field: value for field, value in own.items() if field not in given}


def parse(argv: list[str]) -> CommandLine:
    """Parse a `biggan-train` line.

    Raises `UserError` for what cannot be understood: unknown options and keys (with the nearest right one), values
    of the wrong type, files that do not exist.
    """
    argv = _paired_options(_renamed_options(argv))
    parser = make_parser(_help_texts(argv)) if {"-h", "--help"} & set(argv) else _parser()
    try:
        given = flatten(parser.parse_args(argv, defaults=False).as_dict())
    except argparse.ArgumentError as error:
        raise UserError(_explain(str(error))) from error
    flags = {name: given.pop(name, default) for name, default in FLAGS.items()}
    if (preset := flags["preset"]) is not None:
        if preset in RENAMED_PRESETS:
            _note(f"the preset {preset} is now called {RENAMED_PRESETS[preset]}")
        check_known(RENAMED_PRESETS.get(preset, preset), preset_names(), "preset")
    files = (_typed(parser, read_yaml(_read(path), path), path) for path in flags["config"])
    return CommandLine(flags, (*files, given))


def _renamed_options(argv: list[str]) -> list[str]:
    """The command line with renamed options replaced by their present names."""
    current = []
    for word in argv:
        option, equals, value = word.partition("=")
        if option.startswith("--") and (name := RENAMED.get(option[2:])):
            _note(f"{option} is now called --{name}")
            word = f"--{name}{equals}{value}"
        current.append(word)
    return current


def _paired_options(argv: list[str]) -> list[str]:
    """The command line with values such as image=photo,label=species, of fields that take them, as mappings."""
    taking = {f"--{name}" for name, field in fields() if field.type == "dict[str, str]"}
    current: list[str] = []
    for word in argv:
        option, equals, value = word.partition("=")
        if option in taking and equals and not value.startswith("{"):
            word = f"{option}={json.dumps(pairs_of(value, option))}"
        elif current and current[-1] in taking and not word.startswith(("{", "--")):
            word = json.dumps(pairs_of(word, current[-1]))
        current.append(word)
    return current


def _note(text: str) -> None:
    """Print a note on stderr, from one process only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}.", file=sys.stderr)


@functools.cache
def _parser() -> ArgumentParser:
    """The parser without help texts; making one takes a tenth of a second."""
    return make_parser({})


def make_parser(texts: Mapping[str, str]) -> ArgumentParser:
    """The parser of `biggan-train`, with the help texts of fields by dotted name (needed only where help is shown)."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog="biggan-train",
        exit_on_error=False,
        allow_abbrev=False,
        description="Train a BigGAN. Without a preset: 16x16 handwritten digits on one CPU core, in minutes.",
        epilog="Precedence: defaults < preset < --config files in order < options. "
        "Exit codes: 0 done, 2 bad input, 130 interrupted (state saved), 1 anything else.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="biggan-train [PRESET] [--section.field VALUE ...] [--config FILE] [--resume RUN] [options]",
    )
    add_version(parser)
    add = parser.add_argument
    add(
        "preset",
        nargs="?",
        metavar="PRESET",
        help=f"a named configuration (default: {DEFAULT_PRESET}): {', '.join(preset_names())}",
    )
    add("--config", action="append", metavar="FILE", help="a YAML file of fields; repeatable")
    add("--resume", metavar="RUN", help="continue the run in this directory, exactly as if it had never stopped")
    add(
        "--resume-or-start",
        action="store_true",
        help="with --out DIR: continue the run in this directory, or begin it; the same command each time",
    )
    add("--allow-change", action="store_true", help="with --resume: accept changed fields that affect the results")
    add("--trust-cache", action="store_true", help="use files of the cache that belong to other users")
    add(
        "--notify",
        metavar="CMD",
        help="run this command at each alarm of this call, without a shell, with the event as one line of JSON on its "
        "standard input; it is not stored, and its failure is an event",
    )
    add("--quiet", action="store_true", help="no progress display and no summary")
    add("--dry-run", action="store_true", help="show what would run, its parameters and memory, without training")
    add(
        "--memory",
        metavar="SIZE",
        help="with --dry-run: the largest micro-batch that fits a GPU of this size, such as 80GiB",
    )
    add(
        "--processes",
        type=int,
        metavar="N",
        help="with --dry-run: the memory of one of N processes (default: those started)",
    )
    add("--json", action="store_true", help="with --dry-run: print one JSON object")
    _add_section(parser, Config, "", flatten(to_dict(Config())), texts)
    return parser


def _add_section(
    parser: ArgumentParser, kind: Any, prefix: str, defaults: dict[str, Any], texts: Mapping[str, str]
) -> None:
    """One option for each field of a configuration's dataclass, and of those inside it."""
    hints = get_type_hints(kind)
    title = (kind.__doc__ or "").splitlines()[0].rstrip(".")
    group = parser.add_argument_group(f"{prefix.rstrip('.') or 'run'}: {title}")
    sections = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    for name, hint in hints.items():
        if name not in sections:
            choices = get_origin(hint) is Literal or hint is bool  # these show themselves
            shown: dict[str, Any] = {} if choices else {"metavar": _metavar(hint)}
            text = texts.get(prefix + name)
            group.add_argument(f"--{prefix}{name}", type=hint, default=defaults[prefix + name], help=text, **shown)
    for name, section in sections.items():
        _add_section(parser, section, f"{prefix}{name}.", defaults, texts)


def _help_texts(argv: list[str]) -> dict[str, str]:
    """For each field its description, its choices, range, and value in the preset that help is asked for."""
    preset = argv[0] if argv[0] in preset_names() else DEFAULT_PRESET
    values = flatten(to_dict(Config())) | preset_values(preset)
    descriptions = _strings_below_fields()
    metadata = {name: field.metadata for name, field in fields()}
    texts = {}
    load_extensions()
    for name, kind in _classes(Config):
        known = f": {', '.join(names)}" if (names := list(CHOICES.get(name, ()))) else ""
        description = descriptions[kind, name.split(".")[-1]]
        texts[name] = f"{description}{known} ({_range(metadata[name])}{preset}: {_shown(values[name])})"
    return texts


def _range(field: Mapping[str, Any]) -> str:
    low, high = field.get("low"), field.get("high")
    if low is not None and high is not None:
        return f"{low:g} to {high:g}; "
    return f"at least {low:g}; " if low is not None else f"at most {high:g}; " if high is not None else ""


METAVARS = {
    int: "N",
    float: "X",
    str: "TEXT",
    list[int]: "[N,...]",
    list[str]: "[NAME,...]",
    dict[str, float]: "{NAME: X,...}",
    dict[str, str]: "image=NAME,label=NAME",
}


def _metavar(hint: Any) -> str:
    """How the help writes a value of this type, or of the type that is optional."""
    return METAVARS.get(hint) or next((METAVARS[part] for part in get_args(hint) if part in METAVARS), "VALUE")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _classes(kind: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf field's dotted name with the name of the class that declares it."""
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            yield from _classes(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind.__name__


def _strings_below_fields() -> dict[tuple[str, str], str]:
    """The string below each field where it is declared, by class and field name."""
    texts = {}
    sources = Path(biggan.config.__file__).parent.glob("*.py")
    for node in itertools.chain(*(ast.parse(source.read_text(encoding="utf-8")).body for source in sources)):
        if isinstance(node, ast.ClassDef):
            for field, text in zip(node.body, node.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as words)):
                        texts[node.name, name] = words.rstrip(".")
    return texts


def _typed(parser: ArgumentParser, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields by dotted name as a file gives them, under their present names, with values of the right types."""
    known = [name for name, _ in fields()]
    sections = {name.rpartition(".")[0] for name in known}
    current = {}
    for given, value in values.items():
        name = RENAMED.get(given, given)
        if name != given:
            _note(f"in {where}: {given} is now called {name}")
        if value is None and name in sections:  # a heading with nothing below it
            continue
        if name == "base":
            raise UserError(
                f"in {where}: only presets may have `base`. Omit it, and give the preset {value} on the command line."
            )
        check_known(name, known, f"field in {where}:")
        current[name] = value
    if not current:
        return {}
    try:
        return flatten(parser.parse_object(unflatten(current), defaults=False).as_dict())
    except (argparse.ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"in {where}: {_explain(str(error))}") from error


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read --config {path}: {error}. Give the path of a YAML file.") from error


PLAIN_TYPES = {
    "<class 'int'>": "a whole number",
    "<class 'float'>": "a number",
    "<class 'bool'>": "true or false",
    "list[int]": "a list of whole numbers such as [32,64]",
    "<class 'dict'>": "names with numbers such as {NAME: 1e-4}",
}


def _explain(message: str) -> str:
    """The parser's message as one sentence, with the nearest right name where a name is wrong."""
    text = " ".join(message.split())
    known = [name for name, _ in fields()]
    if wrong := re.search(r"unrecognized arguments: ([^\s=]+)", text):
        given = wrong[1]
        if not given.startswith("-"):
            return f"unexpected argument '{given}': one PRESET at most, then options that start with --."
        options = [
            f"--{name}" for name in ("help", *known, *(flag.replace("_", "-") for flag in FLAGS if flag != "preset"))
        ]
        return f"unknown option '{given}'{nearest(given, options)} See biggan-train --help."
    if wrong := re.search(r"'(\S+)' is not accepted", text):
        return f"unknown field '{wrong[1]}'{nearest(wrong[1], known)} See biggan-train --help."
    if wrong := re.search(r'"(\S+)": Expected an? (.+)\. Got value: (.*)$', text):
        name, kind, value = wrong.groups()
        if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
            kind = f"one of {choices[1]}"
        return f"{name} is '{value}', expected {PLAIN_TYPES.get(kind, kind)}.{WHY_NOT.get((name, value), '')}"
    if wrong := re.search(r'"(\S+)": Does not validate .* Subtypes: \[(.*?)\] Errors: .* Given value: (.*)$', text):
        name, kinds, value = wrong.groups()
        kind = PLAIN_TYPES.get(kinds.removesuffix(", <class 'NoneType'>"), kinds)
        return f"{name} is '{value}', expected {kind}, or null."
    return f"{text.rstrip('.')}. See biggan-train --help."

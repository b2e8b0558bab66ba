"""Every command and every piece of code in the documents can be typed as it stands.

Here they are parsed: options exist, code compiles, files of settings are read. Commands that need what a test has not
are started with `--dry-run`. `test_running_snippets.py` runs the others.
"""

from __future__ import annotations

import functools
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from snippets import NEEDS, OWN, PAGES, Command, Snippet, commands, inline_commands, snippets

ALL = [snippet for page in PAGES for snippet in snippets(page)]
COMMANDS = [command for snippet in ALL for command in commands(snippet)]
EXEMPTED = [command for command in COMMANDS if command.needs]
DRY = [command for command in EXEMPTED if command.own and command.own[0] == "biggan-train"]


def name(snippet: Snippet) -> str:
    return snippet.name


@pytest.mark.parametrize("snippet", ALL, ids=name)
def test_a_block_can_be_read(snippet: Snippet) -> None:
    match snippet.language:
        case "python":
            compile(snippet.text, snippet.name, "exec")
        case "bash" | "console":
            script = "\n".join(command.text for command in commands(snippet))
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        case "yaml":
            assert yaml.safe_load(snippet.text)
        case "json":
            assert json.loads(snippet.text)
        case "toml":
            assert tomllib.loads(snippet.text)
        case "text":
            assert snippet.text.strip()
        case other:
            pytest.fail(f"{snippet.name}: the block's language is {other!r}")


@functools.cache
def known_options(*command: str) -> frozenset[str]:
    """What a command's help lists."""
    told = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"(?<![\w-])--?[a-zA-Z][\w.-]*", told))


def unknown_options(words: list[str]) -> set[str]:
    given = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-zA-Z]", word)}
    subcommand = words[1:2] if len(words) > 1 and _has_subcommand(words) else []
    known = known_options(words[0], *subcommand)
    if words[0] in ("biggan-intervene", "biggan-import"):  # they take the fields of the configuration too
        known |= {option for option in known_options("biggan-train") if "." in option or option == "--device"}
    return given - known


def _has_subcommand(words: list[str]) -> bool:
    if words[0] in ("spectra", "biggan-data"):
        return not words[1].startswith("-")
    subcommands = ("compare", "replay", "rescue", "reproduce", "claims", "changes")
    return words[0] == "biggan-intervene" and words[1] in subcommands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    found = [*inline_commands(page), *(command for snippet in snippets(page) for command in commands(snippet))]
    wrong = {
        command.text: unknown
        for command in found
        if (words := command.own) and (unknown := unknown_options([word for word in words if word != "--"]))
    }
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_fenced(page: Path) -> None:
    """An indented one would not be found."""
    assert not re.findall(rf"^    (?:\$ )?(?:{'|'.join(OWN)}) \S.*$", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_what_is_exempted_says_why() -> None:
    assert {command.needs for command in EXEMPTED} <= set(NEEDS), [command.text for command in EXEMPTED]


@pytest.mark.slow
@pytest.mark.parametrize("command", DRY, ids=lambda command: command.text)
def test_an_exempted_training_is_a_dry_run(command: Command, tmp_path: Path) -> None:
    """All of it is checked but the data, the device and the length."""
    assert command.own is not None
    words = [word for word in command.own if word != "--"]
    told = subprocess.run([*words, "--dry-run"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr

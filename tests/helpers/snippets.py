"""The fenced blocks of the documents, and the commands in them.

A command that cannot run in a test says why, for readers to see, at its end or above it: `# needs a GPU`.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = ("a GPU", "a cluster", "a network", "a browser", "a long time", "data")
"""Why a command may not be run in a test."""
OWN = ("biggan-train", "biggan-sample", "biggan-eval", "biggan-data", "biggan-import", "biggan-intervene", "spectra")
_REASON = re.compile(r"# needs ([a-zA-Z ]+)")
"""Ends at the first other sign."""


@dataclass(frozen=True)
class Snippet:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Page and line, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> str | None:
        """Why the block as a whole cannot be run here."""
        found = _REASON.match(self.text.removeprefix("#!/bin/bash\n"))
        return found[1].strip() if found else None


@dataclass(frozen=True)
class Command:
    """One command of a block, without its comment."""

    snippet: Snippet
    text: str
    needs: str | None

    @property
    def words(self) -> list[str]:
        """As a shell would split it."""
        return shlex.split(self.text)

    @property
    def own(self) -> list[str] | None:
        """The words from one of this package's commands on; of torchrun and `python -m` what they start."""
        words = self.words
        if "-m" in words and (modules := [word for word in words if word in ("biggan.train", "biggan.sample")]):
            return [modules[-1].replace("biggan.", "biggan-"), *words[words.index(modules[-1]) + 1 :]]
        return words if words and words[0] in OWN else None


def snippets(page: Path) -> list[Snippet]:
    """The fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    fences = re.finditer(r"^```(\w*)[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Snippet(page, text.count("\n", 0, fence.start()) + 1, fence[1], fence[2]) for fence in fences]


def commands(snippet: Snippet) -> list[Command]:
    """The commands of a block of shell; of a console those behind a prompt."""
    if snippet.language not in ("bash", "console"):
        return []
    lines = re.sub(r"\\\n\s*", "", snippet.text).splitlines()
    if snippet.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    found = []
    for line in lines:
        reason = _REASON.search(line)
        command = _without_comment(line)
        if command:
            needs = reason[1].strip() if reason else snippet.needs
            found.append(Command(snippet, command, needs))
    return found


def inline_commands(page: Path) -> list[Command]:
    """This package's commands in the prose of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    quoted = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]
    whole = Snippet(page, 1, "bash", "")
    return [Command(whole, code, None) for code in quoted if code.split()[0] in OWN and "..." not in code]


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    return re.sub(r"\s+# .*$", "", line).strip()

"""A command line whose errors name the nearest right option."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from biggan.errors import nearest


class Parser(argparse.ArgumentParser):
    """argparse's parser, which takes no abbreviations and for a misspelt option suggests the one that was meant."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**{"allow_abbrev": False, **arguments})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the usage and the error, and exit with code 2."""
        if wrong := re.search(r"unrecognized arguments: (?:.*? )?(--[^\s=]+)", message):
            message = f"unknown option '{wrong[1]}'{nearest(wrong[1], self._options())} See {self.prog} --help."
        super().error(message)

    def _options(self) -> list[str]:
        """Every option, those of commands within too: it is the outermost parser that finds one unknown."""
        found = []
        for action in self._actions:
            found += action.option_strings
            if isinstance(action, argparse._SubParsersAction):
                found += [option for parser in action.choices.values() for option in parser._options()]
        return found

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
            options = [option for action in self._actions for option in action.option_strings]
            message = f"unknown option '{wrong[1]}'{nearest(wrong[1], options)} See {self.prog} --help."
        super().error(message)

"""From another layout's names of tensors to this program's: rules for paths and for what stands at their ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from biggan.importing.foreign import cannot_import


@dataclass(frozen=True)
class Names:
    """How a layout calls the tensors of one network.

    Attributes:
        block: a regular expression for the beginning of a block's names; its groups are numbers that order the blocks.
        outside: path of a layer outside of the blocks -> this program's; regular expressions for whole paths.
        inside: the same within a block.
        ends: a tensor's own name -> this program's; None: left out. Those of whole names (`norm.gain`, after the path
            was renamed) come before those of ends alone.
        first_block: the number of the first block.
    """

    block: str
    outside: Mapping[str, str]
    inside: Mapping[str, str]
    ends: Mapping[str, str | None]
    first_block: int = 0
    left_out: Sequence[str] = field(default=())
    """Regular expressions for whole names that are left out."""

    def renamed(self, path: Path, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Each name -> this program's, in the same order, without those left out.

        Raises `UserError` for names that no rule is for: another architecture.
        """
        keys = sorted({key for name in tensors if (key := self._block(name)) is not None})
        numbers = {key: number + self.first_block for number, key in enumerate(keys)}
        found, unknown = {}, []
        for name in tensors:
            if any(re.fullmatch(pattern, name) for pattern in self.left_out):
                continue
            place, _, end = self._own_path(name, numbers).rpartition(".")
            whole = f"{place}.{end}"
            ours = self.ends.get(whole, self.ends.get(end, ""))
            if not place or ours == "":
                unknown.append(name)
            elif ours is not None:
                found[name] = f"{place}.{ours}"
        if unknown:
            shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
            raise cannot_import(
                path, f"this program's networks have no place for {shown}", "See docs/checkpoints.md for what maps."
            )
        return found

    def _block(self, name: str) -> tuple[int, ...] | None:
        found = re.match(self.block, name)
        return tuple(map(int, found.groups())) if found else None

    def _own_path(self, name: str, numbers: Mapping[tuple[int, ...], int]) -> str:
        """The name with its path renamed and its own end; `.END` where no rule is for the path."""
        path, _, end = name.rpartition(".")
        key = self._block(name)
        if key is None:
            return f"{_first(self.outside, path)}.{end}"
        rest = re.sub(self.block, "", f"{path}.", count=1).rstrip(".")
        inner = _first(self.inside, rest) if rest else ""
        if rest and not inner:
            return f".{end}"
        return ".".join(part for part in ("blocks", str(numbers[key]), inner, end) if part)


def _first(rules: Mapping[str, str], path: str) -> str:
    """The path by the first rule that is for all of it; empty where there is none."""
    for pattern, replacement in rules.items():
        if found := re.fullmatch(pattern, path):
            return found.expand(replacement)
    return ""

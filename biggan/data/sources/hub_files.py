"""Finds the training and the validation files among parquet files, by their names as on the Hugging Face hub."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from biggan.data.sources.walk import walk
from biggan.errors import UserError

TRAIN = "train"
_KINDS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What each split word means."""

# A word stands alone or beside digits, dashes, dots or underscores: `cifar-train`, not `pretrained`.
WORD = re.compile(rf"(?<![a-z])({'|'.join(sorted(_KINDS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)
SHARD = re.compile(r"(.*?)-?(\d{5})-of-(\d{5})")
EXPECTED = "Expected names such as train-00000-of-00001.parquet and validation-... or test-..., or folders named so."


def any_parquet(path: Path) -> bool:
    """Whether there is a parquet file at or below `path`."""
    return next((True for entry in walk(path) if entry.name.endswith(".parquet")), False)


def find_parquet(path: Path) -> list[Path]:
    """The parquet files at or below `path`, sorted by name."""
    if path.is_file():
        return [path]
    return sorted(Path(entry.path) for entry in walk(path) if entry.name.endswith(".parquet"))


def by_split(path: Path) -> tuple[list[Path], list[Path]]:
    """The training and the validation files at or below `path`; no validation files where no name speaks of splits.

    The split word stands in the file's name, or else in that of the nearest folder below `path` that has one.
    Validation is preferred to test, whose labels are secret in some data sets. Raises `UserError` where there is no
    file, where words contradict each other, where only some files have one, and where shards are missing.
    """
    files = find_parquet(path)
    if not files:
        raise UserError(
            f"{path} holds no .parquet file. Give the folder of train-*.parquet, or such a file; "
            f"for a folder of images give --data.source folder, or auto."
        )
    splits: dict[str | None, list[Path]] = defaultdict(list)
    for file in files:
        splits[_kind(file, path)].append(file)
    unnamed = splits.pop(None, [])
    if not splits:
        splits[TRAIN] = unnamed
    elif unnamed:
        raise UserError(
            f"some parquet files in {path} name their split and others do not: {_some(unnamed, path)} beside "
            f"{_some([file for named in splits.values() for file in named], path)}. {EXPECTED} Rename them, or move "
            f"away what is not to be used."
        )
    if TRAIN not in splits:
        raise UserError(f"{path} holds no training split: its files are {_some(files, path)}. {EXPECTED}")
    val = splits.get("validation") or splits.get("test") or []
    if path.is_dir():  # a single file that is named is wanted as it is
        for used in (splits[TRAIN], val):
            _check_shards(used)
    return splits[TRAIN], val


def _kind(file: Path, root: Path) -> str | None:
    """`train`, `validation` or `test`, or None where no name says which."""
    folders = () if file == root else file.relative_to(root).parts[:-1]
    for name in (file.stem, *reversed(folders)):
        kinds = {_KINDS[word.lower()] for word in WORD.findall(name)}
        if len(kinds) > 1:
            raise UserError(f"the name of {file} contains more than one split: {', '.join(sorted(kinds))}. {EXPECTED}")
        if kinds:
            return kinds.pop()
    return None


def _check_shards(files: list[Path]) -> None:
    """Raise `UserError` where files are numbered -NNNNN-of-MMMMM, and some are missing or of another numbering."""
    found: dict[tuple[Path, str], dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        if match := SHARD.match(file.stem):
            found[file.parent, match[1]][int(match[3])].add(int(match[2]))
    for (folder, prefix), numberings in found.items():
        if len(numberings) > 1:
            totals = " and ".join(f"-of-{total:05d}" for total in sorted(numberings))
            raise UserError(f"{folder} has {prefix} files of two numberings, {totals}. Move the files of one away.")
        ((total, numbers),) = numberings.items()
        if missing := sorted(set(range(total)) - numbers):
            listed = ", ".join(f"{prefix}-{number:05d}-of-{total:05d}" for number in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UserError(
                f"{folder} has {len(numbers)} of {total} {prefix} files; missing: {listed}{more}. Download them, or "
                f"rename the others if you want only these."
            )


def _some(files: list[Path], root: Path) -> str:
    listed = ", ".join(str(file.relative_to(root)) if file != root else file.name for file in files[:5])
    return listed + (f" and {len(files) - 5} more" if len(files) > 5 else "")

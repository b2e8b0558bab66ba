"""Packs a data source into memory maps: in parallel, resumable and atomic.

Everything is written into OUT.preparing, which becomes OUT in one rename at the very end. Each finished chunk of images
is a line of its `done.jsonl`, written after the chunk's pixels are on disk, so a killed preparation continues where it
stopped.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from biggan.data.images import Images
from biggan.data.labels import note_empty_classes
from biggan.data.notes import classes_in_words, notes_of_data
from biggan.data.prepare import journal as journals
from biggan.data.prepare import workers
from biggan.data.prepare.journal import Journal, lock
from biggan.data.prepare.workers import RAW, Chunk
from biggan.data.sources import packed
from biggan.data.sources.opening import Opened, detect, keep_most_common, open_data, split_off
from biggan.data.sources.packed import IMAGES, MANIFEST, WHOLE
from biggan.data.sources.preparable import PREPARABLE, preparable_kind
from biggan.errors import UserError
from spectra.record.files import move, remove_partial, replacing, sync, write_text

CHUNK_BYTES = 8 * 2**20  # of pixels: the work that a kill loses, for each worker

SILENT_BYTES = 2**30  # what is read for digests within seconds, so that it needs no word

BrokenOne = tuple[str, int, str, str]
"""A broken image: split, place in it, name, reason."""


class Reporter(Protocol):
    """The interface of a progress display."""

    def begin(self, total: int, done: int) -> None:
        """`total` images in all, of which `done` are packed already."""

    def advance(self, images: int) -> None:
        """Count further packed images."""

    def note(self, text: str) -> None:
        """Print a line."""

    def end(self) -> None:
        """End the display."""


@dataclass(frozen=True)
class PreparationJob:
    """What to pack, and where."""

    source: str
    out: Path
    resolution: int
    splits: dict[str, Images]
    classes: tuple[str, ...]
    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    """What the source has to say: what is left out, and how it is read."""

    @property
    def staging(self) -> Path:
        """The folder that holds everything until it is complete."""
        return self.out.with_name(f"{self.out.name}.preparing")

    @property
    def total(self) -> int:
        """Images in all splits."""
        return sum(len(images) for images in self.splits.values())

    def identity(self) -> str:
        """Digest of everything that determines the output."""
        found = hashlib.blake2b(f"{self.resolution}".encode(), digest_size=16)
        found.update("\0".join(self.classes).encode(errors="surrogateescape"))
        for name, images in self.splits.items():
            found.update(name.encode() + images.identity())
        return found.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all pixels."""
        return self.total * 3 * self.resolution**2

    @property
    def chunk(self) -> int:
        """Images per chunk."""
        return max(1, min(1000, CHUNK_BYTES // (3 * self.resolution**2)))

    def chunks(self) -> list[Chunk]:
        """The chunks of work."""
        return [
            Chunk(name, start, min(start + self.chunk, len(images)))
            for name, images in self.splits.items()
            for start in range(0, len(images), self.chunk)
        ]


def plan(
    source: str,
    out: Path,
    resolution: int,
    *,
    top_classes: int | None,
    val_fraction: float | None,
    columns: Mapping[str, str] | None = None,
    max_pixels: int | None = None,
) -> PreparationJob:
    """Check the source and describe the work. Raises `UserError`; nothing is written."""
    with notes_of_data() as notes:
        train, val, classes = _opened(source, resolution, columns)
    if val_fraction is not None:
        if val is not None:
            raise UserError(f"{source} already has its own validation split. Omit --val-fraction.")
        train, val = split_off(train, val_fraction)
    if top_classes is not None:
        train, val, classes = keep_most_common(train, val, classes, top_classes)
    splits = {WHOLE: train} if val is None else {"train": train, "val": val}
    for images in splits.values():
        images.limit_pixels(max_pixels)
    options: dict[str, Any] = {"top_classes": top_classes, "val_fraction": val_fraction}
    if columns:
        options["columns"] = dict(columns)
    return PreparationJob(source, Path(os.path.abspath(out)), resolution, splits, classes, options, tuple(notes))


def open_any(path: Path, resolution: int, columns: Mapping[str, str] | None = None) -> Opened:
    """The images at a path, which training may read or only a preparation. Raises `UserError` where there are none."""
    if (kind := preparable_kind(path)) is None:
        return open_data("auto", str(path), resolution, columns)
    if columns:
        raise UserError(f"--columns names columns of parquet files, and {path} is {PREPARABLE[kind].what}. Omit it.")
    opened = PREPARABLE[kind].open(path, resolution)
    note_empty_classes(opened[0].all_labels, opened[2])
    return opened


def _opened(source: str, resolution: int, columns: Mapping[str, str] | None) -> Opened:
    path = Path(source)
    if source == "digits" and not path.exists():
        return open_data("digits", None, resolution)
    if not path.exists():
        raise UserError(f"{source} does not exist. Give the path of a folder or of parquet files, or `digits`.")
    if preparable_kind(path) is None and detect(path) == "packed":
        raise UserError(f"{source} is already prepared data. Give the source that it was made from.")
    return open_any(path, resolution, columns)


def prepare(job: PreparationJob, *, processes: int, skip_broken: bool, reporter: Reporter) -> dict[str, Any]:
    """Pack everything, or what an earlier call left to do; return the manifest.

    The manifest's `skipped` lists broken images (with `skip_broken`; else the first ones found are a `UserError`).
    Raises `UserError` also where `out` holds something else, and where the disk is too small.
    """
    identity = job.identity()
    if (found := finished(job, identity)) is not None:
        return found
    if not job.staging.exists():
        _check_room(job, skip_broken=skip_broken)
    with lock(job.out):
        if (found := finished(job, identity)) is not None:  # by whoever had the lock before
            return found
        if not _only_to_rename(job.staging, identity):
            _make(job, identity, processes=processes, skip_broken=skip_broken, reporter=reporter)
        _move(job.staging, job.out)
    return packed.read_manifest(job.out)


def _make(job: PreparationJob, identity: str, *, processes: int, skip_broken: bool, reporter: Reporter) -> None:
    """Everything in the staging folder, but its journal, which is gone when all is whole."""
    journal = _open_journal(job, identity)
    try:
        broken = _pack(job, journal, processes=processes, skip_broken=skip_broken, reporter=reporter)
        if job.bytes > SILENT_BYTES:
            reporter.note("all images are packed; reading them once more for the digests")
        _finish(job, identity, broken)
    except BaseException:
        journal.close()
        if not journal.entries:
            _remove_staging(job, journal)
        raise
    journal.remove()


def _remove_staging(job: PreparationJob, journal: Journal) -> None:
    """Delete what is not worth keeping, the journal last: by it a killed call's folder is known as ours."""
    for name in job.splits:
        shutil.rmtree(job.staging / name, ignore_errors=True)
    journal.path.unlink(missing_ok=True)
    shutil.rmtree(job.staging, ignore_errors=True)


def _move(staging: Path, out: Path) -> None:
    """The final rename. Raises `UserError` if `out` has been created by something else meanwhile."""
    try:
        move(staging, out)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise UserError(
            f"something was written to {out} while it was being prepared. The packed data is complete in {staging}: "
            f"move {out} away and run the same command again."
        ) from error


def finished(job: PreparationJob, identity: str | None = None) -> dict[str, Any] | None:
    """The manifest where `out` holds this very job's output; None where it is free. Raises where it is taken."""
    out = job.out
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / MANIFEST).exists():
        raise UserError(f"{out} exists and is not prepared data. Choose another --out.")
    manifest = packed.read_manifest(out)
    if manifest["resolution"] != job.resolution:
        raise UserError(
            f"{out} was prepared at resolution {manifest['resolution']}, but --resolution is {job.resolution}. Choose "
            f"another --out, or remove it first."
        )
    if manifest["identity"] != (identity or job.identity()):
        raise UserError(
            f"{out} was prepared from other data or with other options, or its source has changed since "
            f"({manifest['source']}, {manifest['options']}). Choose another --out, or remove it first."
        )
    packed.open_packed(out, job.resolution)  # torn files are an error here too
    return manifest


def contents(manifest: dict[str, Any]) -> str:
    """What prepared data holds, in words."""
    size = f"{manifest['resolution']} x {manifest['resolution']}"
    parts = {name: f"{facts['images']:,}" for name, facts in manifest["splits"].items()}
    images = parts.get(".") or " + ".join(f"{count} ({name})" for name, count in parts.items())
    return f"{images} images at {size}, {classes_in_words(len(manifest['classes']))}"


def _only_to_rename(staging: Path, identity: str) -> bool:
    """Whether a preparation was killed between its last two moves. Raises `UserError` for a folder of someone else."""
    if not staging.exists() or not any(staging.iterdir()) or (staging / journals._NAME).exists():
        return False
    if (staging / MANIFEST).exists() and packed.read_manifest(staging).get("identity") == identity:
        return True
    raise UserError(f"{staging} exists, but this preparation did not make it. Move it, or choose another --out.")


def _open_journal(job: PreparationJob, identity: str) -> Journal:
    """The journal of this job, its files allocated. An unfinished preparation of something else is refused."""
    journal = Journal(job.staging)
    aim = {"source": os.path.abspath(job.source), "resolution": job.resolution, "options": job.options}
    header = {"identity": identity, "chunk": job.chunk, **aim}
    files_of = {name: (job.staging / name / RAW, job.staging / name / IMAGES) for name in job.splits}
    if journal.header == header and all(any(file.exists() for file in files) for files in files_of.values()):
        return journal
    if journal.header is not None and any(journal.header.get(name) != value for name, value in aim.items()):
        found = journal.header
        journal.close()
        raise UserError(
            f"{job.staging} holds an unfinished preparation of {found['source']} at resolution {found['resolution']}, "
            f"options {found['options']}. Finish it as it was begun, remove it, or choose another --out."
        )
    # Nothing yet, or a kill came while it was deleted, or the source's files have changed since (one was repaired,
    # say), so that the old work is useless.
    for name, images in job.splits.items():
        folder = job.staging / name
        folder.mkdir(exist_ok=True)
        (folder / IMAGES).unlink(missing_ok=True)
        shape = (len(images), job.resolution, job.resolution, 3)
        np.lib.format.open_memmap(folder / RAW, mode="w+", dtype=np.uint8, shape=shape).flush()
    journal.begin(header)  # after the allocation: a header means that the files are there
    return journal


def _check_room(job: PreparationJob, *, skip_broken: bool) -> None:
    """Raise `UserError` where the disk is too small: closing the gaps of broken images copies one split at a time."""
    place = next(folder for folder in job.staging.parents if folder.exists())
    needed, free = job.bytes, shutil.disk_usage(place).free
    what = ""
    if skip_broken:
        needed += max(len(images) for images in job.splits.values()) * 3 * job.resolution**2
        what = ", with what --skip-broken needs to close gaps,"
    if needed > free:
        raise UserError(
            f"packing {job.total:,} images at {job.resolution} x {job.resolution}{what} takes {needed / 1e9:.1f} GB, "
            f"and {place} has {free / 1e9:.1f} GB free. Choose another --out, or a smaller --resolution."
        )


def _pack(
    job: PreparationJob, journal: Journal, *, processes: int, skip_broken: bool, reporter: Reporter
) -> list[BrokenOne]:
    """Pack the chunks that are not done; return the broken images."""
    known = {(entry["split"], entry["start"], entry["stop"]) for entry in journal.entries}
    left = [chunk for chunk in job.chunks() if (chunk.split, chunk.start, chunk.stop) not in known]
    broken = [(entry["split"], *item) for entry in journal.entries for item in entry["broken"]]
    if not skip_broken:
        _refuse(broken, job, journal)
    reporter.begin(job.total, sum(entry["stop"] - entry["start"] for entry in journal.entries))
    try:
        with contextlib.closing(workers.run(job.splits, job.staging, left, processes)) as results:
            for chunk, items in results:
                found = [(chunk.split, *item) for item in items]
                if not skip_broken:
                    _refuse(found, job, journal)
                broken += found
                for _, _, name, reason in found:
                    reporter.note(f"skipped {name}: {reason}")
                journal.add({"split": chunk.split, "start": chunk.start, "stop": chunk.stop, "broken": items})
                reporter.advance(chunk.stop - chunk.start)
    finally:
        reporter.end()
    return broken


def _refuse(broken: list[BrokenOne], job: PreparationJob, journal: Journal) -> None:
    if broken:
        listed = "; ".join(f"{name}: {reason}" for _, _, name, reason in broken[:5])
        more = f"; and {len(broken) - 5} more beside these" if len(broken) > 5 else ""
        kept = f" What is packed so far is kept in {job.staging}." if journal.entries else ""
        raise UserError(
            f"broken images: {listed}{more}. Fix or remove them, or give --skip-broken to continue without them.{kept}"
        )


def _finish(job: PreparationJob, identity: str, broken: list[BrokenOne]) -> None:
    """Close the gaps of broken images, write labels and, last, the manifest."""
    splits = {}
    remove_partial(job.staging)
    for name, images in job.splits.items():
        folder = job.staging / name
        remove_partial(folder)
        gaps = np.array([place for split, place, *_ in broken if split == name], dtype=np.int64)
        kept = np.setdiff1d(np.arange(len(images)), gaps)
        if not len(kept):
            raise UserError(
                f"every image of {job.source} is broken. Give a folder of images, or parquet files of them."
            )
        _close_gaps(folder, kept, len(gaps))
        files = [IMAGES, *packed.save_facts(folder, images.all_labels.take(kept), images.ids[kept])]
        sync(folder)
        digests = {file: packed.digest_of(folder / file) for file in files}
        splits[name] = {"images": len(kept), "digests": digests}
    manifest = {
        "format": packed._FORMAT,
        "source": os.path.abspath(job.source) if Path(job.source).exists() else job.source,
        "identity": identity,
        "resolution": job.resolution,
        "options": job.options,
        "classes": list(job.classes),
        "splits": splits,
        "skipped": [{"name": name, "reason": reason} for _, _, name, reason in sorted(broken)],
    }
    write_text(job.staging / MANIFEST, json.dumps(manifest, indent=1) + "\n")


def _close_gaps(folder: Path, kept: np.ndarray, gaps: int) -> None:
    """Turn the raw pixels into images.npy; may be killed and repeated."""
    raw, final = folder / RAW, folder / IMAGES
    if not raw.exists():
        return
    if not gaps:
        move(raw, final)
        return
    pixels = np.load(raw, mmap_mode="r")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), *pixels.shape[1:])}
    rows = max(1, CHUNK_BYTES // pixels[0].nbytes)
    try:
        # Not a memory map: a full disk would kill the process by a signal.
        with replacing(final) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(kept), rows):
                file.write(pixels[kept[start : start + rows]].tobytes())
    except OSError as error:
        raise UserError(
            f"cannot remove the broken images from {raw}: {error.strerror or error}. This temporarily needs another "
            f"{len(kept) * pixels[0].nbytes / 1e9:.1f} GB. Free space and run the same command again; "
            f"what is packed is kept."
        ) from error
    raw.unlink()

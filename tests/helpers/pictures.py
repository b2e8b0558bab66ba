"""Tiny data sets for the tests of biggan's data sources, all drawn from fixed seeds."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from biggan.config import Config, DataConfig, ModelConfig, TrainConfig
from biggan.data.prepare.job import plan, prepare


def picture(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    """Random uint8 pixels (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Pixels as an image file's bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_folder(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """CLASS/IMAGE.png below `root`, so many images a class, of various sizes."""
    for c, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for i in range(count):
            number = seed + 1000 * c + i
            data = encode(picture(number, 9 + number % 5, 8 + number % 7))
            (root / name / f"{i:03d}.png").write_bytes(data)
    return root


def write_parquet(
    path: Path,
    labels: list[Any],
    *,
    names: list[str] | None = None,
    seed: int = 0,
    rows_per_group: int = 3,
    blobs: list[bytes | None] | None = None,
) -> Path:
    """One file as on the hub: `image` structs, `label` integers or lists, class names in the metadata if given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = [encode(picture(seed + i)) for i in range(len(labels))] if blobs is None else blobs
    images = pa.array(
        [{"bytes": blob, "path": f"{i}.png"} for i, blob in enumerate(blobs)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    several = any(isinstance(label, list) for label in labels)
    table = pa.table({"image": images, "label": pa.array(labels, pa.list_(pa.int64()) if several else pa.int64())})
    if names is not None:
        label = {"names": names, "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": {"feature": label, "_type": "Sequence"} if several else label}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def configuration(path: Path | None, classes: int, *, source: str = "auto", batch: int = 4, **data: Any) -> Config:
    """A configuration for 8x8 images that lie at `path`."""
    return Config(
        model=ModelConfig(resolution=8, classes=classes, ch=4),
        data=DataConfig(source=source, path=None if path is None else str(path), **data),
        train=TrainConfig(batch=batch),
    )


class Silent:
    """A preparation's reporter that shows nothing."""

    def begin(self, total: int, done: int) -> None: ...

    def advance(self, images: int) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


def pack(source: Path, out: Path, resolution: int = 8, *, skip_broken: bool = False, **options: float | None) -> Path:
    """Prepare `source` in this process's children."""
    settings = {"top_classes": None, "val_fraction": None} | options
    job = plan(str(source), out, resolution, **settings)  # type: ignore[arg-type]
    prepare(job, processes=2, skip_broken=skip_broken, reporter=Silent())
    return out

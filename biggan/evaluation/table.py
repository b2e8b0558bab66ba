"""Tables of scores, on disk and on the terminal. Each set of settings has its own table."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from biggan.config.fields import has_type
from biggan.errors import UserError
from biggan.evaluation.evaluator import Settings
from biggan.evaluation.scores import is_parts
from biggan.observers.evaluation import from_json, to_json
from spectra.record.damage import RecordDamage
from spectra.record.files import make_folder, write_text


@dataclass
class ScoreRow:
    """The scores of one checkpoint, or of one split of real images."""

    of: str
    """Whose scores: a checkpoint's file name, or `real train`, `real val`."""
    step: int | None
    images: int
    """How many were scored."""
    scores: dict[str, float]
    digest: str = ""
    """The checkpoint's."""
    accuracies: dict[str, float] = field(default_factory=dict)
    """D's: the shares on which it is right, `train`, `val` and `fake`."""
    memorization: dict[str, float] = field(default_factory=dict)
    """D's, whatever its offset: `auc/train_val` and so on (`biggan.evaluation.memorization`)."""
    leakage: list[list[float]] | None = None
    """The share of the images of intended class i that the classifier assigns to class j."""

    def as_dict(self) -> dict[str, Any]:
        """As stored."""
        found = {"of": self.of, "step": self.step, "images": self.images, "digest": self.digest}
        found["is_parts"] = is_parts(self.images)
        return found | {
            "scores": self.scores,
            "accuracies": self.accuracies,
            "memorization": self.memorization,
            "leakage": self.leakage,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreRow:
        """A stored row."""
        numbers = {name: from_json(values.get(name, {})) for name in ("scores", "accuracies", "memorization")}
        own = {name: value for name, value in values.items() if name != "is_parts"}
        if own.get("leakage") is not None:
            own["leakage"] = [[float(share) for share in row] for row in own["leakage"]]
        hints = get_type_hints(cls)
        row = cls(**{**own, **numbers})
        if wrong := [name for name, hint in hints.items() if not has_type(getattr(row, name), hint)]:
            raise ValueError(f"{wrong[0]} is {getattr(row, wrong[0])!r:.60}")
        return row


@dataclass
class ScoreTable:
    """The rows of one set of settings, kept in `folder` as JSON (whole) and CSV (scores); both are rewritten whole."""

    settings: Settings
    folder: Path
    rows: list[ScoreRow] = field(default_factory=list)
    real: list[ScoreRow] = field(default_factory=list)

    @property
    def stem(self) -> Path:
        """The files' path without their ending: the settings in short, and a digest of all of them."""
        s = self.settings
        parts = ["scores", s.weights, s.features.replace(":", "-").replace(".", "-"), s.reference, str(s.samples)]
        if s.truncation is not None:
            parts.append(f"t{s.truncation:g}")
        return self.folder / "-".join([*parts, s.key()[:8]])

    @classmethod
    def open(cls, settings: Settings, folder: Path) -> ScoreTable:
        """The table of these settings, with what earlier calls have put there."""
        table = cls(settings, folder)
        path = table.stem.with_name(table.stem.name + ".json")
        if path.is_file():
            try:
                stored = json.loads(path.read_text(encoding="utf-8"))
                if stored["settings"] == settings.as_dict():
                    table.rows = [ScoreRow.from_dict(row) for row in stored["rows"]]
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
                words = f"{path} is damaged ({type(error).__name__}: {error}): its scores are computed again"
                warnings.warn(words, RecordDamage, stacklevel=2)
        return table

    def add(self, row: ScoreRow) -> None:
        """Put a row in its place, instead of an earlier one of the same name."""
        self.rows = [other for other in self.rows if other.of != row.of]
        self.rows.append(row)
        self.rows.sort(key=lambda r: (-1 if r.step is None else r.step, r.of))

    def save(self) -> list[Path]:
        """Write both files. Raises `UserError` where the folder cannot be written."""
        whole = {
            "settings": self.settings.as_dict(),
            "rows": [row.as_dict() for row in self.rows],
            "real": [row.as_dict() for row in self.real],
        }
        paths = [self.stem.with_name(self.stem.name + ending) for ending in (".json", ".csv")]
        try:
            make_folder(self.folder)
            write_text(paths[0], json.dumps(to_json(whole), indent=1, allow_nan=False) + "\n")
            write_text(paths[1], self._csv())
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error}. Choose another --out.") from error
        return paths

    def _csv(self) -> str:
        return csv_text(
            [
                {"of": row.of, "step": row.step, "images": row.images, "is_parts": is_parts(row.images)}
                | row.scores
                | {f"D_{name}": value for name, value in row.accuracies.items()}
                | {f"D_{name.replace('/', '_')}": value for name, value in row.memorization.items()}
                | {name: value for name, value in self.settings.as_dict().items() if name != "samples"}
                for row in [*self.rows, *self.real]
            ]
        )

    def in_words(self) -> str:
        """The table as text: settings, checkpoints, real images. These have as many images as their line says."""
        lines = [self.settings.in_words(), "", *aligned([_shown(row) for row in self.rows])]
        if self.real:
            lines += ["", "real images, scored in the same way:", *aligned([_shown(row) for row in self.real])]
        return "\n".join(lines)


def _shown(row: ScoreRow) -> dict[str, str]:
    start = {"": row.of, "images": f"{row.images:,}", "IS parts": str(is_parts(row.images))}
    accuracies = {f"D accuracy {name}": f"{value:.1%}" for name, value in row.accuracies.items()}
    memorization = {f"D {in_words(name)}": f"{value:.3f}" for name, value in row.memorization.items()}
    return start | {name: short(value) for name, value in row.scores.items()} | accuracies | memorization


def in_words(name: str) -> str:
    """The column heading of a measure of D's memorization: `auc/train_val` -> "AUC train/val"."""
    kind, _, sets = name.partition("/")
    return f"{kind.upper() if kind == 'auc' else kind} {sets.replace('_', '/')}"


def short(value: float) -> str:
    """A number to four digits."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def aligned(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of columns, a header above; the first column to the left, numbers to the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([row.get(name, "") for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, columns in the order in which they first occur."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()

"""What a data source gives: two splits of images and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


@dataclass(frozen=True)
class Position:
    """One image of a batch: which, and the key of whatever is drawn for it (augmentation)."""

    index: int
    key: int


class ImageArray(Dataset):
    """Images held as one uint8 array (N, R, R, 3), with int64 labels (N,)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: Position) -> tuple[Tensor, Tensor]:
        images, labels = self.__getitems__([position])
        return images[0], labels[0]

    def __getitems__(self, positions: list[Position]) -> tuple[Tensor, Tensor]:
        """A whole batch at once: images (B, 3, R, R) float32 in [-1, 1], labels (B,) int64."""
        indices = [position.index for position in positions]
        return to_float(torch.from_numpy(self.images[indices])), torch.from_numpy(self.labels[indices])


def to_float(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)


def to_uint8(images: Tensor) -> np.ndarray:
    """Float (N, 3, H, W) in [-1, 1] -> uint8 (N, H, W, 3), to the nearest value. NaN becomes 0 (black)."""
    scaled = images.detach().float().cpu().add(1).mul(127.5).round().clamp(0, 255).nan_to_num(0)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).numpy()


@dataclass(frozen=True)
class Source:
    """A training and a validation split of labelled images, and the classes' names."""

    train: ImageArray
    val: ImageArray
    classes: tuple[str, ...]

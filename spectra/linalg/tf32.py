"""Whether float32 convolutions and matrix products on a GPU may be computed in TF32, which keeps 10 bits of 23.

torch allows it to cuDNN's convolutions unless told otherwise. Its older switches (`allow_tf32`) are there in every
version from 2.6 on; its newer ones (`fp32_precision`, from 2.9 on) win over them where somebody has set them, and
reading the older raises where the two disagree. So both are set, alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 inside a block or a decorated function; afterwards the old settings are restored.

    The switches apply to the whole process, including other threads. If TF32 is forbidden, so are the reduced
    precisions
    that `torch.set_float32_matmul_precision` may have allowed on a CPU.
    """
    before, precision = _read(), _matmul_precision()
    if not allowed and precision in ("high", "medium"):
        torch.set_float32_matmul_precision("highest")
    _write([(allowed, "tf32" if allowed else "ieee")] * len(before))
    try:
        yield
    finally:
        _write(before)
        if precision is not None and precision != _matmul_precision():
            torch.set_float32_matmul_precision(precision)


def _matmul_precision() -> str | None:
    """What `torch.get_float32_matmul_precision` says; None where older and newer switches disagree, and it raises."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def is_allowed() -> dict[str, bool]:
    """Of `matmul`, `conv` and `rnn` on a GPU: whether TF32 is allowed now."""
    return dict(zip(("matmul", "conv", "rnn"), (on for on, _ in _read()), strict=True))


def _read() -> list[tuple[bool, str | None]]:
    """Of matrix products, convolutions and recurrent layers: whether TF32 is on, and the newer switch's own word."""
    newer = _newer()
    if newer:
        words = [switch.fp32_precision for switch in newer]
        return [(word == "tf32", word) for word in words]
    cudnn = torch.backends.cudnn.allow_tf32
    return [(torch.backends.cuda.matmul.allow_tf32, None), (cudnn, None), (cudnn, None)]


def _write(wanted: list[tuple[bool, str | None]]) -> None:
    torch.backends.cuda.matmul.allow_tf32 = wanted[0][0]
    torch.backends.cudnn.allow_tf32 = wanted[1][0]
    for switch, (_, word) in zip(_newer(), wanted, strict=False):
        if switch.fp32_precision != word:
            switch.fp32_precision = word


def _newer() -> list[Any]:
    """torch's newer switches; none before 2.9."""
    cudnn = torch.backends.cudnn
    if not hasattr(torch.backends, "fp32_precision"):
        return []
    return [torch.backends.cuda.matmul, *(getattr(cudnn, name) for name in ("conv", "rnn"))]

"""Copies the next batch to the GPU while the current one is processed."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from biggan.data.step_batches import LabelledImages
from biggan.errors import UserError


def prefetched(batches: Iterator[LabelledImages], device: torch.device) -> Iterator[LabelledImages]:
    """The same batches; for a GPU, each is copied one batch ahead, on a separate stream.

    The loader pins them. If it raises, the error comes where its batch would have come.
    """
    return batches if device.type != "cuda" else _ahead(batches, device)


def _ahead(batches: Iterator[LabelledImages], device: torch.device) -> Iterator[LabelledImages]:
    stream = torch.cuda.Stream(device)
    following = _sent(batches, stream, device)
    while True:
        if isinstance(following, UserError):
            raise following
        current = following
        torch.cuda.current_stream(device).wait_stream(stream)
        for tensor in current:  # its memory may be taken again only when the work on it is done
            tensor.record_stream(torch.cuda.current_stream(device))
        following = _sent(batches, stream, device)
        yield current


def _sent(
    batches: Iterator[LabelledImages], stream: torch.cuda.Stream, device: torch.device
) -> LabelledImages | UserError:
    try:
        images, labels = next(batches)
    except UserError as error:
        return error
    with torch.cuda.stream(stream):
        return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)

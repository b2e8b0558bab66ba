"""The queries, keys and values of attention that are stored as one matrix, apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from spectra.networks.checkpoint_files import StoredWeight

if TYPE_CHECKING:
    from torch import Tensor

_IN_ROWS = re.compile(r"(^|\.)(in_proj_weight|in_proj|to_qkv|qkv|Wqkv)$")
"""`nn.MultiheadAttention`, timm and others: q above k above v."""

_IN_COLUMNS = re.compile(r"(^|\.)c_attn$")
"""GPT-2, whose weights are stored as in x out: q beside k beside v."""


def split_fused_attention(weights: list[StoredWeight]) -> list[StoredWeight]:
    """Weights with each fused one as three, NAME.q, NAME.k and NAME.v.

    Taken apart is only what is known to lie in thirds: a matrix called `in_proj`, `qkv`, `to_qkv` or `Wqkv` with three
    rows for each column, and `c_attn` with three columns for each row. (GPT-NeoX's and BLOOM's `query_key_value`
    alternates by heads, whose number a state dict does not tell.)

    Raises:
        ValueError: there is none.
    """
    parts = [part for weight in weights for part in _parts(weight)]
    if len(parts) == len(weights):
        raise ValueError(
            "the file holds no fused attention that is known to lie in thirds: a matrix called in_proj_weight, qkv, "
            "to_qkv or Wqkv of 3 N x N, or c_attn of N x 3 N. Omit --split-qkv"
        )
    return parts


def _parts(weight: StoredWeight) -> Iterator[StoredWeight]:
    shape = weight.shape
    rows = len(shape) == 2 and shape[0] == 3 * shape[1] and _IN_ROWS.search(weight.name)
    columns = len(shape) == 2 and shape[1] == 3 * shape[0] and _IN_COLUMNS.search(weight.name)
    if not (rows or columns) or 0 in shape:
        yield weight
        return
    side = min(shape)
    for i, letter in enumerate("qkv"):
        read = partial(_third, weight.read, 0 if rows else 1, i * side, side)
        yield replace(weight, name=f"{weight.name}.{letter}", shape=(side, side), read=read)


def _third(read: Callable[[], Tensor], axis: int, start: int, length: int) -> Tensor:
    return read().narrow(axis, start, length)

"""The tables of widths (Appendix B): architecture as data.

A row reads as the paper prints it: `up 16->8` is a residual block that doubles the resolution and takes 16 ch
channels to 8 ch; `conv` is a plain 3x3 convolution; a block that is neither up nor down keeps the resolution; `rgb`
is the image. A new architecture is a new row here. Where the printed tables mislead, the printed parameter counts
decide (tests/biggan/networks/test_architectures.py holds them).
"""

from __future__ import annotations

from dataclasses import dataclass

from biggan.config import ModelConfig
from biggan.errors import UserError

BASE_RESOLUTION = 4  # G's linear layer always puts out a 4x4 map.


@dataclass(frozen=True)
class Block:
    """One residual block (or D's first convolution): how it resamples, and its widths as multiples of ch."""

    kind: str  # "up", "down", "flat" or "conv"
    before: int  # 0 stands for the image's three channels
    after: int
    extra: bool = False
    """Added by `double_depth`; in G it takes the condition of the block that it follows."""


@dataclass(frozen=True)
class Architecture:
    """One row of the table."""

    linear: int
    """Width of G's 4x4 map, as a multiple of ch."""
    G: str
    D: str
    z_dim: int
    embedding_dim: int = 128
    attention_G: tuple[int, ...] = ()
    attention_D: tuple[int, ...] = ()

    def blocks(self, network: str) -> tuple[Block, ...]:
        """The blocks of network "G" or "D" in order."""
        return tuple(_parse(entry) for entry in (self.G if network == "G" else self.D).split(","))


def _parse(entry: str) -> Block:
    *kind, widths = entry.split()
    before, after = widths.split("->")
    return Block(kind[0] if kind else "flat", 0 if before == "rgb" else int(before), int(after))


TABLE: dict[tuple[str, int], Architecture] = {
    # Small tables of our own, for a laptop.
    ("biggan", 8): Architecture(4, "4->4, up 4->4", "down rgb->4, 4->4, 4->4", z_dim=24, embedding_dim=32),
    ("biggan", 16): Architecture(4, "up 4->4, up 4->2", "down rgb->2, down 2->4, 4->4", z_dim=24, embedding_dim=32),
    # Not in the paper: as in the authors' PyTorch code.
    ("biggan", 32): Architecture(4, "up 4->4, up 4->4, up 4->4", "down rgb->4, down 4->4, 4->4, 4->4", z_dim=80),
    ("biggan", 64): Architecture(
        16,
        "up 16->16, up 16->8, up 8->4, up 4->2",
        "down rgb->1, down 1->2, down 2->4, down 4->8, 8->16",
        z_dim=100,
    ),
    # Table 4.
    ("biggan", 128): Architecture(
        16,
        "up 16->16, up 16->8, up 8->4, up 4->2, up 2->1",
        "down rgb->1, down 1->2, down 2->4, down 4->8, down 8->16, 16->16",
        z_dim=120,
        attention_G=(64,),
        attention_D=(64,),
    ),
    # Table 5.
    ("biggan", 256): Architecture(
        16,
        "up 16->16, up 16->8, up 8->8, up 8->4, up 4->2, up 2->1",
        "down rgb->1, down 1->2, down 2->4, down 4->8, down 8->8, down 8->16, 16->16",
        z_dim=140,
        attention_G=(128,),
        attention_D=(64,),
    ),
    # Table 6.
    ("biggan", 512): Architecture(
        16,
        "up 16->16, up 16->8, up 8->8, up 8->4, up 4->2, up 2->1, up 1->1",
        "down rgb->1, down 1->1, down 1->2, down 2->4, down 4->8, down 8->8, down 8->16, 16->16",
        z_dim=160,
        attention_G=(64,),
        attention_D=(64,),
    ),
    # BigGAN-deep at 32 and 64: not in the paper, by the pattern of its rows.
    ("biggan-deep", 32): Architecture(
        4,
        "4->4, up 4->4, 4->4, up 4->4, 4->4, up 4->4",
        "conv rgb->4, down 4->4, 4->4, down 4->4, 4->4",
        z_dim=128,
    ),
    ("biggan-deep", 64): Architecture(
        16,
        "16->16, up 16->16, 16->16, up 16->8, 8->8, up 8->4, 4->4, up 4->2",
        "conv rgb->1, down 1->2, 2->2, down 2->4, 4->4, down 4->8, 8->8, down 8->16, 16->16",
        z_dim=128,
    ),
    # Table 7.
    ("biggan-deep", 128): Architecture(
        16,
        "16->16, up 16->16, 16->16, up 16->8, 8->8, up 8->4, 4->4, up 4->2, 2->2, up 2->1",
        "conv rgb->1, down 1->2, 2->2, down 2->4, 4->4, down 4->8, 8->8, down 8->16, 16->16, down 16->16, 16->16",
        z_dim=128,
        attention_G=(64,),
        attention_D=(64,),
    ),
    # Table 8.
    ("biggan-deep", 256): Architecture(
        16,
        "16->16, up 16->16, 16->16, up 16->8, 8->8, up 8->8, 8->8, up 8->4, 4->4, up 4->2, 2->2, up 2->1",
        "conv rgb->1, down 1->2, 2->2, down 2->4, 4->4, down 4->8, 8->8, down 8->8, 8->8, down 8->16, 16->16, "
        "down 16->16, 16->16",
        z_dim=128,
        attention_G=(64,),
        attention_D=(64,),
    ),
    # Table 9.
    ("biggan-deep", 512): Architecture(
        16,
        "16->16, up 16->16, 16->16, up 16->8, 8->8, up 8->8, 8->8, up 8->4, 4->4, up 4->2, 2->2, up 2->1, "
        "1->1, up 1->1",
        "conv rgb->1, down 1->1, 1->1, down 1->2, 2->2, down 2->4, 4->4, down 4->8, 8->8, down 8->8, 8->8, "
        "down 8->16, 16->16, down 16->16, 16->16",
        z_dim=128,
        attention_G=(64,),
        attention_D=(64,),
    ),
}


@dataclass(frozen=True)
class ResolvedModel:
    """A model configuration with everything resolved that it leaves to the table."""

    architecture: Architecture
    z_dim: int
    embedding_dim: int
    attention_G: tuple[int, ...]
    attention_D: tuple[int, ...]
    double_depth: bool
    attention_blocks_D: tuple[int, ...] | None = None

    def attention_places_D(self, resolution: int) -> set[int]:
        """The numbers of D's blocks that a non-local block follows: those given, or the last one at each resolution of
        `attention_D`, for images of this resolution."""
        if self.attention_blocks_D is not None:
            return set(self.attention_blocks_D)
        places = resolutions(self.blocks("D"), resolution)
        return {i for i, place in enumerate(places) if place in self.attention_D and place not in places[i + 1 :]}

    def blocks(self, network: str) -> tuple[Block, ...]:
        """The blocks of network "G" or "D" in order, those that double its depth among them."""
        found: list[Block] = []
        for block in self.architecture.blocks(network):
            found.append(block)
            if self.double_depth and block.kind in ("up", "down"):
                found.append(Block("flat", block.after, block.after, extra=True))
        return tuple(found)


def resolve_model(model: ModelConfig) -> ResolvedModel:
    """The row of the table for `model`, its open fields filled in.

    Raises `UserError` where there is no such row, or where its parts cannot be joined.
    """
    if (model.family, model.resolution) not in TABLE:
        known = sorted(resolution for family, resolution in TABLE if family == model.family)
        raise UserError(
            f"model.resolution is {model.resolution}, and {model.family} has tables for {known} only. Choose one of "
            f"these, or add a row to biggan/networks/architectures.py."
        )
    row = TABLE[model.family, model.resolution]
    plan = ResolvedModel(
        row,
        z_dim=row.z_dim if model.z_dim is None else model.z_dim,
        embedding_dim=row.embedding_dim if model.embedding_dim is None else model.embedding_dim,
        attention_G=row.attention_G if model.attention_G is None else tuple(model.attention_G),
        attention_D=row.attention_D if model.attention_D is None else tuple(model.attention_D),
        double_depth=model.double_depth,
        attention_blocks_D=None if model.attention_blocks_D is None else tuple(model.attention_blocks_D),
    )
    _check_conditioning(model, plan)
    _check_attention(model, plan)
    if model.family == "biggan-deep" and (model.width_G % 4 or model.width_D % 4):
        raise UserError(
            f"BigGAN-deep's blocks have a bottleneck of a quarter of their width, so model.ch must be a multiple of "
            f"4; it is {model.width_G} in G and {model.width_D} in D."
        )
    return plan


def _check_conditioning(model: ModelConfig, plan: ResolvedModel) -> None:
    needs_embedding = {
        "model.share_embedding_with_D": model.share_embedding_with_D,
        "model.projection: mlp": model.projection == "mlp",
        "model.projection_bias": model.projection_bias,
        "model.projection_spectral_norm: false": not model.projection_spectral_norm,
    }
    if wrong := [name for name, wanted in needs_embedding.items() if wanted and not model.shared_embedding]:
        raise UserError(
            f"{wrong[0]} builds on G's shared class embedding, and model.shared_embedding is off. Turn it on, or the "
            f"other off."
        )
    if model.projection_hidden is not None and model.projection != "mlp":
        raise UserError(
            "model.projection_hidden is set, and model.projection is linear, without a hidden layer. Set "
            "model.projection to mlp, or omit model.projection_hidden."
        )
    if model.skip_z and not model.shared_embedding:
        raise UserError(
            "model.skip_z joins z to the shared class embedding, and model.shared_embedding is off. Turn skip_z off "
            "too (Table 1, rows 1 to 5), or the shared embedding on."
        )
    if model.family == "biggan-deep":
        if not model.skip_z:
            raise UserError("BigGAN-deep joins z to the condition of every block: model.skip_z cannot be off.")
    elif model.skip_z:
        chunks = len(plan.architecture.blocks("G")) + 1
        if plan.z_dim % chunks:
            lower = plan.z_dim // chunks * chunks
            raise UserError(
                f"model.z_dim is {plan.z_dim}, and with model.skip_z z is split into {chunks} equal chunks (one for "
                f"the first layer, one a block). Take {lower or chunks} or {lower + chunks}."
            )


def _check_attention(model: ModelConfig, plan: ResolvedModel) -> None:
    for name, wanted in (("G", plan.attention_G), ("D", plan.attention_D)):
        blocks = plan.blocks(name)
        places = resolutions(blocks, BASE_RESOLUTION if name == "G" else model.resolution)
        if missing := sorted(set(wanted) - set(places)):
            raise UserError(
                f"model.attention_{name} asks for a non-local block at {missing}, and {name}'s maps have the "
                f"resolutions {sorted(set(places))} at {model.resolution} pixels."
            )
        numbers = {i for i, place in enumerate(places) if place in wanted}
        if name == "D" and plan.attention_blocks_D is not None:
            numbers = set(plan.attention_blocks_D)
        if beyond := sorted(number for number in numbers if number >= len(blocks)):
            raise UserError(f"model.attention_blocks_D names {beyond}, and D has the blocks 0 to {len(blocks) - 1}.")
        width = model.width_G if name == "G" else model.width_D
        for number in sorted(numbers):
            if (channels := blocks[number].after * width) < 8:
                place = places[number]
                raise UserError(
                    f"a non-local block at {place}x{place} in {name} would have {channels} channels, and "
                    f"it needs 8 at least (its keys have an eighth of them). Raise model.ch."
                )


def resolutions(blocks: tuple[Block, ...], start: int) -> list[int]:
    """The resolution that each block puts out, when the first one is given a `start` x `start` map."""
    places = []
    for block in blocks:
        start = start * 2 if block.kind == "up" else start // 2 if block.kind == "down" else start
        places.append(start)
    return places

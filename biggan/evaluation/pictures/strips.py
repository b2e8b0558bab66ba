"""Pictures of a generator: interpolations, nearest training images, truncation strips, easy and difficult classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from biggan import rng
from biggan.data.images import Images, to_uint8
from biggan.errors import UserError
from biggan.evaluation.evaluator import Evaluator
from biggan.evaluation.features.registry import Embedded, embed_images
from biggan.evaluation.generate import LatentSpec
from biggan.evaluation.pictures.grids import draw_grid
from biggan.evaluation.scores import class_fids, class_spread_shares
from biggan.networks.base import GeneratorNetwork, shared_embedding
from biggan.networks.spectral_norm import normalized

if TYPE_CHECKING:
    from PIL.Image import Image

_STEPS = 8
_ROWS = 10
STRIP = (2.0, 1.0, 0.5, 0.04)  # Figure 2a
_CHUNK = 1024


@torch.no_grad()
def images_of(sampler: GeneratorNetwork, z: Tensor, c: Tensor) -> np.ndarray:
    """uint8 images (N, R, R, 3) of latents (N, z_dim) and classes (N,) or class embeddings (N, dim)."""
    device = next(sampler.parameters()).device
    with normalized(sampler, iterate=False):
        draw: Callable[[Tensor, Tensor], Tensor] = sampler
        if c.dtype != torch.int64:
            draw = getattr(sampler, "synthesize")  # noqa: B009 - which a G with an embedding has
        parts = [
            to_uint8(draw(z_part.to(device), c_part.to(device)))
            for z_part, c_part in zip(z.split(64), c.split(64), strict=True)
        ]
    return np.concatenate(parts)


def _latents(sampler: GeneratorNetwork, draw: LatentSpec, count: int, purpose: str) -> Tensor:
    random = rng.generator(draw.seed, f"pictures/{purpose}")
    return draw.latents(random, count, sampler.z_dim)


def _chosen(classes: int, count: int) -> list[int]:
    """`count` classes, evenly from all of them."""
    return sorted({int(c) for c in np.linspace(0, classes - 1, min(count, classes)).round()})


def _of_all(sampler: GeneratorNetwork, shown: int) -> str:
    """A remark for the title if not every class is shown."""
    return "" if shown == sampler.classes else f"; {shown} of {sampler.classes} classes"


@torch.no_grad()
def interpolations(sampler: GeneratorNetwork, draw: LatentSpec, names: Sequence[str], title: str) -> Image:
    """Between two latents of one class; between two (z, c) pairs (Figure 8); between classes at one z (Figure 9).

    Each row goes from its left end to its right in equal steps of z, and of the shared class embedding c.
    """
    device = next(sampler.parameters()).device
    left = torch.tensor(_chosen(sampler.classes, _ROWS))
    right = left.roll(-1)
    count = len(left)
    z0, z1 = (_latents(sampler, draw, count, purpose) for purpose in ("left", "right"))
    share = torch.linspace(0, 1, _STEPS).repeat(count)[:, None]

    def between(a: Tensor, b: Tensor) -> Tensor:
        return torch.lerp(a.repeat_interleave(_STEPS, 0), b.repeat_interleave(_STEPS, 0), share.to(a.device))

    panels = {"z to z', one class": images_of(sampler, between(z0, z1), left.repeat_interleave(_STEPS))}
    if getattr(sampler, "embedding", None) is not None:
        c0, c1 = (shared_embedding(sampler)(c.to(device)) for c in (left, right))
        panels["(z, c) to (z', c')"] = images_of(sampler, between(z0, z1), between(c0, c1))
        panels["c to c', z fixed"] = images_of(sampler, z0.repeat_interleave(_STEPS, 0), between(c0, c1))
    rows = [f"{names[a]} to {names[b]}" for a, b in zip(left, right, strict=True)]
    shaped = {name: images.reshape(count, _STEPS, *images.shape[1:]) for name, images in panels.items()}
    about = f"interpolations, {title}; the first panel keeps the class at a row's left{_of_all(sampler, count)}"
    return draw_grid(shaped, rows, about)


def truncation_strips(
    sampler: GeneratorNetwork, draw: LatentSpec, names: Sequence[str], title: str, per_class: int = 5
) -> Image:
    """The same draws truncated at 2, 1, 0.5 and 0.04 (Figure 2a), classes by rows."""
    classes = torch.tensor(_chosen(sampler.classes, _ROWS))
    panels = {}
    for threshold in STRIP:
        at = replace(draw, truncation=threshold)
        z = _latents(sampler, at, len(classes) * per_class, "strips")
        images = images_of(sampler, z, classes.repeat_interleave(per_class))
        panels[f"threshold {threshold:g}"] = images.reshape(len(classes), per_class, *images.shape[1:])
    return draw_grid(panels, [names[c] for c in classes], f"truncation, {title}{_of_all(sampler, len(classes))}")


def nearest_places(queries: Tensor, rows: Sequence[Tensor], k: int) -> Tensor:
    """(Q, k): of all rows, given in chunks, the places of the k nearest to each query (Q, F), nearest first."""
    best: Tensor | None = None
    places: Tensor | None = None
    first = 0
    for chunk in rows:
        found = torch.cdist(queries, chunk)
        own = torch.arange(first, first + len(chunk)).expand(len(queries), -1)
        first += len(chunk)
        joined = found if best is None else torch.cat([best, found], dim=1)
        numbers = own if places is None else torch.cat([places, own], dim=1)
        best, order = joined.topk(min(k, joined.shape[1]), dim=1, largest=False)
        places = numbers.gather(1, order)
    assert places is not None
    return places


def nearest_neighbours(
    evaluator: Evaluator,
    sampler: GeneratorNetwork,
    train: Images,
    draw: LatentSpec,
    names: Sequence[str],
    title: str,
    k: int = 5,
) -> Image:
    """Samples (left) with their nearest training images by pixels and by features (Figures 10 to 14).

    `train`: the images that the GAN was trained on.
    """
    classes = torch.tensor(_chosen(sampler.classes, 10))
    samples = images_of(sampler, _latents(sampler, draw, len(classes), "neighbours"), classes)
    device = next(sampler.parameters()).device
    floats = torch.from_numpy(samples).permute(0, 3, 1, 2).float().to(device).div(127.5).sub(1)
    features = evaluator.network.embed(floats, classes).features
    parts = [part.features for part in embed_images(evaluator.network, train, device)]
    starts = range(0, len(train), _CHUNK)
    pixels = (_flat(train.pixels(np.arange(s, min(s + _CHUNK, len(train))))) for s in starts)
    by_pixels = nearest_places(_flat(samples), list(pixels), k)
    by_features = nearest_places(features, parts, k)
    panels = {"sample": samples[:, None]}
    for name, places in (("nearest by pixels", by_pixels), (f"nearest by {evaluator.network.name}", by_features)):
        panels[name] = np.stack([train.pixels(row.numpy()) for row in places])
    return draw_grid(panels, [names[c] for c in classes], f"nearest of {len(train):,} training images, {title}")


def _flat(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).flatten(1).float()


def class_difficulty(
    evaluator: Evaluator,
    sampler: GeneratorNetwork,
    embedded: Embedded,
    draw: LatentSpec,
    names: Sequence[str],
    title: str,
) -> Image:
    """Samples of the easiest and the most difficult classes (Figure 7), by the FID within each.

    Raises `UserError` where there are no moments of each class.
    """
    if evaluator.reference.by_class is None:
        raise UserError("difficulty by class needs moments of each class, but these features are too many for that.")
    fids = torch.tensor(class_fids(embedded, evaluator.reference))
    shares = class_spread_shares(embedded, evaluator.reference)
    order = fids.argsort()  # those of no known FID, of fewer than two samples, last
    shown = order if len(order) <= 10 else torch.cat([order[:5], order[-5:]])
    images = images_of(sampler, _latents(sampler, draw, len(shown) * 8, "difficulty"), shown.repeat_interleave(8))
    labels = [f"{names[c]}: FID {fids[c]:.3g}, spread {shares[c]:.2f}" for c in shown]
    caption = "from easy to difficult" if len(order) <= 10 else "the five easiest, the five most difficult"
    panels = {f"{caption}, by the FID within each class": images.reshape(len(shown), 8, *images.shape[1:])}
    return draw_grid(panels, labels, f"classes, {title}")

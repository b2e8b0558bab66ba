"""The networks in whose features images are compared. A new one is one entry in `FEATURES`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from biggan.data.images import Images, Source, to_float
from biggan.errors import UserError
from biggan.evaluation.features.classifier import trained_classifier
from biggan.evaluation.features.inception import load_inception
from biggan.networks.walk import buffers_of, parameters_of
from biggan.run.checkpoint import digest
from spectra.nearest import nearest

_CHUNK = 256
Report = Callable[[str], None]


@dataclass(frozen=True)
class Embedded:
    """Features and logits of images, all float64 on the CPU."""

    features: Tensor
    """(N, F)."""
    logits: Tensor | None
    """(N, K), K the network's own classes; None where it gives none."""
    labels: Tensor
    """int64 (N,): the class that each image is of, or is meant to be of."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, places: Tensor | slice) -> Embedded:
        """Some of them."""
        return Embedded(
            self.features[places], None if self.logits is None else self.logits[places], self.labels[places]
        )


@dataclass(frozen=True)
class FeatureNetwork:
    """A network with the name and the digest that are stored with every score."""

    name: str
    digest: str
    module: nn.Module
    own_classes: bool
    """Whether the logits' classes are the data's, so that class leakage can be measured."""

    @torch.no_grad()
    def embed(self, images: Tensor, labels: Tensor) -> Embedded:
        """Images (N, 3, R, R) in [-1, 1] with their labels. Raises `UserError` where finite images give NaN or Inf.

        Images that hold NaN themselves have NaN as features.
        """
        held = [*parameters_of(self.module), *buffers_of(self.module)]
        if any(tensor.device != images.device for tensor in held):  # `to` goes through every tensor, which takes longer
            self.module.to(images.device)
        found = self.module(images)
        features, logits = found if isinstance(found, tuple) else (found, None)
        features = features.flatten(1).double().cpu()
        logits = None if logits is None else logits.double().cpu()
        good = torch.isfinite(images.sum(dim=(1, 2, 3))).cpu()  # images in [-1, 1], or NaN
        finite = torch.isfinite(features).all(dim=1)
        if logits is not None:
            finite &= torch.isfinite(logits).all(dim=1)
        if bad := int((good & ~finite).sum()):
            raise UserError(
                f"the features {self.name} are NaN or infinite for {bad} of {len(images)} images whose pixels are "
                f"finite: something is wrong with the network. Check its weights, or use other features."
            )
        features[~good] = torch.nan
        if logits is not None:
            logits[~good] = torch.nan
        return Embedded(features, logits, labels.cpu())


def join(parts: Iterable[Embedded]) -> Embedded:
    """Several as one, in order."""
    parts = list(parts)
    logits = None if parts[0].logits is None else torch.cat([p.logits for p in parts if p.logits is not None])
    return Embedded(torch.cat([p.features for p in parts]), logits, torch.cat([p.labels for p in parts]))


def embed_images(network: FeatureNetwork, images: Images, device: str | torch.device = "cpu") -> Iterable[Embedded]:
    """Chunks of a split, unflipped, in order."""
    for first in range(0, len(images), _CHUNK):
        places = np.arange(first, min(first + _CHUNK, len(images)))
        pixels = to_float(torch.from_numpy(images.pixels(places))).to(device)
        yield network.embed(pixels, torch.from_numpy(images.labels[places]))


def _classifier(source: Source, weights: str | None, report: Report) -> nn.Module:
    return trained_classifier(source.train, len(source.classes), report, source.val)


def _inception(source: Source, weights: str | None, report: Report) -> nn.Module:
    return load_inception(weights)


FEATURES: dict[str, Callable[[Source, str | None, Report], nn.Module]] = {
    "classifier": _classifier,
    "inception": _inception,
}
"""Name -> (complete source, weights file or None, where to report) -> a module from images in [-1, 1] to features
(N, F), or to features and logits (N, K)."""


def load_features(name: str, source: Source, weights: str | None = None, report: Report = print) -> FeatureNetwork:
    """The network called `name` in `FEATURES`, or found by an import path `package.module:Name`.

    What the path names is a module, or is called without arguments to make one. It maps float images (N, 3, R, R) in
    [-1, 1] to features (N, F), or to a pair of features and logits. `source` holds the complete training split.
    Raises `UserError` for a name or path that leads to none.
    """
    if name in FEATURES:
        module = FEATURES[name](source, weights, report)
    elif ":" in name:
        module = _imported(name)
    else:
        raise UserError(
            f"unknown features '{name}'{nearest(name, FEATURES)} Known: {', '.join(FEATURES)}, or an import path "
            f"package.module:Name of a torch.nn.Module."
        )
    module = module.eval().requires_grad_(False)
    own = name == "classifier"
    facts = {} if name in FEATURES else {"path": name, "code": _code(module)}
    return FeatureNetwork(name, digest(_on_cpu(module), facts)[:16], module, own)


def _code(module: nn.Module) -> str:
    """The source of a module's class: its weights alone do not say what its forward does."""
    try:
        return inspect.getsource(type(module))
    except (OSError, TypeError):  # made in an interactive session
        return ""


def _on_cpu(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}


def _imported(path: str) -> nn.Module:
    place, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(place), attribute)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            module = found if isinstance(found, nn.Module) else found()
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"cannot load the features {path}: {error}. Give package.module:Name of a module.") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{path} gave a {type(module).__name__}, expected a torch.nn.Module.")
    return module

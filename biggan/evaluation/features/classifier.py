"""A small convolutional classifier of the data's own classes, whose last hidden layer serves as features.

The paper did the same for JFT-300M (Section 5.2): if Inception's features do not fit the data, those of a network
trained on the data itself are better. It is trained once, deterministically, on the source's complete training split
(even if the GAN is trained on a subset), and kept in the cache under a digest of the data.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan import rng
from biggan.data import decode
from biggan.data import images as images_module
from biggan.data.images import Images, to_float
from biggan.evaluation.features import cache

RECIPE = 1  # part of the cache's key: a changed recipe is another classifier
_BATCH = 64
RATE = 2e-3
LARGE = 20_000  # from so many images on, fewer epochs, and on a GPU where there is one


class Classifier(nn.Module):
    """Images (N, 3, R, R) in [-1, 1] -> features (N, 64; 256 for more than 100 classes) and logits (N, classes).

    Convolutions of 4x4 and stride 2, of 32, then 64, then 128 filters, down to 4x4, one of 3x3, and a hidden layer.
    """

    def __init__(self, resolution: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before, width = 3, 32
        while resolution > 4:
            layers += [nn.Conv2d(before, width, 4, stride=2, padding=1), nn.ReLU()]
            before, width, resolution = width, min(2 * width, 128), resolution // 2
        layers += [nn.Conv2d(before, 64, 3, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.hidden = nn.Linear(64 * resolution**2, 64 if classes <= 100 else 256)
        self.logits = nn.Linear(self.hidden.out_features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features after the ReLU, and logits."""
        features = F.relu(self.hidden(self.convolutions(x).flatten(1)))
        return features, self.logits(features)


def trained_classifier(train: Images, classes: int, report: Callable[[str], None], val: Images | None) -> Classifier:
    """The classifier of `train`, from the cache or trained now (and reported). No global state is changed."""
    resolution = train.pixels([0]).shape[1]
    code = (sys.modules[__name__], rng, decode, images_module)
    facts = {"recipe": RECIPE, "images": len(train), "resolution": resolution, "classes": classes}
    entry = cache.cache_entry("classifier", code, train.identity(), **facts)
    with torch.random.fork_rng(devices=[]):  # torch's layers draw weights of their own
        network = Classifier(resolution, classes)
    wanted = network.state_dict()
    tensors = cache.load_cached(entry, lambda found: _is_alike(found, wanted))
    if tensors is None:
        cache.check_cache(sum(tensor.nbytes for tensor in wanted.values()))  # before minutes of training
        report(f"training the classifier features on {len(train):,} images, once ...")
        began = time.monotonic()
        fit(network, train)
        cache.store_cached(entry, network.state_dict())
        right = "" if not val else f"; accuracy {accuracy(network, val):.1%} on {len(val):,} validation images"
        report(f"trained in {time.monotonic() - began:.1f} s{right}; kept in {cache.cache_folder()}")
    else:
        network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()


def _is_alike(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> bool:
    """Whether `found` are finite weights of a network that has `wanted`."""
    shapes = [{name: (one.shape, one.dtype) for name, one in tensors.items()} for tensors in (found, wanted)]
    return shapes[0] == shapes[1] and all(bool(torch.isfinite(one).all()) for one in found.values())


def fit(network: Classifier, train: Images) -> None:
    """Adam at a rate that falls to zero, 20 epochs (8 for large data); the same bits each time on one machine."""
    large = len(train) >= LARGE
    device = torch.device("cuda" if large and torch.cuda.is_available() else "cpu")
    steps = (8 if large else 20) * -(-len(train) // _BATCH)
    draw_weights(network)
    network.to(device).train()
    with torch.enable_grad(), one_thread():
        adam = torch.optim.Adam(network.parameters(), lr=RATE)
        for step, places in enumerate(_batches(len(train), steps)):
            for group in adam.param_groups:
                group["lr"] = RATE * (1 - step / steps)
            images = to_float(torch.from_numpy(train.pixels(places))).to(device)
            loss = F.cross_entropy(network(images)[1], torch.from_numpy(train.labels[places]).to(device))
            adam.zero_grad()
            loss.backward()
            adam.step()
    network.cpu()


@torch.no_grad()
def draw_weights(network: Classifier) -> None:
    """He initialisation from generators of our own."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.zero_()
        else:
            scale = (2 / parameter[0].numel()) ** 0.5
            random = rng.torch_generator(0, f"classifier/{name}")
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))


def _batches(count: int, steps: int) -> Iterator[np.ndarray]:
    epoch, left = 0, np.empty(0, dtype=np.int64)
    for _ in range(steps):
        while len(left) < min(_BATCH, count):
            left = np.concatenate([left, rng.generator(0, "classifier/order", epoch).permutation(count)])
            epoch += 1
        places, left = left[:_BATCH], left[_BATCH:]
        yield places


@torch.no_grad()
def accuracy(network: Classifier, images: Images) -> float:
    """The share of images that is classified correctly."""
    right = 0
    for first in range(0, len(images), 256):
        places = np.arange(first, min(first + 256, len(images)))
        found = network(to_float(torch.from_numpy(images.pixels(places))))[1].argmax(dim=1)
        right += int((found.numpy() == images.labels[places]).sum())
    return right / len(images)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one CPU thread, since the bits of a sum depend on their number and the result is cached for all runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)

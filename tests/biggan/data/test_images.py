"""Images and the order in which they come."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from biggan.config import Config, DataConfig
from biggan.data.images import to_float, to_uint8
from biggan.data.loader import training_batches
from biggan.data.sampler import PositionalSampler
from biggan.data.sources.digits import load_digits
from biggan.data.sources.opening import open_source


def test_digits_are_scikit_learns() -> None:
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    source = load_digits(8)
    mine = np.concatenate([source.train.images, source.val.images])[..., 0]
    labels = np.concatenate([source.train.labels, source.val.labels])
    theirs = np.rint(reference.images * (255 / 16)).astype(np.uint8)
    assert len(mine) == len(theirs) == 1797
    assert sorted((label, image.tobytes()) for label, image in zip(labels, mine, strict=True)) == sorted(
        (label, image.tobytes()) for label, image in zip(reference.target, theirs, strict=True)
    )


def test_the_splits_are_fixed_disjoint_and_stratified() -> None:
    source = load_digits(8)
    shares = np.bincount(source.val.labels) / np.bincount(np.concatenate([source.train.labels, source.val.labels]))
    np.testing.assert_allclose(shares, 0.22, atol=0.005)
    train, val = (set(split.ids["key"].tolist()) for split in (source.train, source.val))
    assert (len(train), len(val)) == (1402, 395)
    assert not train & val
    pixels = [{image.tobytes() for image in split.images} for split in (source.train, source.val)]
    assert not pixels[0] & pixels[1]
    again = load_digits(8)
    assert np.array_equal(source.train.images, again.train.images)


def test_few_training_images_a_class_are_the_first_of_many() -> None:
    few, more = (open_source(Config(data=DataConfig(train_per_class=n))) for n in (3, 10))
    assert np.bincount(few.train.labels).tolist() == [3] * 10
    pool = {image.tobytes() for image in more.train.images}
    assert all(image.tobytes() in pool for image in few.train.images)
    assert len(few.val) == len(more.val) == 395


def test_pixels_round_trip() -> None:
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    floats = to_float(torch.from_numpy(images))
    assert floats.min() == -1
    assert floats.max() == 1
    assert np.array_equal(to_uint8(floats), images)


def test_each_k_sees_every_image_once_an_epoch_without_gaps() -> None:
    sampler = PositionalSampler(10, batch=4, d_steps=2, seed=0)
    for k in (0, 1):
        seen = [p.index for step in range(5) for p in sampler.positions(step, k)]
        assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
        assert seen[:10] != seen[10:]
    assert [p.index for p in sampler.positions(0, 0)] != [p.index for p in sampler.positions(0, 1)]


def test_a_batch_larger_than_the_data_spans_epochs() -> None:
    positions = PositionalSampler(3, batch=8, d_steps=1, seed=0).positions(0, 0)
    assert sorted(p.index for p in positions[:3]) == [0, 1, 2]
    assert len(positions) == 8


def test_the_stream_is_a_function_of_the_place() -> None:
    def take(start: int, count: int) -> list:
        iterator = iter(PositionalSampler(10, batch=4, d_steps=2, seed=3, start=start))
        return [next(iterator) for _ in range(count)]

    assert take(0, 8)[4:] == take(2, 4)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_images(tiny, workers: int) -> None:  # noqa: ANN001
    plain, split = tiny(), tiny(data={"workers": workers})
    one, other = (training_batches(config, open_source(config), 5) for config in (plain, split))
    for _ in range(6):
        (a, a_labels), (b, b_labels) = next(one), next(other)
        assert torch.equal(a, b)
        assert torch.equal(a_labels, b_labels)

"""Labels as lists, the most common classes, the held-out part, draws for an image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from biggan.data.ids import hold_out, image_ids, keys_of, numbered
from biggan.data.images import ImageArray, Position
from biggan.data.labels import Labels, first_of_each, most_common
from biggan.errors import UserError
from biggan.rng import uniform

LISTS = [[4], [0, 2], [2], [2, 4, 1], [0], [3, 0]]


def from_lists(lists: list[list[int]]) -> Labels:
    return Labels.from_lists(np.concatenate(lists), np.concatenate([[0], np.cumsum([len(one) for one in lists])]))


def to_lists(labels: Labels) -> list[list[int]]:
    return [labels.of(i).tolist() for i in range(len(labels))]


def test_lists_are_kept_and_taken() -> None:
    labels = from_lists(LISTS)
    assert to_lists(labels) == LISTS
    assert labels.first.tolist() == [4, 0, 2, 2, 0, 3]
    places = np.array([5, 3, 3, 0])
    assert to_lists(labels.take(places)) == [LISTS[i] for i in places]
    assert labels.counts(6).tolist() == [3, 1, 3, 1, 2, 0]


def test_lists_of_one_are_single_labels() -> None:
    assert not from_lists([[1], [0]]).several
    assert not from_lists(LISTS).take(np.array([0, 2, 4])).several


def test_the_most_common_classes_and_ties_go_to_lower_numbers() -> None:
    labels = from_lists(LISTS)  # counts 3, 1, 3, 1, 2
    assert [most_common([labels], 6, k).tolist() for k in (1, 2, 3, 4, 5)] == [
        [0],
        [0, 2],
        [0, 2, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 3, 4],
    ]
    with pytest.raises(UserError, match="top_classes is 6, but the data has 5 classes"):
        most_common([labels], 6, 6)


def test_keeping_classes_drops_images_without_any_and_renumbers() -> None:
    indices, labels = from_lists(LISTS).keep(np.array([1, 2, 4]), 6)
    assert indices.tolist() == [0, 1, 2, 3]
    assert to_lists(labels) == [[2], [1], [1], [1, 2, 0]]


def test_keeping_against_a_plain_loop() -> None:
    random = np.random.default_rng(0)
    lists = [random.choice(20, random.integers(1, 5), replace=False).tolist() for _ in range(300)]
    labels, counts = from_lists(lists), Counter(c for one in lists for c in one)
    kept = sorted(sorted(counts, key=lambda c: (-counts[c], c))[:7])
    assert most_common([labels], 20, 7).tolist() == kept
    expected = [(i, [kept.index(c) for c in one if c in kept]) for i, one in enumerate(lists)]
    expected = [(i, one) for i, one in expected if one]
    indices, left = labels.keep(np.array(kept), 20)
    assert list(zip(indices.tolist(), to_lists(left), strict=True)) == expected


def test_one_of_several_labels_is_drawn_uniformly_each_time() -> None:
    images = ImageArray(np.zeros((2, 8, 8, 3), np.uint8), from_lists([[5, 1, 3], [2]]))
    random = np.random.default_rng(0)
    positions = [Position(0, int(key)) for key in random.integers(0, 2**63, 3000)]
    drawn = images.__getitems__(positions)[1].tolist()
    counts = Counter(drawn)
    assert set(counts) == {1, 3, 5}
    assert all(abs(count - 1000) < 130 for count in counts.values())  # 5 standard deviations
    assert images.__getitems__(positions)[1].tolist() == drawn
    assert set(images.__getitems__([Position(1, p.key) for p in positions])[1].tolist()) == {2}


def test_flips_are_fair_mirror_the_columns_and_leave_label_draws_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 4, 4, 3), dtype=np.uint8)
    positions = [Position(0, int(key)) for key in np.random.default_rng(1).integers(0, 2**63, 1000)]
    plain, labels = ImageArray(pixels, from_lists([[0, 1]])).__getitems__(positions)
    flipped, same = ImageArray(pixels, from_lists([[0, 1]]), flip=True).__getitems__(positions)
    assert labels.equal(same)
    mirrored = (flipped == plain.flip(3)).flatten(1).all(dim=1)
    assert ((flipped == plain).flatten(1).all(dim=1) ^ mirrored).all()
    assert 420 < mirrored.sum() < 580  # 5 standard deviations
    both = [(bool(m), int(c)) for m, c in zip(mirrored, labels, strict=True)]
    assert all(170 < both.count(pair) < 330 for pair in ((False, 0), (False, 1), (True, 0), (True, 1)))


def test_draws_for_an_image_are_splitmix_64_and_independent() -> None:
    def slow(key: int, draw: int) -> float:
        bits = (key + draw * 0x9E3779B97F4A7C15) % 2**64
        bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
        return ((bits ^ bits >> 31) >> 11) / 2**53

    assert slow(0, 1) == (0xE220A8397B1DCDAF >> 11) / 2**53  # the first number of the published generator from 0
    keys = np.random.default_rng(0).integers(0, 2**63, 20000).astype(np.uint64)
    one, two = uniform(keys, 1), uniform(keys, 2)
    assert one[:50].tolist() == [slow(int(key), 1) for key in keys[:50]]
    assert two[:50].tolist() == [slow(int(key), 2) for key in keys[:50]]
    for values in (one, two):
        assert np.abs(np.histogram(values, 10, (0, 1))[0] - 2000).max() < 5 * 45
    assert abs(np.corrcoef(one, two)[0, 1]) < 5 / np.sqrt(20000)
    neighbours = uniform(np.arange(20000, dtype=np.uint64), 1)
    assert abs(np.corrcoef(neighbours[1:], neighbours[:-1])[0, 1]) < 5 / np.sqrt(20000)


def named(labels: list[int] | np.ndarray, names: list[str] | None = None) -> tuple[np.ndarray, Labels]:
    """Origins of images of such labels, by these names or by their numbers."""
    found = Labels(np.asarray(labels))
    return image_ids(keys_of(names or [f"{i}.png" for i in range(len(found))]), found), found


def test_the_held_out_part_is_stratified_and_whole() -> None:
    ids, labels = named(np.random.default_rng(0).permutation(np.repeat(np.arange(4), [1, 2, 20, 5000])))
    train, val = hold_out(ids, 0.1)
    assert sorted([*train, *val]) == list(range(5023))
    counts = np.bincount(labels.first[val], minlength=4)
    assert counts[:2].tolist() == [0, 1]
    assert 1 <= counts[2] <= 8
    assert abs(counts[3] - 500) < 5 * np.sqrt(5000 * 0.1 * 0.9)
    # Not simply the first or the last ones.
    members = np.flatnonzero(labels.first == 3)
    places = np.searchsorted(members, val[labels.first[val] == 3])
    assert 2000 < places.mean() < 3000
    for share in (0.001, 0.5):  # both sides have images at any share
        train, val = hold_out(ids, share)
        assert set(labels.first[val]) == {1, 2, 3}
        assert set(labels.first[train]) == {0, 1, 2, 3}


def test_leaving_one_image_out_moves_no_other_between_the_splits() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(3), [40, 60, 80]))
    names = [f"{i}.png" for i in range(len(labels))]
    held = {names[i] for i in hold_out(named(labels, names)[0], 0.1)[1]}
    for gone in range(len(labels)):
        left = [name for i, name in enumerate(names) if i != gone]
        now = {left[i] for i in hold_out(named(np.delete(labels, gone), left)[0], 0.1)[1]}
        assert now == held - {names[gone]}


def test_nothing_can_be_held_out_of_classes_of_one() -> None:
    with pytest.raises(UserError, match="no image can be held out"):
        hold_out(named([0, 1, 2])[0], 0.1)


def test_rows_of_a_file_have_keys_of_their_own() -> None:
    files = keys_of(["a.parquet", "b.parquet"])
    keys = np.concatenate([numbered(key, np.arange(50_000)) for key in files])
    assert len(set(keys.tolist())) == 100_000
    shares = uniform(keys, 3)
    assert np.abs(np.histogram(shares, 10, (0, 1))[0] - 10_000).max() < 5 * 100


def test_the_first_of_each_class() -> None:
    labels = Labels(np.array([1, 0, 1, 1, 0, 0]))
    assert first_of_each(labels, ("a", "b"), 2).tolist() == [0, 1, 2, 4]
    with pytest.raises(UserError, match="class 'a' has only 3 training images"):
        first_of_each(labels, ("a", "b"), 4)

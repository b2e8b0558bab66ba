"""The cache: bound to what a file was made from, closed to others, shared where its folder is, and checked early."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from own_features import Pixels
from safetensors import safe_open

from biggan.data.images import Source
from biggan.data.sources.digits import load_digits
from biggan.errors import UserError
from biggan.evaluation.features import cache, classifier
from biggan.evaluation.features.registry import FeatureNetwork
from biggan.evaluation.reference import make_reference
from biggan.permissions import permitted
from spectra.record.files import check_writable, write_tensors

PARTS = FeatureNetwork("pixels", "0", Pixels(), own_classes=False)


@pytest.fixture
def few() -> Source:
    digits = load_digits(8)
    return Source(digits.train.subset(np.arange(0, 1400, 17)[:80]), digits.val, digits.classes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trained(few: Source, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the classifier was trained, which here takes no time."""
    times: list[int] = []
    monkeypatch.setattr(classifier, "fit", lambda network, train: times.append(len(train)))
    return times


def make(source: Source) -> classifier.Classifier:
    return classifier.trained_classifier(source.train, 10, lambda text: None, None)


def contents(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def forge(path: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str]) -> None:
    """Write a file whose digest is right."""
    facts = {name: value for name, value in facts.items() if name != "digest"}
    write_tensors(path, tensors, facts | {"digest": cache.digest(tensors, facts)})


@pytest.mark.parametrize("fact", ["code", "data", "recipe", "kind"])
def test_what_was_made_from_something_else_is_not_used(
    few: Source, folder: Path, trained: list[int], fact: str
) -> None:
    make(few)
    (path,) = folder.glob("classifier-*")
    tensors, facts = contents(path)
    forge(path, {name: one + 1 for name, one in tensors.items()}, facts | {fact: "another"})
    again = make(few)
    assert len(trained) == 2, "it was believed"
    assert contents(path)[1] == facts
    assert torch.equal(again.hidden.weight, contents(path)[0]["hidden.weight"])


@pytest.mark.parametrize("wrong", ["shape", "nan", "missing"])
def test_a_file_with_a_right_digest_and_wrong_weights_is_not_used(
    few: Source, folder: Path, trained: list[int], wrong: str
) -> None:
    make(few)
    (path,) = folder.glob("classifier-*")
    tensors, facts = contents(path)
    weight = tensors.pop("hidden.weight")
    if wrong != "missing":
        tensors["hidden.weight"] = weight[:1] if wrong == "shape" else weight * float("nan")
    forge(path, tensors, facts)
    make(few)
    assert len(trained) == 2


@pytest.mark.parametrize("name", ["count", "labels", "features", "class_count"])
def test_a_reference_that_cannot_be_of_these_images_is_measured_again(few: Source, folder: Path, name: str) -> None:
    first = make_reference(PARTS, few)
    (path,) = folder.glob("reference-*")
    tensors, facts = contents(path)
    forge(path, tensors | {name: tensors[name][:-1] if name == "features" else tensors[name] + 1}, facts)
    again = make_reference(PARTS, few)
    assert torch.equal(again.moments.total, first.moments.total)
    assert again.moments.count == 80
    assert torch.equal(contents(path)[0][name], tensors[name])


def test_other_code_makes_another_entry(few: Source, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = []
    for version in ("1", "2"):
        monkeypatch.setattr(cache, "package_version", lambda version=version: version)
        entries.append(cache.cache_entry("x", (classifier,), b"data", size=1))
    assert entries[0].name != entries[1].name
    assert (
        cache.cache_entry("x", (), b"data", size=1).name != cache.cache_entry("x", (classifier,), b"data", size=1).name
    )


def test_a_file_of_another_user_is_refused_unless_the_cache_is_trusted(
    few: Source, folder: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make(few)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    with pytest.raises(UserError, match=r"belongs to user .*Give --trust-cache"):
        make(few)
    with permitted(trust_cache=True):
        make(few)
    assert len(trained) == 1
    with pytest.raises(UserError, match="--trust-cache"):
        make(few)


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_may_write_is_refused(few: Source, folder: Path, trained: list[int], mode: int) -> None:
    make(few)
    (path,) = folder.glob("classifier-*")
    path.chmod(mode)
    with pytest.raises(UserError, match="may be written by others"):
        make(few)


@pytest.mark.parametrize(("of_folder", "of_file"), [(0o700, 0o600), (0o2770, 0o640), (0o755, 0o644)])
def test_who_may_read_the_folder_may_read_its_files(
    few: Source, folder: Path, trained: list[int], of_folder: int, of_file: int
) -> None:
    folder.mkdir()
    folder.chmod(of_folder)
    before = os.umask(0o077)
    try:
        make(few)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.safetensors")] == [of_file]


def test_a_cache_that_cannot_be_written_is_noticed_before_the_training(
    few: Source, folder: Path, trained: list[int]
) -> None:
    folder.write_text("a file")
    with pytest.raises(UserError, match="set BIGGAN_CACHE"):
        make(few)
    with pytest.raises(UserError, match="set BIGGAN_CACHE"):
        make_reference(PARTS, few)
    assert not trained


def test_a_full_cache_is_noticed_before_the_training(few: Source, folder: Path, trained: list[int]) -> None:
    """The system refuses files of more than 100 kB, and the classifier's is larger."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="cannot write to the cache folder"):
            make(few)
        with pytest.raises(UserError, match="cannot write to the cache folder"):
            make_reference(PARTS, few)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not trained
    assert not folder.exists()
    assert not list(folder.parent.iterdir())


def test_a_place_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there" / "yet", 10**6)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "below")

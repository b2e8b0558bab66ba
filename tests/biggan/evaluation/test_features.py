"""The feature networks: trained once, the same bits, honest errors; the reference and its cache."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from biggan.data.images import ImageArray, Source
from biggan.data.sources.digits import load_digits
from biggan.errors import UserError
from biggan.evaluation.features import cache, classifier
from biggan.evaluation.features.classifier import accuracy, trained_classifier
from biggan.evaluation.features.inception import WEIGHTS
from biggan.evaluation.features.registry import embed_images, join, load_features
from biggan.evaluation.reference import Moments, make_reference, open_complete_source


@pytest.fixture
def few() -> Source:
    """Eighty digits of 8x8."""
    digits = load_digits(8)
    return Source(digits.train.subset(np.arange(0, 1400, 17)[:80]), digits.val, digits.classes)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_the_classifier_is_trained_once_to_the_same_bits(few: Source, own_cache: Path) -> None:
    said: list[str] = []
    torch.manual_seed(1)
    before = torch.get_rng_state()
    torch.set_num_threads(2)
    first = trained_classifier(few.train, 10, said.append, few.val)
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), before)
    assert said[0] == "training the classifier features on 80 images, once ..."
    assert "on 395 validation images" in said[1]
    said.clear()
    again = trained_classifier(few.train, 10, said.append, few.val)
    assert not said
    file = next(own_cache.glob("classifier-*"))
    file.write_bytes(file.read_bytes()[:-8] + b"12345678")  # altered: trained again
    torch.manual_seed(2)
    torch.set_num_threads(1)
    again = trained_classifier(few.train, 10, said.append, few.val)
    assert said
    for other in (again, again):
        assert all(torch.equal(tensor, weights_of(other)[name]) for name, tensor in weights_of(first).items())
    assert not list(own_cache.glob("*.tmp"))


def test_other_images_are_another_classifier(few: Source, own_cache: Path) -> None:
    trained_classifier(few.train, 10, lambda text: None, None)
    pixels = few.train.pixels(np.arange(80))
    pixels[0, 0, 0] ^= 1
    trained_classifier(ImageArray(pixels, few.train.labels), 10, lambda text: None, None)
    assert len(list(own_cache.glob("classifier-*"))) == 2


def test_the_digits_classifier_knows_the_digits(load) -> None:  # noqa: ANN001
    evaluator = load()
    assert accuracy(evaluator.network.module, load_digits(8).val) > 0.95
    assert evaluator.reference.moments.count == 1402


def test_the_complete_training_split_is_used_whatever_the_gan_is_given(tiny) -> None:  # noqa: ANN001
    assert len(open_complete_source(tiny(data={"train_per_class": 3})).train) == 1402


def test_a_cache_that_cannot_be_written_is_an_error(few: Source, own_cache: Path, tmp_path: Path) -> None:
    own_cache.write_text("a file")
    with pytest.raises(UserError, match="set BIGGAN_CACHE"):
        trained_classifier(few.train, 10, lambda text: None, None)


def test_classifiers_of_other_sizes_have_features_and_logits() -> None:
    for resolution, classes, width in ((8, 3, 64), (32, 101, 256), (64, 10, 64)):
        features, logits = classifier.Classifier(resolution, classes)(torch.zeros(2, 3, resolution, resolution))
        assert (features.shape, logits.shape) == ((2, width), (2, classes))


def test_inception_without_its_weights_says_where_to_get_and_put_them(few: Source, own_cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_features("inception", few)
    assert str(own_cache / WEIGHTS) in str(caught.value)
    assert "https://github.com/toshas/torch-fidelity/releases" in str(caught.value)


def test_inception_without_torch_fidelity_says_what_it_needs(
    few: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    (tmp_path / "weights.pth").write_bytes(b"")
    with pytest.raises(UserError, match=r"torch-fidelity, whose import .with torchvision. failed.*\[inception\]"):
        load_features("inception", few, str(tmp_path / "weights.pth"))


def test_inception_is_given_bytes_and_gives_features_and_logits(
    few: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small network in the place of torch-fidelity's, called as that is called."""

    class Extractor(nn.Module):
        def __init__(self, name: str, features_list: list[str], *, feature_extractor_weights_path: str) -> None:
            super().__init__()
            assert features_list == ["2048", "logits_unbiased"]
            self.layer = nn.Linear(3, 5)
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=True))

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert x.dtype == torch.uint8
            mean = x.double().mean(dim=(2, 3)).float()
            return mean, self.layer(mean)

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    path = tmp_path / "weights.pth"
    torch.save({"layer.weight": torch.ones(5, 3), "layer.bias": torch.zeros(5)}, path)
    network = load_features("inception", few, str(path))
    found = join(embed_images(network, few.train))
    expected = few.train.pixels(np.arange(80)).astype(float).mean(axis=(1, 2))
    torch.testing.assert_close(found.features, torch.from_numpy(expected), rtol=1e-6, atol=1e-5)
    assert found.logits is not None
    assert found.logits.shape == (80, 5)
    assert not network.own_classes
    torch.save({"other": torch.ones(1)}, path)
    with pytest.raises(UserError, match="does not hold torch-fidelity's Inception weights"):
        load_features("inception", few, str(path))


def test_features_by_import_path(few: Source) -> None:
    network = load_features("own_features:Pixels", few)
    found = join(embed_images(network, few.train))
    assert found.features.shape == (80, 192)
    assert found.logits is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clasifier", "did you mean 'classifier'"),
        ("own_features:Nothing", "cannot load the features"),
        ("no_such_package:Net", "cannot load the features"),
        ("own_features:NOT_A_MODULE", "cannot load the features"),
    ],
)
def test_features_that_are_not_there(few: Source, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_features(name, few)


def test_the_reference_holds_the_moments_of_all_images_and_is_cached(few: Source, own_cache: Path) -> None:
    network = load_features("own_features:Pixels", few)
    features = join(embed_images(network, few.train)).features
    for _ in range(2):
        reference = make_reference(network, few)
        torch.testing.assert_close(reference.moments.outer, Moments.of(features).outer, rtol=1e-12, atol=1e-12)
        labels = torch.from_numpy(few.train.labels)
        own = features[labels == 3]
        assert float(reference.spreads[3]) == pytest.approx(float(own.var(dim=0).sum().sqrt()))
        assert reference.by_class is not None
        torch.testing.assert_close(reference.by_class[3].covariance, torch.cov(own.T), rtol=1e-9, atol=1e-9)
        assert len(list(own_cache.glob("reference-*"))) == 1
    assert make_reference(network, few, "val").split == "val"


def test_a_class_without_images_is_named(few: Source) -> None:
    without = Source(few.train.subset(np.flatnonzero(few.train.labels != 7)), few.val, few.classes)
    with pytest.raises(UserError, match=r"fewer than two images of 1 of its 10 classes: 7 \(0\)"):
        make_reference(load_features("own_features:Pixels", few), without)


def test_keys_tell_parts_apart() -> None:
    assert cache.key("a", "b") != cache.key("ab") != cache.key(b"ab")

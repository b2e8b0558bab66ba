"""The scores against independent float64 computations and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from biggan.errors import UserError
from biggan.evaluation import scores
from biggan.evaluation.features.registry import Embedded, FeatureNetwork
from biggan.evaluation.reference import Moments, Reference
from biggan.evaluation.registry import SCORES
from biggan.evaluation.scores import class_leakage, compute_scores, frechet_distance

CLASSES = 3


def cloud(count: int, width: int, seed: int, shift: float = 0.0) -> Embedded:
    """Correlated features with some scale, logits, and classes in turn."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    features = random.normal(size=(count, width)) @ mixing + shift
    logits = 3 * random.normal(size=(count, CLASSES))
    return Embedded(torch.from_numpy(features), torch.from_numpy(logits), torch.arange(count) % CLASSES)


def reference_of(real: Embedded) -> Reference:
    parts = [real.features[real.labels == c] for c in range(CLASSES)]
    spreads = torch.stack([((p - p.mean(0)).square().sum() / (len(p) - 1)).sqrt() for p in parts])
    return Reference("train", Moments.of(real.features), real, spreads, [Moments.of(p) for p in parts], True)


def slow_fid(a: np.ndarray, b: np.ndarray) -> float:
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root.real))


def seeded_permutations(*counts: int) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randperm(count, generator=generator).numpy() for count in counts]


def test_fid_and_intra_fid_equal_a_matrix_square_root() -> None:
    samples, real = cloud(400, 8, 1, shift=0.3), cloud(500, 8, 2)
    expected = slow_fid(samples.features.numpy(), real.features.numpy())
    assert scores.fid(samples, reference_of(real)) == pytest.approx(expected, rel=1e-6)
    parts = [
        slow_fid(samples.features[samples.labels == c].numpy(), real.features[real.labels == c].numpy())
        for c in range(CLASSES)
    ]
    assert scores.intra_fid(samples, reference_of(real)) == pytest.approx(np.mean(parts), rel=1e-6)


@pytest.mark.parametrize(("count", "width"), [(500, 16), (40, 64)])
def test_fid_of_a_set_with_itself_is_nothing(count: int, width: int) -> None:
    """Also with fewer images than features, where the covariance has no full rank."""
    moments = Moments.of(cloud(count, width, 3).features)
    assert abs(frechet_distance(moments, moments)) < 1e-6 * float(moments.covariance.trace())


def test_fid_of_two_gaussians_is_the_closed_form() -> None:
    """Samples shaped to have moments N(0, diag(a)) and N(m, diag(b)) exactly: |m|^2 + sum (sqrt a - sqrt b)^2."""
    random = np.random.default_rng(4)
    a, b, mean = np.array([1.0, 4.0, 9.0]), np.array([2.0, 4.0, 1.0]), np.array([1.0, -2.0, 0.5])

    def shaped(variances: np.ndarray, mean: np.ndarray) -> Moments:
        x = random.normal(size=(200, 3))
        x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
        return Moments.of(torch.from_numpy(x * np.sqrt(variances) + mean))

    expected = (mean**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    assert frechet_distance(shaped(a, 0 * mean), shaped(b, mean)) == pytest.approx(expected, rel=1e-6)


def test_moments_of_parts_add_up() -> None:
    features = cloud(300, 5, 5).features
    whole, sum_ = Moments.of(features), Moments.of(features[:100]) + Moments.of(features[100:])
    torch.testing.assert_close(sum_.covariance, whole.covariance, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(whole.covariance, torch.cov(features.T), rtol=1e-10, atol=1e-10)


def test_inception_score_equals_its_definition() -> None:
    samples = cloud(300, 4, 6)
    assert samples.logits is not None
    logits = samples.logits.numpy()[seeded_permutations(300)[0]]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    parts = [np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()) for q in np.split(p, 10)]
    assert scores.inception_score(samples) == pytest.approx(np.mean(parts), rel=1e-6)


@pytest.mark.parametrize(("count", "sizes"), [(20, [10] * 2), (35, [12, 12, 11]), (101, [11] + [10] * 9)])
def test_the_parts_of_the_inception_score_hold_ten_samples_each(count: int, sizes: list[int]) -> None:
    """Ten parts, or fewer; cut by torch.chunk 101 samples would have a last part of two."""
    samples = cloud(count, 4, 6)
    assert samples.logits is not None
    assert scores.is_parts(count) == len(sizes)
    p = samples.logits.softmax(1).numpy()[seeded_permutations(count)[0]]
    found = []
    for q in np.split(p, np.cumsum(sizes)[:-1]):
        found.append(np.exp((q * (np.log(q) - np.log(q.mean(0)))).sum(1).mean()))
    assert scores.inception_score(samples) == pytest.approx(np.mean(found), rel=1e-6)


def test_the_inception_score_is_torchmetrics_for_whole_parts_and_at_most_the_number_of_classes() -> None:
    from torchmetrics.image.inception import InceptionScore

    samples = cloud(300, 4, 6)
    with scores._own_draws():
        metric = InceptionScore(feature=scores._Given(CLASSES), splits=10)
        metric.update(samples.logits)
        assert scores.inception_score(samples) == pytest.approx(metric.compute()[0].item(), rel=1e-6)
    sure = Embedded(samples.features, 2000.0 * torch.eye(CLASSES).double()[samples.labels], samples.labels)
    assert 1 < scores.inception_score(sure) <= CLASSES + 1e-9  # exp(-2000) is 0, and adds nothing


def test_what_too_few_samples_do_not_tell_is_nan_and_known_beforehand() -> None:
    real = reference_of(cloud(300, 4, 1))

    def unknown(count: int) -> set[str]:
        samples = cloud(count, 4, 2)
        samples = Embedded(samples.features, samples.logits, torch.arange(count) % CLASSES)
        found = scores.unknown_scores(torch.arange(count) % CLASSES, real)
        numbers = compute_scores(samples, real)
        assert list(numbers) == list(SCORES)
        assert {name for name, value in numbers.items() if math.isnan(value)} == set(found)
        assert all(str(count) in reason or "class" in reason for reason in found.values())
        return set(found)

    assert unknown(2 * CLASSES) == {"is"}
    assert unknown(2 * CLASSES - 1) >= {"intra_fid"}
    assert unknown(CLASSES) >= {"intra_fid", "spread_share"}
    assert unknown(19) >= {"is"}
    assert "is" not in unknown(20)
    assert unknown(3) >= {"is", "recall"}
    assert "recall" not in unknown(4)
    assert not unknown(2) & {"fid", "kid"}
    assert unknown(1) >= {"fid", "kid"}
    assert not unknown(1) & {"precision", "density", "coverage"}
    two = reference_of(cloud(2, 4, 1))
    assert not {"fid", "kid", "recall", "is"} & set(scores.unknown_scores(torch.arange(300) % CLASSES, two))
    one = reference_of(cloud(1, 4, 1))
    known = {"fid", "kid", "recall", "is"} - set(scores.unknown_scores(torch.arange(300) % CLASSES, one))
    assert known == {"recall", "is"}
    one_each = torch.arange(CLASSES)
    assert set(scores.unknown_scores(one_each, real, ["spread_share"])) == {"spread_share"}
    assert set(scores.unknown_scores(one_each, real, ["fid"])) == set()
    few = reference_of(cloud(5, 4, 1))
    assert set(scores.unknown_scores(torch.arange(300) % CLASSES, few)) == {"density", "coverage"}


def test_a_class_with_one_sample_costs_the_others_nothing() -> None:
    samples, real = cloud(60, 4, 3), reference_of(cloud(200, 4, 4))
    first = (samples.labels == 0).nonzero().flatten()[1:]
    kept = torch.ones(60, dtype=torch.bool)
    kept[first] = False
    whole, lone = scores.class_fids(samples, real), scores.class_fids(samples.take(kept), real)
    assert math.isnan(lone[0])
    assert lone[1:] == whole[1:]
    assert math.isnan(scores.intra_fid(samples.take(kept), real))


def test_kid_equals_its_definition() -> None:
    samples, real = cloud(150, 6, 7, shift=0.5), cloud(120, 6, 8)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / 6 + 1) ** 3

    found, orders = [], seeded_permutations(*[120, 150] * scores.KID_SUBSETS)
    for i in range(scores.KID_SUBSETS):
        x, y = real.features.numpy()[orders[2 * i][:120]], samples.features.numpy()[orders[2 * i + 1][:120]]
        xx, yy = (k.sum() - np.trace(k) for k in (kernel(x, x), kernel(y, y)))
        found.append((xx + yy) / (120 * 119) - 2 * kernel(x, y).mean())
    assert scores.kid(samples, reference_of(real)) == pytest.approx(np.mean(found), rel=1e-6)


def test_precision_recall_density_coverage_equal_their_definitions() -> None:
    samples, real = cloud(70, 3, 9, shift=1.0), cloud(60, 3, 10)
    x, y = real.features.numpy(), samples.features.numpy()

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None] - b[None], axis=2)

    def radii(a: np.ndarray, k: int) -> np.ndarray:
        return np.sort(distances(a, a), axis=1)[:, k]

    reference = reference_of(real)
    assert scores.precision(samples, reference) == (distances(y, x) <= radii(x, 3)).any(1).mean()
    assert scores.recall(samples, reference) == (distances(x, y) <= radii(y, 3)).any(1).mean()
    assert scores.density(samples, reference) == pytest.approx((distances(y, x) < radii(x, 5)).sum() / (5 * 70))
    assert scores.coverage(samples, reference) == (distances(y, x) < radii(x, 5)).any(0).mean()


def test_spread_is_hardly_biased_by_how_few_samples_a_class_has() -> None:
    """Three samples a class of the real law have a share near 1 (0.82 with the biased variance); one tells nothing."""
    real = reference_of(cloud(3000, 8, 11))
    shares = [scores.spread_share(cloud(3 * CLASSES, 8, seed), real) for seed in range(100, 160)]
    assert 0.9 < np.mean(shares) < 1.03
    assert math.isnan(scores.spread_share(cloud(CLASSES, 8, 12), real))


def test_a_class_with_one_sample_is_left_out_of_the_spread() -> None:
    samples, real = cloud(90, 8, 3), reference_of(cloud(300, 8, 11))
    lone = torch.cat([(samples.labels == 0).nonzero()[:1, 0], (samples.labels != 0).nonzero()[:, 0]])
    shares = scores.class_spread_shares(samples, real)
    assert scores.spread_share(samples.take(lone), real) == pytest.approx(shares[1:].mean().item(), rel=1e-12)


def test_spread_is_a_share_of_the_real_images() -> None:
    real = cloud(300, 4, 11)
    means = torch.stack([real.features[real.labels == c].mean(0) for c in range(CLASSES)])[real.labels]
    half = Embedded(means + (real.features - means) / 2, real.logits, real.labels)
    one_picture = Embedded(means, real.logits, real.labels)
    shares = [scores.spread_share(samples, reference_of(real)) for samples in (real, half, one_picture)]
    assert shares == pytest.approx([1, 0.5, 0], abs=1e-9)


def test_class_leakage_is_a_matrix_of_shares() -> None:
    logits = torch.eye(3).double()[torch.tensor([0, 0, 1, 2, 2, 2])]
    samples = Embedded(torch.zeros(6, 2).double(), logits, torch.tensor([0, 0, 0, 1, 2, 2]))
    expected = torch.tensor([[2 / 3, 1 / 3, 0], [0, 0, 1], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(class_leakage(samples, 3), expected)
    assert scores.class_accuracy(samples) == pytest.approx(4 / 6)
    logits[5, 1] = torch.nan  # no class at all, and not the one that argmax names
    expected[2] = torch.nan
    torch.testing.assert_close(class_leakage(samples, 3), expected, equal_nan=True)
    assert np.isnan(scores.class_accuracy(samples))


def test_the_same_samples_give_the_same_numbers_and_no_global_state_moves() -> None:
    samples, real = cloud(130, 5, 12), cloud(110, 5, 13)
    reference, found = reference_of(real), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(compute_scores(samples, reference))
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert list(found[0]) == list(SCORES)


def test_what_features_cannot_tell_is_left_out() -> None:
    samples, real = cloud(60, 4, 14), cloud(60, 4, 15)
    samples = Embedded(samples.features, None, samples.labels)
    reference = reference_of(real)
    bare = Reference("train", reference.moments, reference.subset, reference.spreads, None, False)
    assert {"is", "class_accuracy", "intra_fid"}.isdisjoint(compute_scores(samples, bare))


def test_samples_with_nan_score_nan() -> None:
    samples, real = cloud(60, 4, 16), cloud(60, 4, 17)
    samples.features[5] = math.nan
    assert all(math.isnan(value) for value in compute_scores(samples, reference_of(real)).values())


class Broken(torch.nn.Module):
    """Gives NaN for whatever it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * math.nan


def test_features_that_give_nan_are_the_networks_fault_unless_the_images_hold_it() -> None:
    network = FeatureNetwork("broken", "0", Broken(), own_classes=False)
    with pytest.raises(UserError, match="features broken are NaN or infinite for 2 of 2 images"):
        network.embed(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    images = torch.full((2, 3, 4, 4), math.nan)
    assert network.embed(images, torch.zeros(2, dtype=torch.int64)).features.isnan().all()


def test_scores_that_the_features_do_not_allow_are_left_out() -> None:
    samples = cloud(300, 4, 2)
    real = reference_of(Embedded(samples.features, None, samples.labels))
    found = compute_scores(
        Embedded(samples.features, None, samples.labels), real, ["class_accuracy", "kid", "is", "fid"]
    )
    assert list(found) == ["kid", "fid"]


def test_which_scores_are_computed_in_training_and_which_way_is_better() -> None:
    assert scores.quick_scores() == ["fid", "is", "spread_share", "class_accuracy"]
    assert {name for name, score in SCORES.items() if score.better == -1} == {"fid", "kid", "intra_fid"}
    assert {score.better for score in SCORES.values()} == {1, -1}

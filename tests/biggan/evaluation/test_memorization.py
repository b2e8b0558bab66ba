"""D's scores in eval mode: right numbers, and a D that is left as it was."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm
from tiny import assert_same_state

from biggan.data.sources.opening import open_source
from biggan.evaluation.memorization import (
    auc,
    discriminator_logits,
    fixed_images,
    gap,
    input_gradient_norms,
    memorization,
    share_accepted_as_real,
)


@pytest.mark.parametrize("norm_D", ["none", "batch", "conditional"])
def test_logits_and_gradients_leave_the_discriminator_as_it_was(tiny, play, norm_D: str) -> None:  # noqa: ANN001
    config = tiny(steps=2, model={"norm_D": norm_D})
    state, _ = play(config)
    D, source = state.D, open_source(config)
    D.blocks[0].eval()  # modes that are not all alike
    gradients = [None if p.grad is None else p.grad.clone() for p in D.parameters()]
    before, modes, random = copy.deepcopy(D.state_dict()), [m.training for m in D.modules()], torch.get_rng_state()
    x, y = fixed_images(source.train, 20, np.random.default_rng(0))
    logits = discriminator_logits(D, x, y, batch=7)
    norms = input_gradient_norms(D, x, y, batch=7)
    assert_same_state(before, D.state_dict())
    assert [m.training for m in D.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    for parameter, gradient in zip(D.parameters(), gradients, strict=True):
        assert parameter.requires_grad
        assert (parameter.grad is None) if gradient is None else torch.equal(parameter.grad, gradient)
    assert not x.requires_grad
    D.eval()
    x.requires_grad_()
    expected = D(x, y)
    (gradient,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(logits, expected.detach())
    torch.testing.assert_close(norms, gradient.square().sum(dim=(1, 2, 3)).sqrt())


def test_accuracies_by_the_sign() -> None:
    high, low = torch.full((6,), 1e4), torch.full((6,), math.nan)
    found = {name: value.item() for name, value in memorization(high, high, high).items()}
    shares = {name: value for name, value in found.items() if name.startswith("accuracy/")}
    assert shares == {"accuracy/train": 1, "accuracy/val": 1, "accuracy/fake": 0}
    assert all(value.isnan() for value in memorization(low, high[:0], low).values())
    assert share_accepted_as_real(torch.tensor([-1.0, 0.0, 0.5, 3.0])) == 0.5


@pytest.mark.parametrize("ties", [False, True])
def test_the_auc_is_scikit_learns(ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    above, below = random.normal(0.3, 1, 400), random.normal(0, 2, 300)
    if ties:
        above, below = above.round(), below.round()
    expected = roc_auc_score([1] * 400 + [0] * 300, np.concatenate([above, below]))
    found = auc(torch.from_numpy(above), torch.from_numpy(below)).item()
    assert found == pytest.approx(expected, abs=1e-12)
    assert auc(torch.from_numpy(below), torch.from_numpy(above)).item() == pytest.approx(1 - expected, abs=1e-12)


def test_auc_and_gap_of_two_normals_and_of_an_offset_that_drifts() -> None:
    """N(d, 1) against N(0, 1): the AUC is Phi(d / sqrt 2), the gap d, wherever the threshold stands."""
    d, many = 0.8, 20_001
    quantiles = torch.from_numpy(norm.ppf((np.arange(many) + 0.5) / many))
    for offset in (0.0, 300.0):
        found = memorization(quantiles + d + offset, quantiles + offset, quantiles - d + offset)
        assert found["auc/train_val"].item() == pytest.approx(norm.cdf(d / 2**0.5), abs=1e-4)
        assert found["auc/val_fake"].item() == pytest.approx(norm.cdf(d / 2**0.5), abs=1e-4)
        assert found["auc/real_fake"].item() == pytest.approx(norm.cdf(2 * d / 2**0.5), abs=1e-4)
        assert found["gap/train_val"].item() == pytest.approx(d, abs=1e-3)
    one, other = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0, 5.0])
    pooled = math.sqrt((1 * 2 + 2 * 7) / 3)  # of their unbiased variances 2 and 7
    assert gap(one, other).item() == pytest.approx((2 - 2) / pooled)
    assert gap(one + 4, other).item() == pytest.approx(4 / pooled)
    assert auc(one, other).item() == pytest.approx((1.5 + 2) / 6)  # 1 beats 0 and ties with 1, 3 beats two


def test_what_cannot_be_told_apart_is_not_known_or_half() -> None:
    alike, infinite = torch.ones(4), torch.tensor([1.0, math.inf])
    assert auc(alike, alike) == 0.5
    assert gap(alike, alike) == 0, "a dead D remembers nothing"
    assert gap(alike + 1, alike) == math.inf
    assert gap(alike, alike[:1]).isnan()
    assert gap(torch.tensor([1.0, 2.0]), torch.tensor([3.0])).isnan()
    assert gap(torch.tensor([3.0]), torch.tensor([1.0, 2.0])).isnan()
    assert auc(infinite, infinite) == 0.5
    for broken in (torch.tensor([1.0, math.nan]), alike[:0]):
        assert auc(broken, alike).isnan()
        assert auc(alike, broken).isnan()
        assert gap(broken, alike).isnan()


def test_fixed_images_are_a_function_of_the_generator(tiny) -> None:  # noqa: ANN001
    split = open_source(tiny()).val
    (x, y), (again, _), (other, _) = (fixed_images(split, 30, np.random.default_rng(s)) for s in (0, 0, 1))
    assert x.shape == (30, 3, 8, 8)
    assert y.shape == (30,)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert len(fixed_images(split, None, np.random.default_rng(0))[0]) == len(split)


def test_fixed_images_are_drawn_once_each(tiny) -> None:  # noqa: ANN001
    """Without replacement, in the split's order; all of them where there are no more."""
    split = open_source(tiny()).train
    whole, labels = fixed_images(split, None, np.random.default_rng(0))
    images, _ = fixed_images(split, len(split) - 3, np.random.default_rng(0))
    places = [int((whole == image).flatten(1).all(dim=1).nonzero()[0]) for image in images]
    assert len(whole.unique(dim=0)) == len(whole), "the case needs images that can be told apart"
    assert places == sorted(set(places))
    assert len(fixed_images(split, len(split) + 5, np.random.default_rng(0))[0]) == len(split) == len(labels)

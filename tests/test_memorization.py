"""D's verdicts in eval mode: right numbers, and a D that is left as it was."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from conftest import assert_same_state

from biggan.data import open_source
from biggan.evaluation.memorization import (
    accuracies,
    discriminator_logits,
    fixed_images,
    input_gradient_norms,
    share_called_real,
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


def test_accuracies_by_the_sign(tiny, play) -> None:  # noqa: ANN001
    state, _ = play(tiny(steps=1))
    x, y = torch.randn(6, 3, 8, 8), torch.arange(6)
    one = (x, y)
    with torch.no_grad():
        state.D.linear.bias.fill_(1e4)
        found = {name: value.item() for name, value in accuracies(state.D, one, one, one).items()}
        assert found == {"D/accuracy/train": 1, "D/accuracy/val": 1, "D/accuracy/fake": 0}
        state.D.linear.bias.fill_(torch.nan)
    assert all(value.isnan() for value in accuracies(state.D, one, (x[:0], y[:0]), one).values())
    assert share_called_real(torch.tensor([-1.0, 0.0, 2.0, 3.0])) == 0.5


def test_fixed_images_are_a_function_of_the_generator(tiny) -> None:  # noqa: ANN001
    split = open_source(tiny()).val
    (x, y), (again, _), (other, _) = (fixed_images(split, 30, np.random.default_rng(s)) for s in (0, 0, 1))
    assert x.shape == (30, 3, 8, 8)
    assert y.shape == (30,)
    assert torch.equal(x, again)
    assert not torch.equal(x, other)
    assert len(fixed_images(split, None, np.random.default_rng(0))[0]) == len(split)

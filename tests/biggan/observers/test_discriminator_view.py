"""D's view: statistics of the training logits, and what D says about fixed images, without a trace in the run."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import assert_same_state

from biggan.data.loader import training_batches
from biggan.data.sources.opening import open_source
from biggan.distributed.ranks import BatchShard
from biggan.networks.spectral_norm import normalized
from biggan.observers.discriminator_view import DiscriminatorView
from biggan.training.logits import logit_statistics
from biggan.training.state import TrainingState
from biggan.training.step import Updater
from spectra.record.segments import read_record


def test_the_logits_of_a_training_step(tiny) -> None:  # noqa: ANN001
    """Against D's parts computed again in front of the update, with other weights than those of the start."""
    config = tiny(train={"batch": 8, "d_steps": 1, "accumulate": 2}, loss={"margin": 0.5})
    state = TrainingState(config)
    with torch.no_grad():
        state.D.linear.bias.fill_(0.25)
    seen = []

    def remember(network: str, k: int) -> None:
        with torch.no_grad(), normalized(state.D, iterate=False):
            seen.append([state.D.parts(*images) for images in list(inputs)])

    inputs: list = []
    state.D.blocks[0].register_forward_pre_hook(lambda module, given: inputs.append(given) if not seen else None)
    updater = Updater(config, state, lambda network, k: None, remember)
    stats = updater.update_discriminator(0, *next(training_batches(config, open_source(config), 0)))
    found = {name: value.item() for name, value in stats.items()}
    (parts,) = seen
    assert len(parts) == 2
    for half, kind, sign in ((0, "fake", -1), (1, "real", 1)):
        linear, projection = (torch.cat([part[i].chunk(2)[half] for part in parts]) for i in (0, 1))
        logits = linear + projection
        expected = {
            f"accuracy/D_{kind}": (sign * logits > 0).float().mean(),
            f"D/inside_margin/{kind}": (sign * logits < 0.5).float().mean(),
            f"D/logit_mean/{kind}": logits.mean(),
            f"D/logit_std/{kind}": logits.std(correction=0),
            f"D/logit_min/{kind}": logits.min(),
            f"D/logit_max/{kind}": logits.max(),
            f"D/linear_mean/{kind}": linear.mean(),
            f"D/projection_mean/{kind}": projection.mean(),
        }
        for name, value in expected.items():
            assert found[name] == pytest.approx(value.item(), rel=1e-5, abs=1e-6), name
    assert found["D/bias"] == 0.25


def test_nan_logits_are_recorded_as_they_are(tiny) -> None:  # noqa: ANN001
    D = TrainingState(tiny()).D
    found = logit_statistics(D, [torch.tensor([[1.0, 2.0, 3.0, math.nan], [0.0, 0.0, 0.0, 0.0]])], 1.0, BatchShard(2))
    assert found["D/logit_mean/fake"] == 1.5
    assert found["D/logit_mean/real"].isnan()
    assert found["D/logit_max/real"].isnan()
    assert found["accuracy/D_real"].isnan(), "neither right nor wrong"
    assert found["D/inside_margin/real"].isnan()
    assert found["accuracy/D_fake"] == 0


@pytest.mark.parametrize("freeze", ["none", pytest.param("G", marks=pytest.mark.slow), "D"])
def test_the_view_changes_no_bit_and_is_recorded(freeze: str, tiny, train, tmp_path) -> None:  # noqa: ANN001
    """Every step, over accumulation, penalties and frozen networks."""
    config = tiny(
        steps=3, discriminator_view={"every": 1, "images": 11}, train={"accumulate": 2, "freeze": freeze},
        model={"norm_D": "batch"}, regularizers={"r1": 0.1, "dropout_keep": 0.8},
    )  # fmt: skip
    recorded: list[tuple[int, dict]] = []
    view = DiscriminatorView(lambda step, numbers: recorded.append((step, dict(numbers))))
    watched, plain = train(config, tmp_path / "watched", view), train(config, tmp_path / "plain")
    assert_same_state(watched.state.tensors(), plain.state.tensors())
    assert [step for step, _ in recorded] == [1, 2, 3]
    for _, numbers in recorded:
        assert set(numbers) == {
            "D/accuracy/train", "D/accuracy/val", "D/accuracy/fake", "D/input_gradient/real", "D/input_gradient/fake",
            "D/auc/train_val", "D/auc/real_fake", "D/auc/val_fake", "D/gap/train_val",
        }  # fmt: skip
        assert all(0 <= numbers[f"D/accuracy/{name}"] <= 1 for name in ("train", "val", "fake"))
        assert all(0 <= value <= 1 for name, value in numbers.items() if name.startswith("D/auc/"))
        assert math.isfinite(numbers["D/gap/train_val"])
        assert numbers["D/input_gradient/real"] > 0
    assert [len(view.images[name][0]) for name in ("train", "val")] == [11, 11]


def test_a_run_records_the_view_beside_its_losses(finished) -> None:  # noqa: ANN001
    frame = read_record(finished)
    for name in ("D/inside_margin/real", "D/logit_std/fake", "D/bias"):
        assert frame[frame.name == name].step.tolist() == [1, 2, 3]

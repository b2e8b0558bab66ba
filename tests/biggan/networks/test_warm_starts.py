"""sigma_0 features over resumes: where start vectors decide bits, and Spectral Normalization folded away."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny import assert_same_state

from biggan.cli.options import parse
from biggan.cli.sample import sample_main
from biggan.cli.train import train_main
from biggan.config import Config
from biggan.data.images import to_float
from biggan.errors import UserError
from biggan.networks.sigma_control import top_two
from biggan.objective.gradient_penalties import Batch, between
from biggan.objective.latents import truncated_latents
from biggan.rng import generator
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.training.state import TrainingState

Play = Callable[..., tuple[TrainingState, list[dict[str, float]]]]
TINY = [
    "--model.resolution=8",
    "--model.ch=4",
    "--train.batch=8",
    "--samples.every=0",
    "--tensorboard.every=0",
    "--quiet",
]
# G's linear layer becomes 512 x 400: beyond what is decomposed whole, so that the vectors decide bits.
LARGE = {"resolution": 8, "ch": 8, "skip_z": False, "z_dim": 400}
FEATURES = {
    "forward": {"model": {**LARGE, "clamp_G": {"value": 0.9, "layers": ["linear"]}}},
    "project": {"model": {**LARGE, "clamp_G": {"value": 0.9, "mode": "project", "layers": ["linear"]}}},
    "sigma": {"model": LARGE, "regularizers": {"sigma_G": {"strength": 0.1, "target": 0.5, "layers": ["linear"]}}},
}


def of_feature(tiny: Callable[..., Config], feature: str, steps: int) -> Config:
    return tiny(steps=steps, train={"batch": 8, "d_steps": 1}, model=FEATURES[feature]["model"], regularizers={
        "orthogonal_G": 0.0, **FEATURES[feature].get("regularizers", {})
    })  # fmt: skip


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_large_matrices_go_on_from_the_vectors_of_the_checkpoint(feature: str, tiny, play: Play) -> None:  # noqa: ANN001
    middle, _ = play(of_feature(tiny, feature, 2))
    saved = copy.deepcopy(middle.tensors())
    (name,) = [name for name in saved if name.startswith("sigma_start") or name == "G.linear.clamp.start"]
    whole, _ = play(of_feature(tiny, feature, 4), middle)
    resumed = TrainingState(of_feature(tiny, feature, 4), initialize=False)
    resumed.load(saved, 2)
    resumed, _ = play(of_feature(tiny, feature, 4), resumed)
    assert_same_state(whole.tensors(), resumed.tensors())
    # Other vectors give the same values to the estimator's tolerance, and other bits: the state does matter.
    damaged = TrainingState(of_feature(tiny, feature, 4), initialize=False)
    damaged.load({**saved, name: saved[name].flip(0)}, 2)
    damaged, _ = play(of_feature(tiny, feature, 4), damaged)
    one, other = whole.tensors()["G.linear.weight"], damaged.tensors()["G.linear.weight"]
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.05, atol=1e-3)


def test_a_clamp_turned_on_at_a_resume_starts_from_drawn_vectors(tiny, play: Play) -> None:  # noqa: ANN001
    plain, _ = play(tiny(steps=1))
    config = tiny(steps=1, model={"clamp_G": {"ratio": 1.0}})
    state = TrainingState(config, initialize=False)
    state.load(plain.tensors(), 1)
    start = state.G.linear.clamp.start
    assert torch.equal(start, TrainingState(config).G.linear.clamp.start)
    assert not torch.equal(start, torch.eye(*start.shape))


def test_what_did_not_converge_is_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    from biggan.networks import sigma_control

    honest = sigma_control.top_singular_values_batch

    def guess(*arguments: object, **settings: object) -> list:
        return [
            dataclasses.replace(one, values=one.values * 2, converged=False) for one in honest(*arguments, **settings)
        ]

    monkeypatch.setattr(sigma_control, "top_singular_values_batch", guess)
    W = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    (found,) = top_two([W], [None])
    torch.testing.assert_close(found.values, torch.linalg.svdvals(W)[:2])


def function_of(run: Path, network: str) -> torch.Tensor:
    """What a checkpoint's network makes of fixed inputs, with the statistics and vectors it has."""
    checkpoint = read_checkpoint(checkpoint_paths(run)[-1])
    state = TrainingState(checkpoint.config, initialize=False)
    state.load(checkpoint.tensors, checkpoint.step)
    y = torch.arange(10)
    with torch.no_grad():
        if network == "G":
            return state.G.eval()(torch.linspace(-1, 1, 10 * state.G.z_dim).reshape(10, -1), y)
        pixels = torch.arange(10 * 8 * 8 * 3).remainder(251).to(torch.uint8).reshape(10, 8, 8, 3)
        return state.D.eval()(to_float(pixels), y)


@pytest.mark.parametrize("networks", [*(pytest.param(one, marks=pytest.mark.slow) for one in "GD"), "GD"])
def test_spectral_norm_turned_off_at_a_resume_is_folded_in(networks: str, tmp_path: Path) -> None:
    """With rates of zero the resumed step changes nothing but the form in which the function is stored."""
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=3", *TINY]) == 0
    before = {network: function_of(run, network) for network in "GD"}
    off = [f"--model.spectral_norm_{network}=false" for network in networks]
    still = ["--optim.G.lr=0", "--optim.D.lr=0", "--model.batchnorm_momentum=0", "--steps=4", "--quiet"]
    assert train_main(["--resume", str(run), "--allow-change", *still, *off]) == 0
    tensors = read_checkpoint(checkpoint_paths(run)[-1]).tensors
    for network in networks:
        assert f"{network}.linear.u" not in tensors
        torch.testing.assert_close(function_of(run, network), before[network], rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_a_number_stays_one() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, mask: None = None) -> torch.Tensor:
            return (x * float("nan")).sum(dim=(1, 2, 3))

    x, y = torch.ones(2, 3, 2, 2), torch.zeros(2, dtype=torch.int64)
    assert math.isnan(between(Broken(), Batch(x, y, x, y, mix=torch.tensor([0.2, 0.7]))))  # type: ignore[arg-type]


def test_truncation_follows_the_law_of_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    annealed = parse(["--latents.distribution=annealed_normal", "--latents.anneal_to=4"]).config().latents
    z = truncated_latents(annealed, generator(0, "test"), 4000, 4, 1.0)
    normal = truncated_latents("normal", generator(0, "test"), 4000, 4, 0.5)
    torch.testing.assert_close(z, 2 * normal)
    with pytest.raises(UserError, match="trained on bernoulli"):
        truncated_latents("bernoulli", generator(0, "test"), 1, 1, 0.5)
    run = tmp_path / "run"
    assert train_main(["--out", str(run), "--steps=1", "--latents.distribution=signs", *TINY]) == 0
    assert sample_main(["--ckpt", str(run), "--truncation=0.5"]) == 2
    assert "Sample it without truncation" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--model.norm_G=weight", "--model.clamp_G.value=0.9", "--model.clamp_G.mode=project"],
            "no effect under WeightNorm",
        ),
        (
            ["--model.norm_G=weight", "--regularizers.sigma_G.strength=1", "--regularizers.sigma_G.target=1"],
            "WeightNorm",
        ),
        (["--regularizers.sigma_G.target=1"], "expected a strength above 0"),
        (
            [
                "--regularizers.sigma_G.strength=1",
                "--regularizers.sigma_G.target=1",
                "--regularizers.sigma_G.layers=[]",
            ],
            "layers is empty",
        ),
        (["--model.projection_hidden=5"], "Set model.projection to mlp"),
        (
            ["--model.shared_embedding=false", "--model.skip_z=false", "--model.projection_spectral_norm=false"],
            "builds on G's shared class embedding",
        ),
    ],
)
def test_what_would_do_nothing_is_refused(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert train_main(["--out", str(tmp_path / "run"), "--steps=1", *TINY, *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()

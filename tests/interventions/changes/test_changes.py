"""The changes: each differs from its parent in what it says and in nothing else, and does it, on state."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import assert_same_state

from biggan.config import Config, differences, from_dict, to_dict
from biggan.errors import UserError
from biggan.run.checkpoint import save_checkpoint
from biggan.run.folding import load_state
from biggan.training.state import TrainingState
from interventions.branch.branch import Branch, check_branch, open_branch, plan_branch
from interventions.branch.parent import Parent, find_parent
from interventions.branch.timeline import Timed, make_timeline
from interventions.changes import CHANGES, import_change, load_file, make_change
from interventions.changes.base import with_fields

OF_FIELDS = {
    ("freeze", "D"): {"train.freeze": "D"},
    ("freeze", "G"): {"train.freeze": "G"},
    ("lr", "G=x2"): {"optim.G.lr": 2e-3},
    ("lr", "D=/2"): {"optim.D.lr": 5e-4},
    ("lr", "1e-4"): {"optim.G.lr": 1e-4, "optim.D.lr": 1e-4},
    ("betas", "D=0.5"): {"optim.D.beta1": 0.5},
    ("betas", "{beta1: 0.5, beta2: 0.9}"): {
        "optim.G.beta1": 0.5, "optim.G.beta2": 0.9, "optim.D.beta1": 0.5, "optim.D.beta2": 0.9,
    },
    ("d-steps", "3"): {"train.d_steps": 3},
    ("batch", "x2"): {"train.batch": 16},
    ("clip", "1"): {"optim.G.clip_global": 1.0, "optim.D.clip_global": 1.0},
    ("clip", "{network: D, tensor: 0.5}"): {"optim.D.clip_tensor": 0.5},
    ("ema", "{decay: 0.99, start: 5}"): {"ema.decay": 0.99, "ema.start": 5},
    ("train-per-class", "10"): {"data.train_per_class": 10},
    ("seed", "7"): {"seed": 7},
    ("r1", "10"): {"regularizers.r1": 10.0},
    ("gradient-penalty", "1"): {"regularizers.gradient_penalty": 1.0},
    ("dropout", "0.8"): {"regularizers.dropout_keep": 0.8},
    ("embedding-decay", "1e-6"): {"regularizers.embedding_decay": 1e-6},
    ("l2", "1e-4"): {"regularizers.l2_D": 1e-4},
    ("l2", "both=1e-4"): {"regularizers.l2_G": 1e-4, "regularizers.l2_D": 1e-4},
    ("orthogonal", "x2"): {"regularizers.orthogonal_G": 2e-3},
    ("orthogonal", "{network: D, value: 1e-4, form: full}"): {
        "regularizers.orthogonal_D": 1e-4, "regularizers.orthogonal_form_D": "full",
    },
    ("margin", "0.5"): {"loss.margin": 0.5},
    ("loss", "wasserstein"): {"loss.name": "wasserstein"},
    ("sigma", "{strength: 0.1, target: 1}"): {"regularizers.sigma_G.strength": 0.1, "regularizers.sigma_G.target": 1.0},
    ("sigma", "{network: D, strength: 0.1, ratio: 1.5}"): {
        "regularizers.sigma_D.strength": 0.1, "regularizers.sigma_D.ratio": 1.5,
    },
    ("sigma", "{strength: 0.1, target: 1, layers: [linear]}"): {
        "regularizers.sigma_G.strength": 0.1, "regularizers.sigma_G.target": 1.0,
        "regularizers.sigma_G.layers": ["linear"],
    },
    ("sigma", "{strength: 0.1, target: 1, layers: [G.linear]}"): {  # as the record calls it
        "regularizers.sigma_G.strength": 0.1, "regularizers.sigma_G.target": 1.0,
        "regularizers.sigma_G.layers": ["linear"],
    },
    ("clamp", "1"): {"model.clamp_G.value": 1.0},
    ("clamp", "{network: D, ratio: 1.2, mode: project}"): {"model.clamp_D.ratio": 1.2, "model.clamp_D.mode": "project"},
    ("spectral-norm", "G=off"): {"model.spectral_norm_G": False},
    ("spectral-norm", "off"): {"model.spectral_norm_G": False, "model.spectral_norm_D": False},
    ("latents", "censored_normal"): {"latents.distribution": "censored_normal"},
    ("latents", "{distribution: annealed_normal, anneal_steps: 50}"): {
        "latents.distribution": "annealed_normal", "latents.anneal_steps": 50,
    },
    ("set", "loss.margin=0.25"): {"loss.margin": 0.25},
    ("set", "optim.G.eps=1e-6"): {"optim.G.eps": 1e-6},
}  # fmt: skip
OF_STATE = [("moments", "D"), ("moments", "{which: second, count: reset}"), ("reinit", "D"), ("reinit", "G=linear")]
OF_STATE += [("average-as-G", "keep")]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of three steps, in no run directory."""
    from tiny import TINY_CONFIG as TINY

    from biggan.data.loader import training_batches
    from biggan.data.sources.opening import open_source
    from biggan.run.directory import RunDirectory
    from biggan.training.trainer import Trainer

    torch.set_num_threads(1)
    config = from_dict({**TINY, "train": {"batch": 8}})
    state = TrainingState(config)
    trainer = Trainer(config, state, source := open_source(config), RunDirectory(Path("nowhere")), [])
    batches = training_batches(config, source, 0)
    for _ in range(3):
        trainer.train_step(batches)
    path = tmp_path_factory.mktemp("parent") / "step-00000003.safetensors"
    save_checkpoint(path, state.tensors(), 3, to_dict(config))
    return path


@pytest.fixture
def parent(saved: Path) -> Parent:
    return find_parent(saved)


def branch_of(parent: Parent, *changes: tuple[str, Any], steps: int = 4, out: Path | None = None) -> Branch:
    timed = [Timed(make_change(name, value), parent.step) for name, value in changes]
    return plan_branch(parent, timed, steps, out or "out")


def changed_state(parent: Parent, name: str, value: Any) -> tuple[TrainingState, Config, dict[str, Any]]:
    """The state with which a branch with one change begins."""
    (phase,) = branch_of(parent, (name, value)).timeline.phases
    state = TrainingState(phase.config, initialize=False)
    load_state(state, parent.checkpoint, phase.config)
    with torch.no_grad():
        said = [change.operate(state, phase.config) for change in phase.operations]
    return state, phase.config, said[0] if said else {}


@pytest.mark.parametrize(("name", "value"), OF_FIELDS)
def test_one_change_differs_in_what_it_says_and_nothing_else(parent: Parent, name: str, value: str) -> None:
    branch = branch_of(parent, (name, value))
    found = differences(parent.checkpoint.config, branch.config, numbers_only=True)
    assert {field: new for field, (_, new) in found.items()} == OF_FIELDS[name, value]
    again = make_change(*next(iter(branch.timeline.applied[0].timed.change.spec().items())))  # as run.json has it
    assert again == branch.timeline.applied[0].timed.change


@pytest.mark.parametrize(("name", "value"), [case for case in OF_FIELDS if case[0] != "spectral-norm"])
def test_a_change_of_fields_leaves_the_state_alone(parent: Parent, name: str, value: str) -> None:
    state, _, _ = changed_state(parent, name, value)
    tensors = {n: t for n, t in state.tensors().items() if n in parent.checkpoint.tensors}
    assert_same_state(tensors, dict(parent.checkpoint.tensors))


@pytest.mark.parametrize(("name", "value"), OF_STATE)
def test_a_change_of_the_state_leaves_the_configuration_alone(parent: Parent, name: str, value: str) -> None:
    branch = branch_of(parent, (name, value))
    assert not differences(parent.checkpoint.config, branch.config, numbers_only=True)


def test_every_change_is_among_these() -> None:
    names = {name for name, _ in [*OF_FIELDS, *OF_STATE]} | {"weights"}
    assert names == {name for name, kind in CHANGES.items() if kind.__module__.startswith("interventions.")}
    assert all((kind.__doc__ or "").strip() for kind in CHANGES.values())


@pytest.mark.parametrize("value", ["G=x2", "D=3e-4", "x2"])
def test_rates_are_what_was_asked_after_the_optimizer_is_loaded(parent: Parent, value: str) -> None:
    state, config, _ = changed_state(parent, "lr", value)
    wanted = {"G": config.optim.G.lr, "D": config.optim.D.lr}
    for network, optimizer in state.optimizers.items():
        assert [group["lr"] for group in optimizer.param_groups] == [wanted[network]]
        assert all(float(moments["step"]) == 3 for moments in optimizer.state.values())


def test_betas_are_what_was_asked(parent: Parent) -> None:
    state, _, _ = changed_state(parent, "betas", "{network: D, beta1: 0.5, beta2: 0.9}")
    assert state.optimizers["D"].param_groups[0]["betas"] == (0.5, 0.9)
    assert state.optimizers["G"].param_groups[0]["betas"] == (0.0, 0.999)


@pytest.mark.parametrize("count", ["kept", "reset"])
@pytest.mark.parametrize("which", ["first", "second", "both"])
@pytest.mark.parametrize("network", ["G", "D", "both"])
def test_moments_are_zero_and_all_else_stays(parent: Parent, which: str, count: str, network: str) -> None:
    state, _, said = changed_state(parent, "moments", {"which": which, "count": count, "network": network})
    zeroed = {"first": ["exp_avg"], "second": ["exp_avg_sq"], "both": ["exp_avg", "exp_avg_sq"]}[which]
    zeroed += ["step"] if count == "reset" else []
    for name, tensor in state.tensors().items():
        mine = network == "both" or name.startswith(f"optim_{network}.")
        if name.startswith("optim_") and mine and name.rpartition(".")[2] in zeroed:
            assert not tensor.any(), name
        else:
            assert torch.equal(tensor, parent.checkpoint.tensors[name]), name
    assert said["step_count"] == count


def test_the_first_steps_factor_is_what_adam_does() -> None:
    """31.6 at beta2 0.999 with the count kept; measured on torch's Adam under a constant gradient."""
    change, reset = make_change("moments", "both"), make_change("moments", {"count": "reset"})
    assert math.isclose(change.first_step(100_000, 0.0, 0.999), 31.6228, rel_tol=1e-5)
    assert reset.first_step(100_000, 0.0, 0.999) == 1
    for which in ("first", "second", "both"):
        for count in ("kept", "reset"):
            weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
            adam = torch.optim.Adam([weight], lr=1.0, betas=(0.5, 0.9), eps=0.0)
            for _ in range(50):
                weight.grad = torch.ones_like(weight)
                adam.step()
            moments = adam.state[weight]
            for key in ("exp_avg", "exp_avg_sq"):
                if which == "both" or (which == "first") == (key == "exp_avg"):
                    moments[key].zero_()
            if count == "reset":
                moments["step"].zero_()
            before = weight.item()
            adam.step()
            factor = make_change("moments", {"which": which, "count": count}).first_step(50, 0.5, 0.9)
            assert math.isclose(before - weight.item(), factor, rel_tol=1e-4), (which, count)


@pytest.mark.parametrize("network", ["G", "D"])
def test_a_frozen_network_is_a_constant_function(
    parent: Parent, tmp_path: Path, network: str, play: Callable[..., Any]
) -> None:
    """Parameters, moments, Spectral Normalization's vectors, statistics and G's average stand still."""
    state, config, _ = changed_state(parent, "freeze", network)
    play(config, state)
    mine = {"G": ("G.", "optim_G.", "G_ema."), "D": ("D.", "optim_D.")}[network]
    other = "D." if network == "G" else "G."
    moved = [n for n, t in state.tensors().items() if not torch.equal(t, parent.checkpoint.tensors[n])]
    assert not [name for name in moved if name.startswith(mine)]
    assert [name for name in moved if name.startswith(other)]
    assert state.step == 7


def test_spectral_normalization_off_is_the_same_function_and_on_again_is_normalized(parent: Parent) -> None:
    state, config, _ = changed_state(parent, "spectral-norm", "D=off")
    before = TrainingState(parent.checkpoint.config, initialize=False)
    before.load(parent.checkpoint.tensors, 3)
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    with torch.no_grad():
        assert torch.allclose(before.D(images, labels), state.D(images, labels), rtol=1e-4, atol=1e-5)
    on = make_timeline(config, 3, 5, [Timed(make_change("spectral-norm", "D=on"), 3)]).phases[0].config
    again = TrainingState(on, initialize=False)
    path = parent.checkpoint.path.with_name("folded.safetensors")
    save_checkpoint(path, state.tensors(), 3, to_dict(config))
    load_state(again, find_parent(path).checkpoint, on)
    weight = again.D.get_submodule("blocks.0.conv1").normalized_weight().flatten(1)
    assert torch.linalg.matrix_norm(weight, 2).item() == pytest.approx(1, abs=2e-2)


def test_weights_of_another_checkpoint(parent: Parent, tmp_path: Path, tiny: Callable[..., Config]) -> None:
    other = TrainingState(tiny(seed=5, train={"batch": 8, "d_steps": 1}))
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, other.tensors(), 0, to_dict(tiny(seed=5)))
    for moments in ("take", "keep", "zero"):
        state, _, said = changed_state(parent, "weights", {"file": str(path), "network": "G", "moments": moments})
        mine = {n: t for n, t in state.tensors().items() if n.startswith(("G.", "G_ema."))}
        assert_same_state(mine, {n: other.tensors()[n] for n in mine})
        rest = {n: t for n, t in state.tensors().items() if n.startswith(("D.", "optim_D."))}
        assert_same_state(rest, {n: parent.checkpoint.tensors[n] for n in rest})
        own = [t for n, t in state.tensors().items() if n.startswith("optim_G.") and n.endswith("exp_avg_sq")]
        assert any(t.any() for t in own) == (moments == "keep")  # the other run has not begun: its moments are zero
        assert said["of_step"] == 0


@pytest.mark.parametrize("moments", ["keep", "zero"])
def test_the_average_as_G_is_G_and_nothing_else_moves(parent: Parent, moments: str) -> None:
    state, _, said = changed_state(parent, "average-as-G", moments)
    before, squares = parent.checkpoint.tensors, 0.0
    for name, tensor in state.tensors().items():
        if name.startswith("G."):
            assert torch.equal(tensor, before[f"G_ema.{name[2:]}"]), name
            squares += float((before[name] - tensor).double().square().sum())
        elif name.startswith("optim_G.") and moments == "zero":
            assert not tensor.any(), name
        else:
            assert torch.equal(tensor, before[name]), name
    assert said["distance"] == pytest.approx(squares**0.5)
    assert squares > 0


def test_an_average_that_is_still_a_copy_is_no_change(parent: Parent) -> None:
    copying = ("ema", "{decay: 0.9, start: 5}")
    with pytest.raises(UserError, match=r"plain copy of G up to step 5 \(ema.start\), and this is step 3"):
        check_branch(branch_of(parent, copying, ("average-as-G", "keep")))


@pytest.mark.parametrize("name", ["blocks.0.conv1", "G.blocks.0.conv1"])
def test_reinitializing_a_layer_touches_that_layer_alone(parent: Parent, name: str) -> None:
    state, _, said = changed_state(parent, "reinit", f"G={name}")
    moved = {n for n, t in state.tensors().items() if not torch.equal(t, parent.checkpoint.tensors[n])}
    mine = [n for n in state.tensors() if n.startswith(("G.blocks.0.conv1.", "optim_G.blocks.0.conv1."))]
    assert moved == set(mine)
    first = TrainingState(parent.checkpoint.config).tensors()["G.blocks.0.conv1.weight"]
    assert not torch.equal(state.tensors()["G.blocks.0.conv1.weight"], first)  # another draw than the run's first
    assert said["drawn"] == ["blocks.0.conv1.weight", "blocks.0.conv1.bias", "blocks.0.conv1.u"]
    moments = [t for n, t in state.tensors().items() if n.startswith("optim_G.blocks.0.conv1.")]
    assert not any(t.any() for t in moments)


def test_an_unknown_layer_gets_the_nearest_and_nothing_is_written(parent: Parent, tmp_path: Path) -> None:
    for change in (
        ("reinit", "D=blocks.0.conv3"),
        ("sigma", "{strength: 0.1, target: 1, layers: [linaer]}"),
        ("clamp", "{value: 1, layers: [linaer]}"),
        ("clamp", "{value: 1, layers: [D.linear]}"),  # of the other network
    ):
        with pytest.raises(UserError, match=r"did you mean '(blocks\.0\.conv\d|linear)'"):
            open_branch(branch_of(parent, change, out=tmp_path / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([("r1", "0")], "changes nothing: regularizers.r1 is already 0.0.*--control"),
        ([("lr", "x1")], "changes nothing"),
        ([("lr", "G=x2"), ("lr", "1e-3")], "both set optim.G.lr over the same steps"),
        ([("moments", "D"), ("reinit", "D=blocks.0")], "both set the moments of D"),
        ([("freez", "D")], "unknown change 'freez'; did you mean 'freeze'"),
        ([("freeze", "H")], "network is 'H', expected one of G, D"),
        ([("lr", "fast")], "expected a number, or x2"),
        ([("d-steps", "1.5")], "expected a whole number"),
        ([("dropout", "2")], "dropout_keep is 2.0, expected"),
        ([("sigma", "0.1")], "neither target nor ratio"),
        ([("loss", "{loss: hinge, margn: 2}")], "unknown argument of the change loss: 'margn'"),
        ([("sigma", "0.1,target:1")], r"Instead of '0\.1,target:1' write '\{strength: 0\.1, target: 1\}'"),
        ([("moments", "D=second,count:reset")], r"write '\{network: D, which: second, count: reset\}'"),
        ([("latents", "annealed_normal,anneal_from:2")], r"write '\{distribution: annealed_normal, anneal_from: 2\}'"),
        ([("seed", "value:3")], r"write '\{value: 3\}'"),
        ([("freeze", "network:G")], r"write '\{network: G\}'"),
        (
            [("sigma", {"strength": 0.1, "target": 1, "layers": "[a"})],
            r"layers is '\[a', expected a list such as \[a, b\]",
        ),
        ([("set", "loss.margn=1")], "did you mean 'loss.margin'"),
        ([("set", "loss.margin=abc")], "expected a number"),
        ([("gradient-penalty", "x2")], "is null, so 'x2' has nothing to refer to"),
    ],
)
def test_what_cannot_be_done_is_said(parent: Parent, changes: list[tuple[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        branch_of(parent, *changes)


def test_steps_at_which_changes_come_and_go(parent: Parent) -> None:
    """From, until, sequences: the configuration of each phase, and what goes back."""

    def timed(name: str, value: Any, start: int, stop: int | None = None) -> Timed:
        return Timed(make_change(name, value), start, stop)

    changes = [timed("lr", "G=x2", 3, 5), timed("lr", "G=x3", 5, 8), timed("moments", "D", 6), timed("r1", 1, 5)]
    line = make_timeline(parent.checkpoint.config, 3, 10, changes)
    seen = [(p.start, p.stop, p.config.optim.G.lr, p.config.regularizers.r1, len(p.operations)) for p in line.phases]
    assert seen == [(3, 5, 2e-3, 0, 0), (5, 6, 3e-3, 1, 0), (6, 8, 3e-3, 1, 1), (8, 10, 1e-3, 1, 0)]
    assert line.last_boundary == 8
    with pytest.raises(UserError, match=r"both set optim\.G\.lr"):
        make_timeline(parent.checkpoint.config, 3, 10, [*changes, timed("lr", "G=1e-5", 7)])
    with pytest.raises(UserError, match="begins at step 12, and the branch goes from step 3 to 10"):
        make_timeline(parent.checkpoint.config, 3, 10, [timed("r1", 1, 12)])
    with pytest.raises(UserError, match="acts once, at one step, so it has no end"):
        make_timeline(parent.checkpoint.config, 3, 10, [timed("moments", "D", 4, 6)])


def test_a_change_of_ones_own_in_a_dozen_lines(parent: Parent, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text('''
from dataclasses import dataclass
from interventions import Change

@dataclass(frozen=True)
class Shrink(Change, name="shrink-for-a-test"):
    """Multiply D's weights by a factor."""
    factor: float

    def operate(self, state, config):
        for weight in state.D.parameters():
            weight.mul_(self.factor)
        return {"factor": self.factor}
''')
    try:
        load_file(file)
        state, _, said = changed_state(parent, "shrink-for-a-test", "0.5")
        assert said == {"factor": 0.5}
        half = parent.checkpoint.tensors["D.blocks.0.conv1.weight"] / 2
        assert torch.equal(state.tensors()["D.blocks.0.conv1.weight"], half)
        assert make_change("shrink-for-a-test", 0.5).spec() == {"shrink-for-a-test": {"factor": 0.5}}
        with pytest.raises(UserError, match=r"is not a change: .*mine\.py has Shrink"):
            import_change(f"{file}:Shrnk")
    finally:
        CHANGES.pop("shrink-for-a-test", None)


@pytest.mark.parametrize("given", ["model.filter_G=5", {"field": "model.filter_G", "value": 5}])
def test_a_plan_may_name_a_field_by_its_earlier_name(given: Any) -> None:
    assert make_change("set", given).fields(Config()) == {"model.kernel_size_G": 5}
    assert with_fields(Config(), {"model.filter_G": 5}).model.kernel_size_G == 5

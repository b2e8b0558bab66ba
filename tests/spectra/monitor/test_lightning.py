"""The monitor as a Lightning callback, with Lightning's own trainer: automatic and manual optimization."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from watching import Norms, assert_recorded, gradient_norms

import spectra

lightning = pytest.importorskip("lightning.pytorch", reason="needs the extra `lightning`")


class Automatic(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def training_step(self, batch: list, index: int) -> torch.Tensor:
        loss = self.net(batch[0]).square().sum()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Manual(lightning.LightningModule):
    """Two networks with an optimizer each; G is updated at every second batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator, self.critic = nn.Linear(4, 4), nn.Linear(4, 1)
        self.automatic_optimization = False

    def training_step(self, batch: list, index: int) -> None:
        for i, optimizer in enumerate(self.optimizers()):
            if i == 0 and index % 2:
                continue
            loss = self.critic(self.generator(batch[0])).mean() * (1 if i else -1)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(net.parameters(), lr=0.01) for net in (self.generator, self.critic)]


class ManySteps(Manual):
    """G is updated at every third batch, at the end of a step of three updates of the critic."""

    def training_step(self, batch: list, index: int) -> None:
        for i, optimizer in enumerate(reversed(self.optimizers())):
            if i == 1 and index % 3 < 2:
                continue
            optimizer.zero_grad()
            self.manual_backward(self.critic(self.generator(batch[0])).mean() * (-1 if i else 1))
            optimizer.step()


class Seen(lightning.Callback):
    """The gradients' norms before clipping, as Lightning itself shows them."""

    def __init__(self) -> None:
        self.norms: Norms = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.norms.append(gradient_norms(pl_module))


def fit(module: Any, folder: Path, callbacks: list, batches: int, ckpt: str | None = None, **settings: Any) -> Any:
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(batches, 4)), batch_size=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=1 if ckpt is None else 2, callbacks=callbacks, default_root_dir=folder, accelerator="cpu",
            logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            **settings,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return trainer


def test_automatic_optimization_is_watched_and_left_as_it_was(tmp_path: Path) -> None:
    watched, plain = Automatic(), Automatic()
    trainer = fit(watched, tmp_path, [spectra.lightning.SpectraCallback(tmp_path / "run", every=2)], 6)
    fit(plain, tmp_path, [], 6)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))
    frames = spectra.load(tmp_path / "run")
    assert sorted(set(frames["spectra"].step)) == [2, 4, 6]
    assert set(frames["spectra"].layer) == {"model.net.0", "model.net.2"}
    last = frames["spectra"].query("step == 6 and layer == 'model.net.2'").iloc[0]
    assert last.sigma0 == pytest.approx(torch.linalg.svdvals(watched.net[2].weight.detach())[0].item(), rel=1e-5)
    assert frames["gradients"].gradient_norm.gt(0).all()
    assert frames["gradients"].relative_update.gt(0).all()
    assert frames["scalars"].query("name == 'loss'").step.tolist() == [1, 2, 3, 4, 5, 6]
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    fit(
        Automatic(),
        tmp_path,
        [spectra.lightning.SpectraCallback(tmp_path / "run", every=2)],
        6,
        tmp_path / "saved.ckpt",
    )
    assert sorted(set(spectra.load(tmp_path / "run")["spectra"].step)) == [2, 4, 6, 8, 10, 12]


def test_manual_optimization_of_two_networks(tmp_path: Path) -> None:
    callback = spectra.lightning.SpectraCallback(tmp_path / "run", {"G": "generator", "D": "critic"}, every=1)
    fit(Manual(), tmp_path, [callback], 4)
    gradients = spectra.load(tmp_path / "run")["gradients"]
    norms = gradients.pivot_table(index="step", columns="parameter", values="gradient_norm", observed=True)
    assert norms["D.weight"].notna().tolist() == [True] * 4
    assert norms["G.weight"].notna().tolist() == [True, False, True, False]
    with pytest.raises(ValueError, match="no attribute 'generatr'"):
        fit(
            Manual(),
            tmp_path,
            [spectra.lightning.SpectraCallback(tmp_path / "b", ["generatr"])],
            1,
        )


def test_a_step_under_accumulation_is_the_global_step(tmp_path: Path) -> None:
    """Its gradients are of all its batches, before clipping."""
    seen, watched, plain = Seen(), Automatic(), Automatic()
    settings = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01}
    fit(watched, tmp_path, [seen, spectra.lightning.SpectraCallback(tmp_path / "run", every=1)], 6, **settings)
    fit(plain, tmp_path, [], 6, **settings)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))
    frames = spectra.load(tmp_path / "run")
    assert sorted(set(frames["spectra"].step)) == [1, 2, 3]
    assert_recorded(frames, seen.norms)
    assert frames["gradients"].relative_update.gt(0).all()


def test_a_step_of_one_network_may_hold_several_updates_of_another(tmp_path: Path) -> None:
    named = {"G": "generator", "D": "critic"}
    callback = spectra.lightning.SpectraCallback(tmp_path / "run", named, step_of="G", every=1)
    watched, plain = ManySteps(), ManySteps()
    fit(watched, tmp_path, [callback], 9)
    fit(plain, tmp_path, [], 9)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))
    gradients = spectra.load(tmp_path / "run")["gradients"]
    norms = gradients.pivot_table(index="step", columns="parameter", values="gradient_norm", observed=True)
    assert norms.index.tolist() == [1, 2, 3]
    assert norms.notna().all().all()
    with pytest.raises(ValueError, match="step_of='C' is none of the networks that are watched: G, D"):
        fit(ManySteps(), tmp_path, [spectra.lightning.SpectraCallback(tmp_path / "b", named, step_of="C")], 1)


def test_no_bad_layer_or_full_disk_ends_a_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Growing(Automatic):
        def on_train_batch_start(self, batch: list, index: int) -> None:
            if index == 2:
                self.net.append(nn.Linear(3, 3))
                self.odd = nn.Parameter(torch.empty(0, 3))
            if index == 4:
                monkeypatch.setattr("spectra.record.batches.BatchWriter.write", _full)

    fit(Growing(), tmp_path, [spectra.lightning.SpectraCallback(tmp_path / "run", every=1)], 6)
    monkeypatch.undo()
    events = spectra.load(tmp_path / "run")["events"]
    assert [event["layer"] for event in events.details] == ["model.odd"]


def _full(*_: Any) -> None:
    raise OSError(28, "No space left on device")

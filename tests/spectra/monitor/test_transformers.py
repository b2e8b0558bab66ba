"""The monitor in Hugging Face's Trainer and in accelerate, with the real ones."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from watching import Norms, gradient_norms, state_of, train_twice, watching

import spectra


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.head(torch.tanh(self.body(x))).square().sum()}


def hugging_face(folder: Path, callbacks: list, resume: str | None = None, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="needs the extra `transformers`")
    pytest.importorskip("accelerate", reason="needs the extra `transformers`")
    arguments = transformers.TrainingArguments(
        str(folder / "trainer"), per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.1,
        logging_steps=1, report_to=[], use_cpu=True, disable_tqdm=True,
        **{"save_strategy": "no", "max_steps": 4} | settings,
    )  # fmt: skip
    data = [{"x": row} for row in torch.randn(64, 4, generator=torch.Generator().manual_seed(1))]
    model = Model()
    trainer = transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.slow
def test_hugging_faces_trainer(tmp_path: Path) -> None:
    """Its steps, and gradients from before clipping: together they are the norm that the trainer itself logs."""
    pytest.importorskip("transformers", reason="needs the extra `transformers`")
    watched = hugging_face(tmp_path, [spectra.transformers.SpectraTrainerCallback(tmp_path / "run", every=1)])
    plain = hugging_face(tmp_path, [])
    for one, other in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)
    frames = spectra.load(tmp_path / "run")
    gradients, scalars = frames["gradients"], frames["scalars"]
    squares = gradients.assign(square=gradients.gradient_norm**2).groupby("step").square.sum()
    logged = scalars.query("name == 'grad_norm'")
    assert logged.step.tolist() == squares.index.tolist() == [1, 2, 3, 4]
    assert squares.map(math.sqrt).tolist() == pytest.approx(logged.value.tolist(), rel=1e-5)
    assert logged.value.gt(0.2).all()  # so that they would differ after clipping
    assert scalars.query("name == 'loss'").step.tolist() == [1, 2, 3, 4]
    assert set(frames["spectra"].layer) == {"model.body", "model.head"}
    assert frames["gradients"].relative_update.gt(0).all()
    assert len(frames["events"]) == 0


@pytest.mark.slow
def test_hugging_faces_trainer_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra `transformers`")
    settings = {"save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    for resume in (None, str(tmp_path / "trainer/checkpoint-3")):
        callback = spectra.transformers.SpectraTrainerCallback(tmp_path / "run", {"top": "head"}, every=1)
        hugging_face(tmp_path, [callback], resume, **settings)
    frames = spectra.load(tmp_path / "run")
    assert frames["spectra"].step.tolist() == [1, 2, 3, 4, 5, 6]
    assert frames["spectra"].turn0.notna().tolist() == [False, *[True] * 5]
    assert set(frames["spectra"].layer) == {"top"}
    with pytest.raises(ValueError, match="no attribute 'hed'"):
        hugging_face(tmp_path, [spectra.transformers.SpectraTrainerCallback(tmp_path / "b", "hed")])


@pytest.mark.parametrize("given", [True, False], ids=["its-optimizer", "none"])
def test_accelerate(tmp_path: Path, given: bool) -> None:
    """Hooks on the inner optimizer; batches that only accumulate have no gradients."""
    accelerate = pytest.importorskip("accelerate", reason="needs the extra `transformers`")

    def train(run: Path | None) -> tuple[dict, Norms]:
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
        model = Model()
        model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01))
        seen: Norms = []
        chosen = optimizer if given else None
        with watching(accelerator.unwrap_model(model), run, optimizer=chosen, every=1) as monitor:
            for step in range(1, 7):
                x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
                with accelerator.accumulate(model):
                    loss = model(x)["loss"]
                    accelerator.backward(loss)
                    seen.append(gradient_norms(accelerator.unwrap_model(model)) if accelerator.sync_gradients else {})
                    if accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(model.parameters(), 0.01)
                    optimizer.step()
                    optimizer.zero_grad()
                monitor.step(loss=loss)
        return state_of([accelerator.unwrap_model(model)]), seen

    frames = train_twice(train, tmp_path / "run")
    assert set(frames["spectra"].layer) == {"model.body", "model.head"}

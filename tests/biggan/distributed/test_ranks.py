"""`biggan-train` on two ranks over gloo: who writes, resuming, signals, a rank that dies, and bad input."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ranks import command, on_ranks
from tiny import TINY, assert_same_state

from biggan.cli.train import train_main
from biggan.distributed.launch import LostRank
from biggan.distributed.ranks import rank
from biggan.run.checkpoint import checkpoint_paths, read_checkpoint
from biggan.run.directory import RunDirectory
from biggan.training.trainer import Trainer
from spectra.record.segments import read_record

OPTIONS = [*TINY, "--train.d_steps=2", "--checkpoint.every=2", "--spectra.every=2"]
EVERYTHING = [
    "--regularizers.r1=1", "--regularizers.gradient_penalty=1", "--regularizers.dropout_keep=0.8",
    "--regularizers.sigma_G.strength=0.01", "--regularizers.sigma_G.target=1", "--model.norm_D=batch",
    "--samples.every=2", "--train.accumulate=2", "--train.freeze=G",
    "--eval.every=2", "--eval.features=steps:Pooled",
]  # fmt: skip


def train(out: Path, *options: str) -> tuple[int, str, str]:
    """A new run on this rank."""
    return command(["--out", str(out), *OPTIONS, *options])


def after_step(step: int, act: Callable[[Trainer], None]) -> None:
    """Have this rank do something behind `step`, before the ranks' next exchange."""
    original = Trainer.train_step

    def train_step(self: Trainer, batches: object) -> dict[str, float]:
        stats = original(self, batches)
        if self.state.step == step:
            act(self)
        return stats

    Trainer.train_step = train_step


def whole_and_in_parts(folder: Path) -> list[tuple[int, str, str]]:
    """One run in one go; one stopped after 2 of 6 steps and resumed, recomputing; one with everything on."""
    return [
        train(folder / "whole", "--steps=6"),
        train(folder / "parts", "--steps=2", "--quiet"),
        command(["--resume", str(folder / "parts"), "--steps=6", "--train.recompute=true"]),
        train(folder / "everything", "--steps=2", *EVERYTHING),
    ]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(checkpoint_paths(run)[-1]).tensors


def test_two_ranks_train_and_resume_and_rank_0_alone_writes(tmp_path: Path) -> None:
    main, other = on_ranks(2, whole_and_in_parts, tmp_path)
    assert [code for code, _, _ in main + other] == [0] * 8, (main, other)
    assert [out for _, out, _ in other] == [""] * 4
    assert "2 processes, each cpu" in main[0][1]
    assert "resuming at step 2" in main[2][1]
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "parts"))
    one, parts = (read_record(tmp_path / name) for name in ("whole", "parts"))
    one, parts = (frame[frame.name != "monitor/seconds"].reset_index(drop=True) for frame in (one, parts))
    assert one.equals(parts)
    assert {"penalty/D_r1", "penalty/D_gradient", "penalty/G_sigma"} <= set(read_record(tmp_path / "everything").name)
    scored = [e["weights"] for e in RunDirectory(tmp_path / "everything").events() if e["event"] == "evaluation"]
    assert scored == ["raw", "ema"]
    assert (tmp_path / "everything/samples/step-00000002.png").exists()
    names = [event["event"] for event in RunDirectory(tmp_path / "whole").events()]
    assert names == ["started", *["checkpoint"] * 3, "finished"]
    assert json.loads((tmp_path / "whole/run.json").read_text())["ranks"] == 2


def test_a_run_of_two_ranks_goes_on_with_one_and_with_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train_main(["--out", str(tmp_path / "run"), "--steps=2", *OPTIONS]) == 0
    found = on_ranks(4, command, ["--resume", str(tmp_path / "run"), "--steps=4"])
    assert [code for code, _, _ in found] == [0] * 4
    assert "ranks was 1 when the run began and is 4: bits may differ" in " ".join(found[0][1].split())
    assert train_main(["--resume", str(tmp_path / "run"), "--steps=6"]) == 0
    assert [event["step"] for event in RunDirectory(tmp_path / "run").events()][-1] == 6


def signalled(folder: Path) -> tuple[int, str, str]:
    """A run whose rank 1 alone gets SIGTERM after step 3."""
    if rank() == 1:
        after_step(3, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
    return train(folder / "run", "--steps=1000", "--checkpoint.every=0")


def test_a_signal_to_one_rank_ends_all_after_the_same_step(tmp_path: Path) -> None:
    main, other = on_ranks(2, signalled, tmp_path)
    assert (main[0], other[0]) == (130, 130)
    assert "interrupted; step 4 is saved" in main[1]
    assert [path.name for path in checkpoint_paths(tmp_path / "run")] == ["step-00000004.safetensors"]


def killed(folder: Path) -> str:
    """A run whose rank 1 dies of SIGKILL after step 3; what rank 0 says."""
    if rank() == 1:
        after_step(3, lambda trainer: os.kill(os.getpid(), signal.SIGKILL))
    try:
        train(folder / "run", "--steps=6")
    except LostRank as error:
        return str(error)
    return "nothing"


def test_a_rank_killed_is_noticed_and_a_restart_equals_an_unbroken_run(tmp_path: Path) -> None:
    said, _ = on_ranks(2, killed, tmp_path, dying=(1,))
    assert said.startswith("rank 0 has lost another rank, whose own message says why")
    assert [path.name for path in checkpoint_paths(tmp_path / "run")] == ["step-00000002.safetensors"]
    found = on_ranks(2, whole_beside_resumed, tmp_path)
    assert [code for rank in found for code, _, _ in rank] == [0] * 4
    assert_same_state(final_state(tmp_path / "whole"), final_state(tmp_path / "run"))


def whole_beside_resumed(folder: Path) -> list[tuple[int, str, str]]:
    """The killed run, resumed, and an unbroken one."""
    return [command(["--resume", str(folder / "run")]), train(folder / "whole", "--steps=6")]


def drift(trainer: Trainer) -> None:
    """Change one bit of a Spectral Normalization vector."""
    trainer.state.D.linear.u.mul_(-1)


def bad_input(folder: Path) -> list[tuple[int, str, str]]:
    """Lines that are refused on every rank, with nothing written."""
    mine = str(8 if rank() == 0 else 6)
    found = [
        train(folder / "a", "--train.batch", mine, "--optim.G.lr", f"{mine}e-4"),
        train(folder / "b", "--train.batch=1"),
        train(folder / "c", "--device=cuda"),
        train(folder / "d", "--data.source=folder", "--data.path", str(folder / "empty")),
        train(folder / "e", "--train.bach=8"),
    ]
    if rank() == 1:
        after_step(2, drift)
    return [*found, train(folder / "f", "--steps=4")]


def test_bad_input_is_told_once_and_ends_every_rank(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    main, other = on_ranks(2, bad_input, tmp_path)
    assert [code for code, _, _ in main + other] == [2] * 12
    assert [errors for _, _, errors in other] == [""] * 6
    different, batch, gpu, data, option, copies = (" ".join(errors.split()) for _, _, errors in main)
    assert "rank 1 was started with another configuration than rank 0" in different
    assert "optim.G.lr: 0.0008 on rank 0, 0.0006; train.batch: 8 on rank 0, 6. Give every process" in different
    assert "2 processes are to share train.batch 1" in batch
    assert "torch finds no GPU" in gpu
    assert "empty" in data
    assert "did you mean '--train.batch'" in option
    assert "after step 2 rank 1's copy of the state is not rank 0's" in copies
    assert "D.linear.u" in copies
    assert [name for name in "abcdef" if (tmp_path / name).exists()] == ["f"]
    assert checkpoint_paths(tmp_path / "f") == []


def test_a_restarted_launch_goes_on_with_its_own_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torchrun starts the same line again, and says how often it has."""
    line = ["--out", str(tmp_path / "run"), "--quiet", *OPTIONS]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    assert train_main([*line, "--steps=2"]) == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train_main([*line, "--steps=4"]) == 0
    assert [event["event"] for event in RunDirectory(tmp_path / "run").events()].count("resumed") == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "another")
    assert train_main([*line, "--steps=6"]) == 2
    assert "exists and is not empty" in " ".join(capsys.readouterr().err.split())


def test_processes_without_a_place_to_meet_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert train_main(["--steps=2"]) == 2
    assert "RANK, MASTER_ADDR, MASTER_PORT is not set" in " ".join(capsys.readouterr().err.split())

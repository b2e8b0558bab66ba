"""`spectra.watch` in the loops that people write: the same bits, the right gradients, plain names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import on_ranks
from torch import nn
from watching import Norms, assert_recorded, gradient_norms, state_of, train_twice, watching

import spectra


def network(*sizes: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for rows, columns in zip(sizes[1:], sizes, strict=False):
        layers += [nn.Linear(columns, rows), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def batch(step: int, rows: int = 6, columns: int = 5) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(step))


def test_a_bare_gan_loop(tmp_path: Path) -> None:
    """Two updates of D in a step, each clipped; G's backward also adds to D's gradients, which nobody steps with."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        G, D = network(3, 8, 5), network(5, 8, 1, seed=1)
        opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=0.01) for net in (G, D))
        seen: Norms = []
        with watching({"G": G, "D": D}, run, optimizer=[opt_G, opt_D], every=1) as monitor:
            for step in range(4):
                for k in range(2):
                    opt_D.zero_grad()
                    fake = G(batch(10 * step + k, columns=3)).detach()
                    loss_D = (D(fake) - D(batch(100 + 10 * step + k))).mean()
                    loss_D.backward()
                    norms = gradient_norms(D, "D")
                    nn.utils.clip_grad_norm_(D.parameters(), 0.01)
                    opt_D.step()
                opt_G.zero_grad()
                loss_G = -D(G(batch(10 * step + 5, columns=3))).mean()
                loss_G.backward()
                seen.append(norms | gradient_norms(G, "G"))
                opt_G.step()
                monitor.step(loss_G=loss_G, loss_D=loss_D)
        return state_of([G, D], [opt_G, opt_D]), seen

    frames = train_twice(train, tmp_path / "run")
    assert set(frames["spectra"].layer) == {"G.0", "G.2", "D.0", "D.2"}
    assert frames["gradients"].relative_update.notna().all()
    assert frames["scalars"].query("name == 'loss_G'").step.tolist() == [1, 2, 3, 4]


def test_accumulation(tmp_path: Path) -> None:
    """A step is a micro-batch: those without an update have no gradient, the others all that was accumulated."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        seen: Norms = []
        with watching(net, run, every=1) as monitor:
            for step in range(1, 7):
                loss = net(batch(step)).square().mean() / 3
                loss.backward()
                seen.append(gradient_norms(net) if step % 3 == 0 else {})
                if step % 3 == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                monitor.step(loss=loss)
        return state_of([net], [optimizer]), seen

    frames = train_twice(train, tmp_path / "run")
    assert sorted(set(frames["spectra"].step)) == [1, 2, 3, 4, 5, 6]
    assert set(frames["spectra"].dropna(subset="rotation").step) == {3, 6}


@pytest.mark.parametrize("unscaled", [False, True], ids=["by-step", "by-hand-and-clipped"])
@pytest.mark.parametrize("optimizer_is_fused", [False, True], ids=["plain", "fused"])
def test_amp_with_a_grad_scaler(tmp_path: Path, unscaled: bool, optimizer_is_fused: bool) -> None:
    """Norms are without the scale of 1024; a step that the scaler skips for its Inf has none."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, fused=optimizer_is_fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        seen: Norms = []
        with watching(net, run, optimizer=optimizer, every=1) as monitor:
            for step in range(1, 5):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = net(batch(step)).square().mean() * (float("inf") if step == 3 else 1)
                scaler.scale(loss).backward()
                seen.append(gradient_norms(net, factor=scaler.get_scale()) if step != 3 else {})
                if unscaled:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
                scaler.step(optimizer)
                scaler.update()
                monitor.step({"loss/train": loss})
        return state_of([net], [optimizer]), seen

    frames = train_twice(train, tmp_path / "run")
    assert set(frames["gradients"].step) == {1, 2, 4}
    assert frames["scalars"].query("name == 'loss/train'").value.tolist()[2] == float("inf")


def test_bf16_autocast_with_clipping_and_a_scheduler(tmp_path: Path) -> None:
    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=8)
        seen: Norms = []
        with watching(net, run, every=1) as monitor:
            for step in range(1, 5):
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = net(batch(step)).square().mean()
                loss.backward()
                seen.append(gradient_norms(net))
                nn.utils.clip_grad_norm_(net.parameters(), 1e-4)
                optimizer.step()
                scheduler.step()
                monitor.step(loss=loss, lr=scheduler.get_last_lr()[0])
        return state_of([net], [optimizer]), seen

    train_twice(train, tmp_path / "run")


def test_an_optimizer_in_backward_hooks(tmp_path: Path) -> None:
    """Every parameter has an optimizer, which steps within backward and drops the gradient."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizers = {p: torch.optim.Adam([p], lr=0.01) for p in net.parameters()}
        names = {p: f"model.{name}" for name, p in net.named_parameters()}
        norms: dict[str, float] = {}

        def update(p: torch.Tensor) -> None:
            norms[names[p]] = p.grad.double().norm().item()
            optimizers[p].step()
            optimizers[p].zero_grad()

        for p in net.parameters():
            p.register_post_accumulate_grad_hook(update)
        seen: Norms = []
        with watching(net, run, every=1) as monitor:
            for step in range(1, 5):
                loss = net(batch(step)).square().mean()
                loss.backward()
                seen.append(dict(norms))
                monitor.step(loss=loss)
        return state_of([net], optimizers.values()), seen

    frames = train_twice(train, tmp_path / "run")
    assert frames["gradients"].relative_update.gt(0).all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_model(tmp_path: Path, backend: str) -> None:
    """Names are without `_orig_mod.`, also of a layer that was compiled alone."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        torch._dynamo.reset()
        net = network(5, 7, 2)
        net[2] = torch.compile(net[2], backend=backend)
        compiled = torch.compile(net, backend=backend)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        seen: Norms = []
        with watching(compiled, run, optimizer=optimizer, every=1) as monitor:
            for step in range(1, 4):
                optimizer.zero_grad()
                loss = compiled(batch(step)).square().mean()
                loss.backward()
                norms = gradient_norms(net)
                seen.append({name.replace("._orig_mod", ""): norm for name, norm in norms.items()})
                optimizer.step()
                monitor.step(loss=loss)
        return state_of([net], [optimizer]), seen

    frames = train_twice(train, tmp_path / "run")
    assert set(frames["spectra"].layer) == {"model.0", "model.2"}


def test_names_are_without_wrappers(tmp_path: Path) -> None:
    """But a user's own `module` keeps its name."""

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.DataParallel(nn.Sequential(nn.Linear(3, 3)))

    net = torch.optim.swa_utils.AveragedModel(Own())
    assert [matrix.name for matrix in spectra.weight_matrices(net)] == ["module.0"]
    with spectra.watch(net, tmp_path, every=1) as monitor:
        monitor.step()
    assert spectra.load(tmp_path)["spectra"].layer.tolist() == ["model.module.0"]


def test_a_closure_that_an_optimizer_calls(tmp_path: Path) -> None:
    """LBFGS, and Lightning, compute gradients within the optimizer's step: the last ones count."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizer = torch.optim.LBFGS(net.parameters(), lr=0.1, max_iter=3)
        seen: Norms = []
        with watching(net, run, every=1) as monitor:
            for step in range(1, 4):

                def closure(step: int = step) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = net(batch(step)).square().mean()
                    loss.backward()
                    return loss

                optimizer.step(closure)
                seen.append(gradient_norms(net))
                monitor.step()
        return state_of([net]), seen

    train_twice(train, tmp_path / "run")


def set_anew(net: nn.Module, step: int) -> None:
    """After a backward pass of the loop's own, gradients of another loss."""
    net(batch(step)).sum().backward()
    net.zero_grad()
    found = torch.autograd.grad(net(batch(-step)).square().mean(), list(net.parameters()))
    for p, gradient in zip(net.parameters(), found, strict=True):
        p.grad = gradient


def set_in_the_place_of_the_earlier(net: nn.Module, step: int) -> None:
    """Freed memory is given to the next tensor; here it is taken on purpose."""
    net(batch(step)).sum().backward()
    for p in net.parameters():
        assert p.grad is not None
        p.grad = p.grad.view_as(p.grad).mul_(3)


@pytest.mark.parametrize("set_gradients", [set_anew, set_in_the_place_of_the_earlier])
def test_gradients_that_were_set_by_hand_are_those_at_the_update(
    set_gradients: Callable[[nn.Module, int], None], tmp_path: Path
) -> None:
    """What an earlier backward left behind is not mistaken for them."""

    def train(run: Path | None) -> tuple[dict, Norms]:
        net = network(5, 7, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        seen: Norms = []
        with watching(net, run, every=1) as monitor:
            for step in range(1, 4):
                set_gradients(net, step)
                seen.append(gradient_norms(net))
                optimizer.step()
                monitor.step()
        return state_of([net]), seen

    train_twice(train, tmp_path / "run")


def test_convolutions_embeddings_and_sparse_gradients_keep_their_bits(tmp_path: Path) -> None:
    def train(run: Path | None) -> tuple[dict, Norms]:
        torch.manual_seed(0)
        table = nn.Embedding(9, 8, sparse=True)
        net = nn.Sequential(table, nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4))
        net = net.to(memory_format=torch.channels_last)
        optimizers = [torch.optim.SparseAdam(table.parameters()), torch.optim.Adam(net[2:].parameters(), lr=0.01)]
        seen: Norms = []
        with watching(net, run, optimizer=optimizers, every=1) as monitor:
            for step in range(1, 4):
                for optimizer in optimizers:
                    optimizer.zero_grad()
                net(torch.arange(6) + step % 3).square().mean().backward()
                seen.append(_dense_norms(net))
                nn.utils.clip_grad_norm_(net[2:].parameters(), 0.01)
                for optimizer in optimizers:
                    optimizer.step()
                monitor.step()
        return {name: value for name, value in state_of([net]).items() if not name.endswith("0.weight.grad")}, seen

    train_twice(train, tmp_path / "run")


def _dense_norms(net: nn.Module) -> dict[str, float]:
    return {f"model.{n}": p.grad.to_dense().double().norm().item() for n, p in net.named_parameters()}


def on_one_rank(folder: str) -> dict[str, Any]:
    """What one of two processes that train one model ends with: unwatched, and watched."""
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    rank, ends = dist.get_rank(), []
    for run in (None, Path(folder, "run")):
        net = DistributedDataParallel(network(5, 7, 2))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        seen: Norms = []
        with watching(net, run, optimizer=optimizer, every=1) as monitor:
            for step in range(1, 4):
                optimizer.zero_grad()
                net(batch(2 * step + rank)).square().mean().backward()
                seen.append(gradient_norms(net.module))
                nn.utils.clip_grad_norm_(net.parameters(), 0.01)
                optimizer.step()
                monitor.step(loss=float(rank))
        ends.append({name: tensor.tolist() for name, tensor in state_of([net.module], [optimizer]).items()})
    return {"ends": ends, "seen": seen}


def test_two_ranks_under_ddp(tmp_path: Path) -> None:
    """The first records, gradients are the averaged ones, names are without `module.`."""
    first, second = on_ranks(2, on_one_rank, str(tmp_path))
    assert first["ends"][0] == first["ends"][1] == second["ends"][0] == second["ends"][1]
    frames = spectra.load(tmp_path / "run")
    assert_recorded(frames, first["seen"])
    assert set(frames["spectra"].layer) == {"model.0", "model.2"}
    assert set(frames["scalars"].query("name == 'loss'").value) == {0.0}


def test_a_sharded_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        net: Any = network(5, 7, 2)
        monitor = spectra.watch(net, tmp_path / "before", every=1)
        fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
        with pytest.raises(ValueError, match=r"'0.weight' of 'model' is a DTensor.*DistributedDataParallel"):
            spectra.watch(net, tmp_path / "run")
        monitor.step(loss=1.0)  # sharded after construction: an event
        monitor.close()
    finally:
        destroy_process_group()
    assert not (tmp_path / "run").exists()
    said = [event["reason"] for event in spectra.load(tmp_path / "before")["events"].details]
    assert said == ["it is a DTensor, of which this process holds a shard"] * 4

"""`python -m spectra.bench ROWSxCOLUMNS...`: the estimators on matrices of these shapes, timed side by side in one run.

For each kind of weights: all matrices at once, one thread unless asked otherwise, each method once. Errors are
against the float64 Gram matrix (`exact`), itself compared with LAPACK's full decomposition on one layer. The times
are this machine's; the ratios between them, and to the time that reading the weights once takes, are what carries
over.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.dense import by_arpack
from spectra.linalg.result import TopSingularValues
from spectra.linalg.topk import top_singular_values, top_singular_values_batch
from spectra.linalg.tracked import track

WEIGHT_KINDS = ("gaussian", "spiked", "orthogonal", "slow", "pruned")
DESCRIPTIONS = {
    "gaussian": "independent normal entries, as most layers are initialized: nothing stands out",
    "spiked": "random, bulk edge 1, with spikes 3, 2.5 and 2",
    "orthogonal": "orthogonal initialisation, every singular value 1",
    "slow": "slow decay, sigma_i = i^-0.1",
    "pruned": "orthogonal initialisation with half of the rows set to zero",
}
STEP_SIZES = (2e-4,)
GOALS = {"spiked": 3.0}  # how many times as fast as svds; 1 for the other kinds
K = 3
Result = TypeVar("Result")
SHAPES = ((64, 576), (128, 1152), (256, 2304), (512, 512), (1000, 512))
"""Those of a small network, for want of others."""


def random_orthogonal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer; float32."""
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    q = torch.linalg.qr(tall).Q
    return q if rows >= columns else q.T.contiguous()


def make_weights(kind: str, bases: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """The weights of one kind from orthogonal matrices of their shapes."""
    if kind in ("orthogonal", "pruned"):
        made = [base.clone() for base in bases]
        for weight in made if kind == "pruned" else []:
            weight[torch.randperm(len(weight), generator=generator)[: len(weight) // 2]] = 0
        return made
    made = []
    for base in bases:
        rows, columns = base.shape
        short = min(rows, columns)
        wide = base if rows <= columns else base.T
        if kind == "slow":
            values = torch.arange(1, short + 1, dtype=torch.float32) ** -0.1
            weight = (random_orthogonal(short, short, generator) * values) @ wide
        else:
            weight = torch.randn(wide.shape, generator=generator) / (rows**0.5 + columns**0.5)
        if kind == "spiked":
            spikes = torch.tensor([3.0, 2.5, 2.0])[:short]
            weight += (random_orthogonal(short, len(spikes), generator) * spikes) @ wide[: len(spikes)]
        made.append(weight if rows <= columns else weight.T.contiguous())
    return made


@dataclass
class MethodTiming:
    """One line of the table: seconds for all matrices, blocks of the largest, bytes read per byte of weights, worst
    error."""

    label: str
    seconds: float
    blocks: str
    bytes_ratio: float
    worst_error: float
    unconverged: str = ""


class Bench:
    """One run on one device."""

    def __init__(self, device: str, tol: float) -> None:
        self.device, self.tol = torch.device(device), tol
        self.on_cpu = self.device.type == "cpu"

    def clock(self, work: Callable[[], Result]) -> tuple[Result, float]:
        """The result and the seconds: of the processor on a CPU with one thread, which other programs disturb least;
        else of the clock, the device's queue empty before and after."""
        now = time.process_time if self.uses_processor_time else time.perf_counter
        self._wait()
        begin = now()
        result = work()
        self._wait()
        return result, max(now() - begin, 1e-9)  # a clock may stand still over a small matrix

    @property
    def uses_processor_time(self) -> bool:
        return self.on_cpu and torch.get_num_threads() == 1

    def warm_up(self) -> None:
        """Import and initialise what the first call of each method would otherwise be charged for."""
        weight = random_orthogonal(40, 60, torch.Generator().manual_seed(0)).to(self.device)
        for method in ("exact", "krylov", *(["svds"] if self.on_cpu else [])):
            top_singular_values(weight, K, method)

    def _wait(self) -> None:
        if not self.on_cpu:
            torch.cuda.synchronize(self.device)

    def bandwidth(self) -> float:
        """Bytes a second of a sum over 256 MiB: what reading memory once costs here."""
        block = torch.ones(2**26, device=self.device)
        return block.numel() * 4 / min(self.clock(block.sum)[1] for _ in range(5))

    def estimator(
        self, label: str, weights: list[Tensor], truth: list[Tensor] | None, method: str, starts: list | None = None
    ) -> tuple[MethodTiming, list[TopSingularValues]]:
        """Time one method on all weights. Without a truth its own values are taken for it."""
        found, seconds = self.clock(lambda: top_singular_values_batch(weights, K, method, self.tol, starts))
        truth = [one.values for one in found] if truth is None else truth
        numbers = [w.numel() for w in weights]
        ratio = sum(n * one.passes for n, one in zip(numbers, found, strict=True)) / sum(numbers)
        failed = sum(not one.converged for one in found)
        blocks = ""
        if method == "krylov":
            counts = [one.passes // 2 for one, n in zip(found, numbers, strict=True) if n > max(numbers) / 4]
            blocks = f"{min(counts)}-{max(counts)}"
        error = max(_error(one.values, true) for one, true in zip(found, truth, strict=True))
        return MethodTiming(label, seconds, blocks, ratio, error, f"{failed} unconverged" if failed else ""), found

    def tracked(
        self, label: str, weights: list[Tensor], truth: list[Tensor], starts: list[TopSingularValues]
    ) -> MethodTiming:
        """Time following the values from earlier ones, without a certificate."""
        found, seconds = self.clock(lambda: track(weights, [one.subspace for one in starts], K))
        error = max(_error(one.values, true) for one, true in zip(found, truth, strict=True))
        return MethodTiming(label, seconds, "", 2.0, error)

    def arpack(
        self, label: str, weights: list[Tensor], truth: list[Tensor], starts: list | None, tol: float
    ) -> MethodTiming:
        """Time scipy's svds alone, without a check of what it returns."""
        passes = seconds = worst = 0.0
        broken = 0
        for i, (weight, true) in enumerate(zip(weights, truth, strict=True)):
            first = None if starts is None else starts[i].subspace[:, 0].numpy()

            def solve(weight: Tensor = weight, first: np.ndarray | None = first) -> tuple[np.ndarray, int, bool]:
                from scipy.sparse.linalg import ArpackError

                try:
                    if min(weight.shape) > K:
                        _, values, _, products = by_arpack(weight, K, tol, first, 0)
                        return values.astype(np.float64), products, False
                except ArpackError:
                    pass
                exact = top_singular_values(weight, K, "exact", self.tol)
                return exact.values.numpy(), exact.passes, min(weight.shape) > K

            (values, products, failed), spent = self.clock(solve)
            seconds += spent
            passes += products * weight.numel()
            broken += failed
            worst = max(worst, _error(torch.from_numpy(values), true))
        ratio = passes / sum(weight.numel() for weight in weights)
        return MethodTiming(label, seconds, "", ratio, worst, f"{broken} broke down, then exact" if broken else "")

    def full_svd(self, weights: list[Tensor]) -> tuple[float, tuple[int, int], float, float]:
        """Seconds for all weights, extrapolated by short^2 * long from one layer; that layer, its seconds, and the
        error of `exact` on it."""
        costs = [min(w.shape) ** 2 * max(w.shape) for w in weights]
        small = [i for i, c in enumerate(costs) if c <= max(costs) / 7] or [costs.index(min(costs))]
        middle = max(small, key=lambda i: costs[i])
        layer = weights[middle].double()
        _, seconds = self.clock(lambda: torch.linalg.svd(weights[middle], full_matrices=False))
        reference = torch.linalg.svdvals(layer).cpu()
        error = _error(top_singular_values(weights[middle], K, "exact", self.tol).values, reference[:K])
        return seconds * sum(costs) / costs[middle], (layer.shape[0], layer.shape[1]), seconds, error


def _error(values: Tensor, truth: Tensor) -> float:
    return float((values - truth).abs().max() / truth[0])


def run_comparison(
    shapes: Sequence[tuple[int, int]],
    kinds: Sequence[str],
    tol: float,
    device: str,
    seed: int = 0,
    title: str = "given shapes",
) -> list[MethodTiming]:
    """Run and print the whole comparison on weights of these shapes (out x rest); returns the lines printed."""
    bench = Bench(device, tol)
    generator = torch.Generator().manual_seed(seed)
    bases = [random_orthogonal(*shape, generator) for shape in shapes]
    total = sum(base.numel() for base in bases)
    bench.warm_up()
    bandwidth = bench.bandwidth()
    floor = 4 * total / bandwidth
    print(
        f"{title}: {len(bases)} weight matrices, {total / 1e6:.1f} million numbers, float32; top {K} to "
        f"{tol:g} of sigma_0\n"
        f"torch {torch.__version__}, {_device_name(bench.device)}, {torch.get_num_threads()} thread(s), seconds of "
        f"{'processor' if bench.uses_processor_time else 'wall'} time\n"
        f"memory: {bandwidth / 1e9:.1f} GB/s read, so reading the weights once takes {floor:.4f} s (the floor)"
    )
    full, shape, seconds, error = bench.full_svd([base.to(bench.device) for base in bases])
    print(
        f"full SVD: {full:.1f} s for all, extrapolated by rows^2 * columns from one layer of {shape[0]} x {shape[1]} "
        f"({seconds:.2f} s)\nexact against float64 LAPACK on that layer: {error:.1e}"
    )
    if bench.on_cpu:
        print(
            f"svds squares its tolerance before ARPACK sees it, so it is given the root of {tol:g}; nothing checks its "
            "values"
        )
    else:
        print("svds computes only on the CPU and is skipped on this device")
    lines = []
    for kind in kinds:
        lines += _one_kind(bench, kind, bases, floor, generator)
    return lines


def _one_kind(
    bench: Bench, kind: str, bases: list[Tensor], floor: float, generator: torch.Generator
) -> list[MethodTiming]:
    weights = [weight.to(bench.device) for weight in make_weights(kind, bases, generator)]
    print(f"\n{kind}: {DESCRIPTIONS[kind]}")
    exact, reference = bench.estimator("exact", weights, None, "exact")
    truth = [one.values for one in reference]
    cold, found = bench.estimator("auto cold", weights, truth, "auto")
    lines = [exact, cold, bench.estimator("krylov cold", weights, truth, "krylov")[0]]
    if bench.on_cpu:
        lines.append(bench.arpack("svds cold", weights, truth, None, bench.tol))
    _print_lines(lines, exact.seconds, floor)
    followed = track(weights, [one.subspace for one in found], K)  # as after earlier steps: with all its directions
    for step in STEP_SIZES:
        stepped = []
        for weight in weights:
            signs = torch.randint(0, 2, weight.shape, generator=generator, dtype=torch.int8)
            stepped.append(weight + step * (2 * signs.to(weight.device, weight.dtype) - 1))
        print(f"  after a step of {step:g} in every entry")
        exact, reference = bench.estimator("exact", stepped, None, "exact")
        truth = [one.values for one in reference]
        warm = bench.estimator("auto warm", stepped, truth, "auto", found)[0]
        after = [exact, warm, bench.estimator("krylov warm", stepped, truth, "krylov", found)[0]]
        after.append(bench.tracked("tracked", stepped, truth, followed))
        if bench.on_cpu:
            after.append(bench.arpack("svds with v0", stepped, truth, found, bench.tol))
        _print_lines(after, exact.seconds, floor)
        _print_goals(kind, warm, after, floor)
        lines += after
    return lines


def _print_lines(lines: list[MethodTiming], exact: float, floor: float) -> None:
    print("    method              seconds  exact/this  floors  blocks  bytes read  worst error")
    for line in lines:
        print(
            f"    {line.label:<18}{line.seconds:9.3f}{exact / line.seconds:12.2f}{line.seconds / floor:8.1f}"
            f"{line.blocks:>8}{line.bytes_ratio:12.1f}{line.worst_error:13.1e}  {line.unconverged}".rstrip()
        )


def _print_goals(kind: str, warm: MethodTiming, lines: list[MethodTiming], floor: float) -> None:
    goal = GOALS.get(kind, 1.0)
    for line in lines:
        if line.label.startswith("svds"):
            ratio = line.seconds / warm.seconds
            verdict = f"goal {goal:g}: {'met' if ratio >= goal else 'missed'}"
            print(f"    auto warm, certified: {ratio:.2f} times as fast as {line.label}, not certified ({verdict})")
    (tracked,) = (line for line in lines if line.label == "tracked")
    print(
        f"    tracked, not certified: {warm.seconds / tracked.seconds:.1f} times as fast as auto warm; its "
        f"{tracked.bytes_ratio:.0f} readings of the weights take at least {tracked.bytes_ratio * floor:.3f} s"
    )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return "CPU"


def options_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """The options of `run_comparison`, but for the shapes."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--kinds", nargs="+", choices=WEIGHT_KINDS, default=list(WEIGHT_KINDS))
    parser.add_argument("--tol", type=float, default=1e-5, help="relative to sigma_0 (default: 1e-5)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def run_options(
    parser: argparse.ArgumentParser, options: argparse.Namespace, shapes: Sequence[tuple[int, int]], title: str
) -> int:
    """Check the options, and run; returns the exit code."""
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device here")
    torch.set_num_threads(options.threads)
    run_comparison(shapes, options.kinds, options.tol, options.device, title=title)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = options_parser(
        "python -m spectra.bench", "The estimators on matrices of given shapes, timed side by side."
    )
    parser.add_argument(
        "shapes", nargs="*", type=_shape, default=list(SHAPES), metavar="ROWSxCOLUMNS", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    return run_options(parser, options, options.shapes, "given shapes")


def _shape(text: str) -> tuple[int, int]:
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdigit() and columns.isdigit() and int(rows) and int(columns)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, expected ROWSxCOLUMNS, for example 512x4608")
    return int(rows), int(columns)


if __name__ == "__main__":
    sys.exit(main())

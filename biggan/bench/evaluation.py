"""`python -m biggan.bench.evaluation`: samples per second and seconds per evaluation of a preset's generator."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from biggan.cli.app import EXIT_DONE, guarded

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.evaluation.evaluator import Weights
    from biggan.evaluation.generate import LatentSpec
    from biggan.networks.base import GeneratorNetwork


def main(argv: list[str] | None = None) -> int:
    """Measure and print a table. Returns the exit code: 0 done, 2 bad input."""
    return guarded("biggan.bench.evaluation", _bench, sys.argv[1:] if argv is None else argv, stopped="stopped.")


def _bench(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m biggan.bench.evaluation",
        description="Time sampling and evaluation of a preset's untrained generator, with the classifier's features.",
    )
    parser.add_argument("preset", nargs="?", default="digits", help="a preset; default: digits")
    parser.add_argument("--data-path", metavar="PATH", help="the preset's data")
    parser.add_argument("--samples", type=int, nargs="+", default=[1000, 10_000], metavar="N")
    arguments = parser.parse_args(argv)
    from biggan.cli.options import parse
    from biggan.evaluation.table import aligned

    options = [arguments.preset, *(["--data.path", arguments.data_path] if arguments.data_path else [])]
    for line in aligned(measure_evaluation(parse(options).config(), arguments.samples)):
        print(line)
    return EXIT_DONE


def _sample(sampler: GeneratorNetwork, draw: LatentSpec, count: int) -> None:
    from biggan.evaluation.generate import generate

    for _ in generate(sampler, draw, count):
        pass


def measure_evaluation(config: Config, counts: list[int]) -> list[dict[str, str]]:
    """Rows of `what`, wall `seconds`, this process's `CPU seconds`, and `samples/s` where they are samples."""
    import torch

    from biggan.evaluation.evaluator import Evaluator
    from biggan.evaluation.generate import LatentSpec
    from biggan.evaluation.scores import quick_scores
    from biggan.run.session import resolve_device, use_arithmetic
    from biggan.training.state import TrainingState

    use_arithmetic(config)
    device = resolve_device(config.device)
    state = TrainingState(config, device)
    evaluator = Evaluator.of_run(config, device=device)
    networks: dict[Weights, Any] = {"raw": state.G, "ema": state.ema.network}
    rows: list[dict[str, str]] = []

    def timed(what: str, images: int, work: Callable[[], object]) -> None:
        work()
        began, cpu = time.perf_counter(), time.process_time()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        rows.append(
            {
                "": what,
                "seconds": f"{seconds:.3f}",
                "CPU seconds": f"{cpu:.3f}",
                "samples/s": f"{images / seconds:,.0f}" if images else "",
            }
        )

    quick = config.eval.samples
    settings = {w: evaluator.settings(w, samples=quick, passes=config.eval.standing_passes) for w in networks}
    timed(
        f"in training: raw and averaged, {quick:,} samples each",
        0,
        lambda: [evaluator.scores(networks[w], settings[w], 1, quick_scores()) for w in networks],
    )
    full = evaluator.settings("ema", samples=counts[0], passes=100)
    timed("standing statistics, 100 passes", 0, lambda: evaluator.sampler(networks["ema"], full, None))
    sampler = evaluator.sampler(networks["ema"], full, None)
    for count in counts:
        own = evaluator.settings("ema", samples=count, passes=100)
        timed(f"sampling, {count:,}", count, partial(_sample, sampler, LatentSpec(config.latents), count))
        score = partial(evaluator.scores, networks["ema"], own, None)
        timed(f"biggan-eval, {count:,} samples, all scores", 0, score)
    return rows


if __name__ == "__main__":
    sys.exit(main())

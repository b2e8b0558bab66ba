"""`--ablate`: times each switch of `speed` on and off. Variants take turns in one run, so drift of the machine
cancels."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from biggan.bench.machine import device_facts, ignore, matrix_rate, open_bench_data, peak_of_tensors, synchronizer
from biggan.bench.measure import count_flop, one_step
from biggan.config import SpeedConfig
from biggan.errors import UserError, check_known

if TYPE_CHECKING:
    from biggan.config import Config
    from biggan.training.step import Updater

_Log = Callable[[str], None]

_SMALL = ["--regularizers.orthogonal_G=0", "--data.workers=0"]
CASES: dict[str, dict[str, list[str]]] = {
    "digits": {"cpu": [], "cuda": []},
    "cifar10": {"cpu": [*_SMALL, "--train.batch=8"], "cuda": [*_SMALL, "--train.batch=64"]},
    "imagenet128": {"cpu": [*_SMALL, "--train.batch=8", "--train.d_steps=1"], "cuda": [*_SMALL, "--train.batch=64"]},
}
"""Preset -> its options here. What does not grow with the batch is left out of small ones as far as it can be."""

_PLAIN, ALL, BUT, BESIDE = "plain", "all", "all but ", "bfloat16"
SWITCHES = [field.name for field in dataclasses.fields(SpeedConfig) if field.default is False]
SWITCHES.remove("compile")  # too slow to begin with to be one of many


def ablate(
    argv: Sequence[str], *, rounds: int, log: _Log, compiled: bool = False, only: Sequence[str] = ()
) -> dict[str, Any]:
    """Every case's variants; see `ablate_case`. `argv`: presets (all of `CASES` where none), options for all.

    Raises `UserError` as training would.
    """
    from biggan.cli.options import parse
    from biggan.run.session import resolve_device, use_arithmetic

    wanted = variants(compiled=compiled)
    for name in only:
        check_known(name, wanted, "variant in --only:")
    wanted = {name: speed for name, speed in wanted.items() if not only or name in (_PLAIN, *only)}
    found = []
    for preset, options in cases(argv):
        first = parse([preset, *options]).config()
        device = resolve_device(first.device)
        config = parse([preset, *CASES.get(preset, {}).get(device, []), *options]).config()
        config = dataclasses.replace(config, device=device, speed=SpeedConfig())
        use_arithmetic(config)
        said = functools.partial(_say, log, preset)
        found.append({"preset": preset, **ablate_case(config, wanted, rounds=rounds, log=said)})
    return {"report": "ablation", "cases": found}


def _say(log: _Log, preset: str, words: str) -> None:
    log(f"{preset}: {words}")


def cases(argv: Sequence[str], known: Sequence[str] = tuple(CASES)) -> Iterator[tuple[str, list[str]]]:
    """Each preset named before the first option, or all of `known`, with the options."""
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    for preset in argv[:count] or known:
        yield preset, list(argv[count:])


def one_case(argv: Sequence[str], known: str) -> tuple[str, list[str]]:
    """The one preset, or `known`, with the options. Raises `UserError` for several."""
    found = list(cases(argv, (known,)))
    if len(found) > 1:
        raise UserError(f"this report takes one preset, but {', '.join(preset for preset, _ in found)} are given.")
    return found[0]


def variants(*, compiled: bool = False) -> dict[str, SpeedConfig]:
    """Plain networks, each switch alone, all of them, all but each; and beside them a reduced precision.

    `compiled`: with `compile` alone and on top of all; it takes minutes a variant before the first step.
    """
    plain = SpeedConfig()
    everything = dataclasses.replace(plain, **dict.fromkeys(SWITCHES, True))  # type: ignore[arg-type]
    return {
        _PLAIN: plain,
        **{name: dataclasses.replace(plain, **{name: True}) for name in SWITCHES},  # type: ignore[arg-type]
        **({"compile": SpeedConfig(compile=True)} if compiled else {}),
        ALL: everything,
        **{
            f"{BUT}{name}": dataclasses.replace(everything, **{name: False})  # type: ignore[arg-type]
            for name in SWITCHES
        },
        **({f"{ALL} + compile": dataclasses.replace(everything, compile=True)} if compiled else {}),
        BESIDE: SpeedConfig(precision="bfloat16"),
        f"{ALL} + {BESIDE}": dataclasses.replace(everything, precision="bfloat16"),
    }


def ablate_case(config: Config, first: dict[str, SpeedConfig], *, rounds: int, log: _Log) -> dict[str, Any]:
    """One configuration with each of these variants, the plain networks among them.

    Of each variant: medians over `rounds` steps of wall seconds and of this process's CPU seconds, and medians over the
    rounds of plain's over the variant's in the same round. `clock` says by which of the two rates are given: "cpu" on
    one core, where another process's load disturbs it less, else "wall". Rates count the plain networks' operations,
    whatever a variant saves. `best` is the fastest of those in float32 that need no compiling.
    """
    rig = Rig(config)
    rate = matrix_rate(config, 2.0)
    log("counting")
    flop = rig.count()
    times = rig.rounds(first, rounds, log)
    clock = "cpu" if config.device == "cpu" and config.threads == 1 else "wall"
    summarize = functools.partial(_summary, config=config, clock=clock, flop=flop, rate=rate)
    results = {name: {**summarize(times, name), "peak_bytes": rig.peaks[speed]} for name, speed in first.items()}
    whole = [name for name, speed in first.items() if speed.precision == "float32" and not speed.compile]
    best = max(whole, key=lambda name: results[name]["faster"])
    return {
        **device_facts(config),
        "batch": config.train.batch,
        "d_steps": config.train.d_steps,
        "rounds": rounds,
        "clock": clock,
        "flop_step": flop,
        **rate,
        "best": best,
        "variants": results,
    }


class Rig:
    """One training state for each memory layout, and an updater for each variant: only switches alternate."""

    def __init__(self, config: Config) -> None:
        from biggan.data.loader import training_batches

        self.config, self.sync = config, synchronizer(config)
        self.source, _ = open_bench_data(config)
        self.batches = training_batches(config, self.source, 0)
        self.states: dict[bool, Any] = {}
        self.updaters: dict[SpeedConfig, Updater] = {}
        self.peaks: dict[SpeedConfig, int | None] = {}

    def updater(self, speed: SpeedConfig) -> Updater:
        """The variant's updater, its networks switched to it."""
        from biggan.networks.resampling import Resampling
        from biggan.training.state import TrainingState
        from biggan.training.step import Updater

        if speed not in self.updaters:
            config = dataclasses.replace(self.config, speed=speed)
            if speed.channels_last not in self.states:
                self.states[speed.channels_last] = TrainingState(config, config.device, initialize=False)
            self.updaters[speed] = Updater(config, self.states[speed.channels_last], ignore, ignore)
        updater = self.updaters[speed]
        for network in updater.state.networks().values():
            setattr(network, "batched_power_iteration", speed.batched_power_iteration)  # noqa: B010 - not a submodule
            for module in network.modules():
                if isinstance(resample := getattr(module, "resample", None), Resampling):
                    resample.use(speed)
        return updater

    def count(self) -> int:
        """Operations of a step of the plain networks."""
        return count_flop(self.config, self.source, self.updater(SpeedConfig()))["flop_step"]

    def rounds(self, chosen: dict[str, SpeedConfig], rounds: int, log: _Log) -> _Times:
        """Timings of each variant, one a round."""
        for name, speed in chosen.items():
            log(f"{name}: a first step")
            self.warm(speed)
        times: _Times = {name: [] for name in chosen}
        for index in range(1, rounds + 1):
            names = list(chosen) if index % 2 else list(reversed(chosen))
            for name in names:
                times[name].append(self.time(chosen[name]))
                log(f"round {index} of {rounds}, {name}: {times[name][-1].wall:.3g} s")
        return times

    def warm(self, speed: SpeedConfig) -> int | None:
        """One step, in which kernels are chosen. Returns the bytes that its tensors need beyond what is held."""
        updater = self.updater(speed)
        for network in updater.state.networks().values():
            network.zero_grad(set_to_none=True)  # what an earlier step has left is not held before this one
        with peak_of_tensors(updater.config) as peak:
            one_step(self.config, updater, self.batches, self.sync)
        self.peaks[speed] = peak[0] if peak else None
        return self.peaks[speed]

    def time(self, speed: SpeedConfig, least: float = 0.5) -> Timing:
        """One step, data excluded; short ones are repeated for `least` seconds, and a mean taken."""
        updater, count, cpu, wall = self.updater(speed), 0, 0.0, 0.0
        self.sync()
        while count == 0 or wall < least:
            start, start_cpu = time.perf_counter(), time.process_time()
            wait, _, _ = one_step(self.config, updater, self.batches, self.sync)
            wall += time.perf_counter() - start - wait
            cpu += time.process_time() - start_cpu - (wait if self.config.data.workers == 0 else 0.0)
            count += 1
        return Timing(wall / count, cpu / count)


@dataclasses.dataclass(frozen=True)
class Timing:
    """A step's wall seconds, and CPU seconds of this process."""

    wall: float
    cpu: float


_Times = dict[str, list[Timing]]


def _ratio(times: _Times, of: str, to: str, clock: str) -> float:
    """How many times faster `to` is than `of`, the median over rounds."""
    return median(getattr(a, clock) / getattr(b, clock) for a, b in zip(times[of], times[to], strict=True))


def _summary(
    times: _Times, name: str, *, config: Config, clock: str, flop: int, rate: dict[str, float]
) -> dict[str, Any]:
    wall, cpu = (median(getattr(t, which) for t in times[name]) for which in ("wall", "cpu"))
    seconds = cpu if clock == "cpu" else wall
    return {
        "step_seconds": wall,
        "cpu_seconds": cpu,
        "images_per_second": config.train.batch * config.train.d_steps / seconds,
        "faster": _ratio(times, _PLAIN, name, clock),
        "faster_wall": _ratio(times, _PLAIN, name, "wall"),
        "of_matrix_rate": flop / seconds / rate["matrix_flop_per_second"],
    }

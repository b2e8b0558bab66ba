"""Series of known truth for the detectors: kind x noise x size, each from its seed.

Sizes are those of recorded runs: a single FID's logarithm scatters by 0.35 around the level of a healthy digits run,
its spread by 0.06, D's loss by 0.1 to 0.3; sigma0 is estimated to 1e-5, and moves by 0.01 between measurements.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.random import Generator

Noise = Callable[[Generator, int], np.ndarray]


def heavy(random: Generator, n: int) -> np.ndarray:
    """Student's t with 2.5 degrees of freedom: outliers of ten deviations are common."""
    return 0.7 * random.standard_t(2.5, n)


def gaussian(random: Generator, n: int) -> np.ndarray:
    return random.standard_normal(n)


def correlated(random: Generator, n: int) -> np.ndarray:
    """Of one deviation, with a correlation of 0.6 from step to step."""
    values = random.standard_normal(n)
    for i in range(1, n):
        values[i] = 0.6 * values[i - 1] + 0.8 * values[i]
    return values


def walk(random: Generator, n: int) -> np.ndarray:
    return np.cumsum(random.standard_normal(n)) / 3


def seeded(*facts: object) -> Generator:
    """A generator that depends on these facts alone."""
    return np.random.default_rng(zlib.crc32(repr(facts).encode()))


@dataclass
class Evaluations:
    """A run's scores; `well_until` is the last evaluation at which all was well, by the values without noise."""

    steps: np.ndarray
    spread: np.ndarray
    fid: np.ndarray
    well_until: int | None


FID_NOISES = ("gaussian", "lognormal", "heavy")
HEALTHY, FALLING = ("healthy", "oscillating"), ("x3", "x10", "slow", "frozen D", "modes only", "dip")


def evaluations(kind: str, noise: str, size: float, every: int, seed: int, *, last: int = 8000) -> Evaluations:
    """Of 8,000 steps. Falls begin between steps 3,000 and 5,000: at once to 3 or 10 times the FID ("x3", "x10"); after
    a softening to 1.9 times over 800 steps to 6 times within 600 ("slow"); as after freezing D; of the spread alone
    ("modes only"); or for five evaluations ("dip"). "oscillating": by 1.5 to 4 times, each 8 to 24 evaluations."""
    random = seeded(kind, noise, size, every, seed)
    t = np.arange(every, last + 1, every).astype(float)
    fid = random.uniform(10, 40) * (1 + 12 * np.exp(-t / 120) + 0.8 * np.exp(-t / 800))
    spread = np.where(t < 150, 1.6, 0.85 * (1 - 0.6 * np.exp(-t / 300)))
    onset = random.integers(3000, 5000)
    since = np.maximum(t - onset, 0.0)
    match kind:
        case "oscillating":
            period, depth = random.uniform(8, 24) * every, random.uniform(np.log(1.5), np.log(4))
            fid *= np.exp(depth * (1 - np.cos(2 * np.pi * t / period)) / 2)
        case "x3":
            fid *= np.where(since > 0, 3, 1)
        case "x10":
            fid *= np.where(since > 0, 10, 1)
            spread *= np.where(since > 0, 0.5, 1)
        case "slow":
            softening = np.clip((t - onset + 800) / 800, 0, 1)
            fid *= np.exp(np.log(1.9) * softening + np.log(6 / 1.9) * np.clip(since / 600, 0, 1))
            spread *= 1 - 0.45 * np.clip(since / 1200, 0, 1)
        case "frozen D":
            fid += 400 * (1 - np.exp(-since / 100))
            spread = np.maximum(0.03, spread * np.exp(-since / 200))
        case "modes only":
            fid *= np.where(since > 0, 1.3, 1)
            spread = np.maximum(0.06, spread * np.exp(-since / 400))
        case "dip":
            inside = (since > 0) & (since <= 5 * every)
            fid *= np.where(inside, 6, 1)
            spread *= np.where(inside, 0.7, 1)
        case "never got modes":
            spread = np.where(t < 150, 1.6, np.maximum(0.05, 0.3 * np.exp(-t / 400)))
            fid = 160 + 1500 * np.exp(-t / 200)
    well_until = None
    if kind in FALLING:
        usual = np.median(spread[(t > 1500) & (t < 2900)])
        ill = (t > 1000) & ((fid > 2 * np.minimum.accumulate(fid)) | (spread <= 0.5 * usual))
        well_until = int(t[np.flatnonzero(ill)[0] - 1])
    draw = heavy if noise == "heavy" else gaussian
    error = size * draw(random, len(t))
    noisy = fid * (np.maximum(1 + error, 0.3) if noise == "gaussian" else np.exp(error))
    return Evaluations(t.astype(int), spread * np.exp(0.06 * gaussian(random, len(t))), noisy, well_until)


LOSS_NOISES: dict[str, Noise] = {"gaussian": gaussian, "heavy": heavy, "correlated": correlated}
QUIET_LOSSES = ("stationary", "decay to 0", "bursts", "offset drift", "recovers")
STEPS_OF_LOSS = {"0.1 to 3": (0.1, 3.0), "0.5 to 1.5": (0.5, 1.5), "2 to 3": (2.0, 3.0), "1 to 300": (1.0, 300.0)}
RAMPS_OF_LOSS = {"0.5 to 10 over 300": 300, "0.5 to 10 over 1000": 1000}


def with_bursts(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The values with bursts of 3 to 8 steps, by 0.5 to 2, every 120 or so."""
    values, step = values.copy(), 0
    while step < len(values):
        step += 10 + int(random.exponential(120))
        values[step : step + int(random.integers(3, 9))] += random.uniform(0.5, 2)
    return values


def losses(kind: str, noise: str, size: float, seed: int, *, last: int = 3000) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps, D's losses, and the last step before the rise. "bursts": of 3 to 8 steps, by 0.5 to 2, every 120 or so, on
    a loss that falls towards 0, as while D memorizes against a G that stands still."""
    random = seeded(kind, noise, size, seed)
    t = np.arange(1, last + 1)
    onset = int(random.integers(800, 1600))
    since = np.maximum(t - onset, 0)
    if kind in STEPS_OF_LOSS:
        before, after = STEPS_OF_LOSS[kind]
        level = np.where(since > 0, after, before)
    elif kind in RAMPS_OF_LOSS:
        level = 0.5 + 9.5 * np.clip(since / RAMPS_OF_LOSS[kind], 0, 1)
    else:
        level = {
            "stationary": np.full(last, 1.8),
            "decay to 0": 0.03 + 2 * np.exp(-t / 500),
            "bursts": 0.1 + 2 * np.exp(-t / 500),
            "offset drift": 1 + t / last + 0.3 * np.sin(2 * np.pi * t / 900),
            "recovers": 0.3 + 1.6 * (1 - np.exp(-since / 500)),
        }[kind]
    scale = size * np.clip(level, 0.05, 1) if kind in ("decay to 0", "bursts") else size
    values = level + scale * LOSS_NOISES[noise](random, last)
    return t, with_bursts(values, random) if kind == "bursts" else values, onset


SIGMA_NOISES: dict[str, Noise] = {"gaussian": gaussian, "heavy": heavy, "walk": walk}


@dataclass
class Sigmas:
    """sigma0 of three layers, of which "a" is what the kind says and the others grow steadily."""

    steps: np.ndarray
    layers: dict[str, np.ndarray]
    spikes: list[int] = field(default_factory=list)
    """The steps at which spikes begin, in any layer."""
    explodes: bool = False


def sigmas(kind: str, noise: str, size: float, seed: int, *, every: int = 20, n: int = 200) -> Sigmas:
    """Two hundred measurements. "power": as t^0.8; "cubic": its logarithm as t^3, a growth that gets faster by and by;
    "jump, then NaN": layer "a" jumps and turns NaN while it is high, and later "b" has two spikes."""
    random = seeded(kind, noise, size, seed)
    t = np.arange(1, n + 1) * float(every)
    share = t / t[-1]

    def spike(at: float) -> np.ndarray:
        since = np.maximum(share - at, 0)
        return np.where(share >= at, random.uniform(0.35, 0.7) * 0.5 ** (since / 0.03), 0.0)

    logs = {
        "steady": 0 * share,
        "power": 0.8 * np.log1p(t / 300),
        "exponential": 2 * share,
        "cubic": 4 * share**3,
        "explodes": 0.3 * share + np.where(share > 0.6, 10 * (share - 0.6), 0),
        "spikes": 0.4 * share + spike(0.35) + spike(0.6) + spike(0.85),
        "new level": 0.4 * share + np.where(share >= 0.6, 0.5, 0),
        "jump, then NaN": 0.4 * share + np.where(share >= 0.3, 0.6, 0),
    }
    found = Sigmas(t.astype(int), {}, explodes=kind in ("cubic", "explodes"))
    begins = {"spikes": (0.35, 0.6, 0.85), "new level": (0.6,), "jump, then NaN": (0.3, 0.6, 0.85)}.get(kind, ())
    found.spikes = [int(at * t[-1]) for at in begins]
    other = 0.4 * share + spike(0.6) + spike(0.85) if kind == "jump, then NaN" else 0.3 * share
    for name, log in {"a": logs[kind], "b": other, "c": 0.3 * share}.items():
        found.layers[name] = np.exp(log + size * SIGMA_NOISES[noise](random, n))
    if kind == "jump, then NaN":
        found.layers["a"][int(0.32 * n) :] = np.nan
    return found


SIGMA_KINDS = ("steady", "power", "exponential", "cubic", "explodes", "spikes", "new level", "jump, then NaN")


CALM_LOSSES = (
    "stationary", "decay", "decay to 0", "bursts", "cosine", "staircase down", "wanders", "slow rise", "negative",
    "sawtooth of epochs", "warm-up",
)  # fmt: skip
BAD_LOSSES = ("jump", "jump at little noise", "spike that stays", "all is lost", "blows up")


def any_loss(kind: str, noise: str, size: float, seed: int, *, last: int = 3000) -> tuple[np.ndarray, np.ndarray, int]:
    """Steps, a loss of order 1 with noise of `size`, and the last step before it goes wrong (of calm ones: none)."""
    random = seeded("any", kind, noise, size, seed)
    t = np.arange(1, last + 1)
    share = t / last
    onset = int(random.integers(1000, 2400))
    since = np.maximum(t - onset, 0)
    falling = 0.4 + 2.2 * np.exp(-t / 250)
    level = {
        "stationary": np.full(last, 1.8),
        "decay": falling,
        "decay to 0": 0.003 + 2 * np.exp(-t / 300),
        "bursts": 0.1 + 2 * np.exp(-t / 500),
        "cosine": 0.5 + 2 * np.exp(-t / 300) + 0.05 * np.cos(np.pi * share),
        "staircase down": 2.5 - 0.5 * (share > 0.3) - 0.5 * (share > 0.6),
        "wanders": 0.5 + 0.02 * np.cumsum(random.standard_normal(last)),
        "slow rise": 0.7 + 2.5 * share,
        "negative": -3 + 3 * np.exp(-t / 400),
        "sawtooth of epochs": falling + 0.1 * (0.5 - (t % 200) / 200),
        "warm-up": np.where(t < 200, 1 + t / 100, 0.5 + 2.5 * np.exp(-(t - 200) / 200)),
        "jump": falling + 0.9 * (since > 0),
        "jump at little noise": falling + 0.4 * (since > 0),
        "spike that stays": falling + 1.5 * np.where(since > 0, np.exp(-since / 150), 0),
        "all is lost": falling + 2.2 * np.clip(since / 300, 0, 1),
        "blows up": falling + np.where(since > 0, np.expm1(np.minimum(since, 500) / 60), 0),
    }[kind]
    if kind == "jump at little noise":
        size = min(size, 0.1)
    scale = size * np.clip(level, 0.003, 1) if kind in ("decay to 0", "bursts") else size
    values = level + scale * LOSS_NOISES[noise](random, last)
    return t, with_bursts(values, random) if kind == "bursts" else values, onset

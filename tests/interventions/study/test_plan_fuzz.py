"""Plans, claims and configurations from people who type anything: a plan comes out, or one sentence."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biggan.config import Config, from_dict
from biggan.config.presets import read_yaml
from biggan.errors import UserError
from interventions.changes import make_change, with_fields
from interventions.compare.claims.read import read_claims
from interventions.study.expand import Layout
from interventions.study.plan import read_plan

GOOD = {
    "title": "Freezing",
    "seeds": 2,
    "figures": [20],
    "settings": {"samples.every": 0},
    "entries": {
        "freeze-G": {"changes": [{"freeze": "G"}]},
        "later": {"changes": [{"lr": "G=x2", "from": 0.5, "until": 0.9}]},
        "r1": {"from": "scratch", "changes": [{"r1": 10}]},
        "lr-{g}": {"each": {"g": ["1e-5", "1e-4"]}, "changes": [{"lr": "G={g}"}]},
        "sigma": {"changes": [{"sigma": {"strength": 0.1, "target": 1, "network": "D"}}]},
    },
}
BAD = [None, True, -1, 0, 10**40, 1.5, float("nan"), float("inf"), "", "x", "xinf", "{", "[a", [], [1], [[]], {}]
BAD += [{1: 2}, {"a": {"b": {"c": []}}}, {None: None}, "a" * 3000, "{g}{g}", -(10**400)]


def plan_of(tmp_path: Path, text: str | bytes) -> None:
    """Read a plan and lay its entries out; only `UserError` may come of it."""
    path = tmp_path / "plan.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        plan = read_plan(str(path))
    except UserError:
        return
    layout = Layout(Config(), "base", 40, 100)
    for entry in plan.entries[:8]:
        with contextlib.suppress(UserError):
            layout.job(entry, check=False)


def broken(rng: random.Random, value: Any, deep: float = 0.75) -> Any:
    """A copy with one value, or one key, replaced by something else."""
    if isinstance(value, (dict, list)) and value and rng.random() < deep:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        made = dict(value) if isinstance(value, dict) else list(value)
        if isinstance(made, dict) and rng.random() < 0.15:
            made[rng.choice([1, None, True, 2.5, "x"])] = made.pop(key)
        else:
            made[key] = broken(rng, value[key])
        return made
    return rng.choice(BAD)


def fuzz(tmp_path: Path, seed: int, count: int) -> None:
    rng = random.Random(seed)
    for _ in range(count):
        text = yaml.safe_dump(broken(rng, GOOD), sort_keys=False)
        if rng.random() < 0.2:
            at = rng.randrange(len(text))
            text = (
                text[:at]
                + rng.choice(["[", "]", "{", ":", "\t", "&a ", "*a", "!!python/none", "\x00", "'"])
                + text[at:]
            )
        plan_of(tmp_path, text)


def test_the_sound_plan_is_one(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(GOOD))
    assert len(read_plan(str(tmp_path / "plan.yaml")).entries) == 6


def test_a_fuzzed_plan_gives_a_plan_or_a_sentence(tmp_path: Path) -> None:
    fuzz(tmp_path, 16, 50)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(8))
def test_thousands_of_fuzzed_plans(tmp_path: Path, seed: int) -> None:
    fuzz(tmp_path, seed, 600)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: x\nentries: {}", "`seeds` of the plan plan is 'x', expected a whole number from 0"),
        ("seeds: 1" + "0" * 40 + "\nentries: {}", "`seeds` .* expected a whole number from 0"),
        ("seeds: true\nentries: {}", "`seeds` .* is True"),
        ("figures: 3\nentries: {}", "`figures` of the plan plan is 3, expected a list"),
        ("settings: 3\nentries: {}", "`settings` of the plan plan is 3, expected fields"),
        ("entries: {a: {each: 3, changes: [freeze: D]}}", "`each` of entry a .* is 3"),
        ("entries: {a: {each: {g: 3}, changes: [freeze: D]}}", "`g` of `each` of entry a .* is 3, expected a list"),
        ("entries: {a: {changes: 3}}", "`changes` of entry a .* is 3, expected a list"),
        ("entries: {a: {changes: [{3: D}]}}", "a change of entry a .* names 3"),
        ("3: 4\nentries: {}", "unknown key of the plan plan: '3'"),
        ("entries: " + "[" * 3000, "nested too deeply"),
        ("a: &a [*a]\nentries: {}", "contains itself"),
        ("entries: &a {a: *a}", "contains itself"),
        ("title: 2024-13-45\nentries: {}", "not YAML"),
        ("title: 2024-12-04\nentries: {}", "write it in quotes"),
        (b"\xff\xfe\x00", "not a text in UTF-8"),
        (
            "entries:\n  l-{a}-{b}-{c}: {each: {a: &n [" + ", ".join(map(str, range(40))) + "], b: *n, c: *n}, "
            "changes: [lr: '{a}']}",
            "more than 2,000 runs",
        ),
    ],
)
def test_what_is_wrong_with_a_plan_is_said(tmp_path: Path, text: str | bytes, said: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=said):
        read_plan(str(path))


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch", "xinf"), ("batch", "inf"), ("d-steps", "xnan"), ("d-steps", "x1e400"), ("r1", "inf"), ("r1", "/0"),
     ("lr", "xinf"), ("margin", "-inf"), ("sigma", "{strength: .inf, target: 1}"), ("clamp", "inf"),
     ("set", {"field": "loss.margin", "value": float("inf")}), ("set", {"field": "train.batch", "value": "wide"})],
)  # fmt: skip
def test_changes_to_what_is_not_finite_are_refused(name: str, value: Any) -> None:
    config = Config()
    with pytest.raises(UserError):
        with_fields(config, make_change(name, value).fields(config))


@pytest.mark.parametrize("text", ["a: &a [*a]", "steps: &a {b: *a}", "{[1]: 2}", "steps: 2024-13-45", "- &a [*a]"])
def test_configurations_that_contain_themselves_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="in here: "):
        read_yaml(text, "here")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    section=st.sampled_from(["model", "train", "optim", "eval", "data", "checkpoint", "steps", "out"]), value=ANYTHING
)
def test_any_data_is_a_configuration_or_a_sentence(section: str, value: Any) -> None:
    try:
        found = from_dict({section: value})
    except UserError:
        return
    assert isinstance(found, Config)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(value=ANYTHING, key=st.sampled_from(["entries", "expect", "size", "trend", "measure", "text", "premise"]))
def test_any_data_is_a_list_of_claims_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, value: Any, key: str
) -> None:
    path = tmp_path_factory.mktemp("claims") / "claims.yaml"
    claim = {"claim": "1", "text": "t", "place": "p", "definition": "d", "measure": "survived", "expect": "more"}
    path.write_text(yaml.safe_dump([claim | {key: value}], allow_unicode=False))
    with contextlib.suppress(UserError):
        read_claims(path)

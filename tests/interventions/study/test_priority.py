"""What a study runs and in which order, and that every shipped plan suits the presets it is made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from biggan.config import Config
from biggan.errors import UserError
from interventions.changes import make_change, with_fields
from interventions.compare.claims import Claim, read_claims
from interventions.study.branching import study_config
from interventions.study.expand import Layout
from interventions.study.plan import read_plan, shipped_plans
from interventions.study.priority import choose, study_entries
from interventions.study.reproduce import Layouts, Study

CLAIMS = [
    Claim("10a", "text", "G.1", "definition", entries=("lr-G-x2",)),
    Claim("5a", "text", "4.2", "definition", entries=("r1-10",)),
    Claim("5b", "text", "4.2, F", "definition", entries=("r1-10",)),
    Claim("6c", "text", "4.2", "definition", entries=("l2-D-1e-4",)),
]


def test_what_most_claims_need_comes_first_and_equal_changes_are_one_entry() -> None:
    entries = study_entries([], CLAIMS)
    assert [one.name for one in entries[:3]] == ["r1-10", "lr-G-x2", "l2-D-1e-4"]
    assert entries[0].claims == ("5a", "5b")
    assert set(entries[0].plans) >= {"section-4", "appendix-f", "appendix-i"}
    names = [one.name for one in entries]
    assert len(names) == len(set(names))
    assert "l2" not in names  # the same as l2-D-1e-4, which a claim names
    assert "appendix-i-beta1-D-0.5" in names  # from scratch; appendix-g's is a branch
    assert names.index("freeze-G") < names.index("sigma-target") < names.index("table1-row2") < names.index("data-half")


def test_only_takes_places_claims_and_plans() -> None:
    entries = study_entries([], CLAIMS)

    def chosen(*words: str) -> list[str]:
        return [one.name for one in choose(entries, words, CLAIMS)]

    assert chosen("G.1") == ["lr-G-x2"]
    assert chosen("G") == ["lr-G-x2"]
    assert chosen("4.2") == ["r1-10", "l2-D-1e-4"]
    assert chosen("F", "10a") == ["r1-10", "lr-G-x2"]
    assert chosen("5") == ["r1-10"]
    assert chosen("data-size") == ["data-half", "data-double", "data-all"]
    assert len(chosen()) == len(entries)
    with pytest.raises(UserError, match=r"--only G\.3 is not a place.*Places: 4\.2, F, G\.1.*Claims: 10a.*table-1"):
        chosen("G.3")


def test_what_a_claim_is_compared_with_is_run_too() -> None:
    claims = read_claims()
    chosen = [one.name for one in choose(study_entries(), ["T3"], claims)]
    assert sorted(chosen) == ["table1-row8", "table1-row9"]


def test_every_entry_that_a_claim_names_is_in_a_plan() -> None:
    names = {one.name for one in study_entries()}
    missing = {name for one in read_claims() for name in one.needs} - names
    assert not missing


def layout(preset: str) -> tuple[Config, Layout]:
    config = study_config(preset)
    return config, Layout(config, "base", 100, config.steps)


def fields_of(config: Config, layout: Layout, name: str, plan: str) -> Config:
    entry = next(one for one in read_plan(plan).entries if one.name == name)
    job = layout.job(entry)
    assert job is not None
    for timed in job.timed():
        config = with_fields(config, timed.change.fields(config))
    return config


def test_the_rows_of_table_1_are_relative_to_the_base_run() -> None:
    config, base = layout("digits-collapse")
    first = fields_of(config, base, "table1-row1", "table-1")
    assert (first.train.batch, first.model.shared_embedding, first.model.skip_z) == (4, False, False)
    seventh = fields_of(config, base, "table1-row7", "table-1")
    assert (seventh.train.batch, seventh.model.ch_G, seventh.model.ch_D, seventh.model.skip_z) == (32, 12, 12, True)
    assert fields_of(config, base, "table1-row9", "table-1").regularizers.orthogonal_G == 1e-4
    assert fields_of(config, base, "data-half", "data-size").data.train_per_class == 30
    assert fields_of(config, base, "data-all", "data-size").data.train_per_class is None


def test_a_field_is_set_relative_to_its_value() -> None:
    config = study_config("digits-collapse")
    assert make_change("set", "model.ch_G=x1.5").fields(config) == {"model.ch_G": 12}
    assert make_change("set", "loss.margin=/2").fields(config) == {"loss.margin": 0.5}
    with pytest.raises(UserError, match="whole number"):
        make_change("set", "model.ch_G=/3").fields(config)


def test_section_4_has_each_setting_with_both_kinds_of_normalization() -> None:
    names = [one.name for one in read_plan("section-4").entries]
    pairs = ["sigma-target", "sigma-ratio", "clamp-value", "clamp-ratio"]
    for preset, other, same in (("digits-collapse", "sn", "without-sn"), ("digits", "without-sn", "sn")):
        _, base = layout(preset)
        entries = {one.name: one for one in read_plan("section-4").entries}
        made = [base.job(entries[name]) for name in pairs]
        for name in pairs:
            assert f"{name}-{other}" in names
            assert base.job_or_reason(entries[f"{name}-{other}"], made, lenient=False)[0] is not None
            job, why = base.job_or_reason(entries[f"{name}-{same}"], made, lenient=False)
            assert job is None
            assert "the same as" in why


def test_what_a_base_run_cannot_have_is_a_note() -> None:
    _, base = layout("digits")  # on all images, so that there is no number to halve
    entries = {one.name: one for one in read_plan("data-size").entries}
    job, why = base.job_or_reason(entries["data-half"], [], lenient=True)
    assert job is None
    assert "data.train_per_class is null" in why
    with pytest.raises(UserError, match="train_per_class is null"):
        base.job_or_reason(entries["data-half"], [], lenient=False)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["digits", "digits-collapse"])
def test_every_shipped_plan_resolves_against_the_presets(preset: str, tmp_path: Path) -> None:
    entries = tuple(study_entries())
    experiments = set(shipped_plans()) - {"rescue"}
    assert {plan for one in entries for plan in one.plans} == experiments
    layouts = Layouts(Study(tmp_path, preset, study_config(preset), (1,), entries, 100, 0.1))
    jobs = [*layouts.scratch(1), *layouts.branches(1, 500)]
    assert len(jobs) + len(layouts.notes) == len(entries) + 4  # plain, control, two seeds
    assert len(layouts.notes) < 20

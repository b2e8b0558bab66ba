"""Branches a run from a checkpoint with one thing changed, and compares what happened (Appendix G).

The public names below are imported on first use, so that `biggan-intervene --help` does not wait for torch.
"""

from __future__ import annotations

from spectra.public import lazy_names

_HOMES = {
    "interventions.changes": ["CHANGES", "Change", "make_change"],
    "interventions.branch.timeline": ["Timed"],
    "interventions.branch.parent": ["Parent", "find_parent"],
    "interventions.branch.branch": ["Branch", "continue_branch", "plan_branch", "run_branch"],
    "interventions.branch.verify_control": ["compare_with_parent"],
    "interventions.branch.step_replay": ["ReplayedStep", "replay_step"],
    "interventions.study.plan": ["read_plan", "shipped_plans"],
    "interventions.study.expand": ["resolve"],
    "interventions.study.rescue": ["plan_rescue"],
    "interventions.compare.ranking": ["rank_rescue"],
    "interventions.compare.claims.judge": ["Verdict", "judge_claims"],
    "interventions.compare.collect": ["compare_plan", "compare_plans", "compare_runs"],
    "interventions.compare.runs_table": ["table"],
    "interventions.compare.warning": ["warning_signs"],
    "interventions.compare.statistics": ["effects", "seed_variation"],
    "interventions.compare.lifetimes": ["survival", "survival_tests"],
    "interventions.compare.figures.registry": ["COMPARISON_FIGURES"],
    "interventions.compare.report": ["write_report"],
    "interventions.compare.terminal": ["print_report"],
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)

"""Branches a run from a checkpoint with one thing changed, and compares what happened (Appendix G).

The public names below are imported on first use, so that `biggan-intervene --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "interventions.changes": ["CHANGES", "Change", "make_change"],
    "interventions.branch.timeline": ["Timed"],
    "interventions.branch.parent": ["Parent", "find_parent"],
    "interventions.branch.branch": ["Branch", "continue_branch", "plan_branch", "run_branch"],
    "interventions.branch.verify_control": ["compare_with_parent"],
    "interventions.branch.step_replay": ["ReplayedStep", "replay_step"],
    "interventions.study.plan": ["read_plan", "shipped_plans"],
    "interventions.study.expand": ["resolve"],
    "interventions.compare.collect": ["compare_plan", "compare_runs", "table"],
    "interventions.compare.statistics": ["effects", "seed_variation"],
    "interventions.compare.lifetimes": ["survival", "survival_tests"],
    "interventions.compare.figures": ["COMPARISON_FIGURES"],
    "interventions.compare.report": ["print_report", "write_report"],
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from spectra.version import package_version

        return package_version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'interventions' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

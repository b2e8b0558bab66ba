"""The paper's claims, each judged on a study: supported, contradicted, undecided, or why not to be had."""

from interventions.compare.claims.judge import Verdict, judge_claims, verdicts_table
from interventions.compare.claims.read import Claim, read_claims

__all__ = ["Claim", "Verdict", "judge_claims", "read_claims", "verdicts_table"]

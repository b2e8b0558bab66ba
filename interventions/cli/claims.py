"""`biggan-intervene claims`: which of the paper's claims a study supports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from biggan.cli.app import EXIT_DONE, Parser
from interventions.cli.options import PROGRAM

if TYPE_CHECKING:
    from interventions.compare.claims import Verdict
    from interventions.compare.collect import Comparison


def claims(argv: list[str]) -> int:
    """`biggan-intervene claims STUDY...`: a verdict for each claim, and with --warnings the early warning signs."""
    parser = Parser(
        prog=f"{PROGRAM} claims",
        description="Judge the paper's claims on one study or several, recorded ones (thinned) among them. Each claim "
        "has one measure (docs/claims.md says how it came to be); tests are exact and corrected together.",
    )
    parser.add_argument("studies", nargs="+", metavar="STUDY", help="the directory of a study or of another plan")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list of objects, with every field of a verdict")
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown, for an appendix")
    parser.add_argument("--warnings", action="store_true", help="also print how well each recorded series warns")
    parser.add_argument("--claims", metavar="FILE", help="another file of claims, in the form of claims.yaml")
    options = parser.parse_args(argv)

    from interventions.compare.claims import judge_claims, read_claims
    from interventions.compare.collect import compare_plans

    chosen = read_claims(options.claims)
    comparison = compare_plans(options.studies)
    verdicts = judge_claims(comparison, chosen)
    if options.json:
        print(json.dumps([one.as_json() for one in verdicts], indent=1, allow_nan=False))
        return EXIT_DONE
    told = [one for one in verdicts if one.verdict != "not run"]
    if options.markdown:
        from interventions.compare.verdict_words import markdown_table

        print(markdown_table(told))
        return EXIT_DONE
    _print(comparison, verdicts, told, options.warnings)
    return EXIT_DONE


def _print(comparison: Comparison, verdicts: Sequence[Verdict], told: Sequence[Verdict], warnings: bool) -> None:
    from interventions.compare.terminal import claims_table, report_console
    from interventions.compare.verdict_words import summary
    from interventions.compare.warning import warning_signs
    from interventions.compare.warning_words import warnings_table

    console = report_console()
    if told:
        console.print(claims_table(told))
    console.print(summary(verdicts))
    if waiting := [one.claim for one in verdicts if one.verdict == "not run"]:
        how = f"`{PROGRAM} reproduce --only CLAIM` runs what one needs"
        console.print(f"not run: {', '.join(waiting)}; {how}", markup=False)
    if warnings:
        console.print(warnings_table(warning_signs(comparison)))
    for line in comparison.notes:
        console.print(f"note: {line}", markup=False)

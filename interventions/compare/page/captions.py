"""What each figure on the page shows, in plain words."""

from __future__ import annotations

CAPTIONS = {
    "Effects": (
        "In brackets: the first claim that needs the entry. One mark for each base run. Left: how many steps longer "
        "than the control with the same noise a run went on without a collapse. An open triangle is a bound: only "
        "one of the two collapsed while it was observed. Right: the final FID as a share of the control's. Grey: the "
        "range of unchanged runs under other seeds; an effect inside it means nothing. Black: the mean with its 95 % "
        "t-interval (of ratios: on the logarithm), where it is known."
    ),
    "Survival": (
        "Kaplan-Meier estimates, one run for each base run; the control is grey in every panel. Small upright marks: "
        "censored runs, whose collapse would not have been seen any more. Shaded: the pointwise 95 % interval "
        "(log-log), which is not defined before the first collapse, nor after the last run collapsed."
    ),
    "Survival, from scratch": "As above, for runs trained from scratch, beside the unchanged runs from scratch.",
    "Base runs": (
        "The unchanged base runs from their beginning. Dashed: the step at which the collapse began. Dotted: the "
        "branching point. Below: what the generator drew, each row one class, each column another latent. Lost "
        "spread shows as rows of equal pictures."
    ),
    "Figure 20": (
        "The largest three singular values of each layer, as in Figures 20 to 26 of the paper, from the branching "
        "point on; dark lines are the first layers, light ones the last. Left: unchanged. Beside it, on the same "
        "scales: the entries of this base run that collapsed first, in the middle, and last. Dashed: begin of the "
        "collapse."
    ),
    "Figure 27": (
        "Frobenius norms, losses, and the variance of all gradient norms (running medians), as in Figures 27 and 28 "
        "of the paper, of the same runs."
    ),
    "Figure 20, from scratch": "As Figure 20, for runs from scratch.",
    "Figure 27, from scratch": "As Figure 27, for runs from scratch.",
    "FID": "Raw weights. Blue: the entry's runs, one for each base run. Grey: unchanged runs of the same base runs.",
    "Spread within a class": "As a share of the spread of real images; 0 means one picture for each class.",
    "D's loss": "Real and fake parts added; a running mean over 25 steps. The paper's range is 0 to 3.",
    "Largest sigma_0 in G": "The largest first singular value of any layer, before Spectral Normalization.",
    "Largest sigma_0 in D": "The largest first singular value of any layer, before Spectral Normalization.",
}

_SPECTRA, _STATISTICS = "singular values of every layer", "Frobenius norms, losses and gradients"
PLAIN_TITLES = {
    "Figure 20": _SPECTRA,
    "Figure 27": _STATISTICS,
    "Figure 20, from scratch": _SPECTRA,
    "Figure 27, from scratch": _STATISTICS,
}
"""What stands beside the titles that are numbers of the paper."""

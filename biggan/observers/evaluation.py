"""Scores during training, with fixed latents, of raw and averaged weights; detects a collapse of the raw generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biggan.evaluation.bias import bias_warning, check_samples
from biggan.evaluation.evaluator import Evaluator, Settings, Weights
from biggan.evaluation.scores import quick_scores
from biggan.observers.collapse import Collapse
from biggan.permissions import check_features
from biggan.training.observer import Observer
from spectra.detect import Finding

if TYPE_CHECKING:
    from collections.abc import Callable

    from biggan.training.trainer import Trainer


class Evaluation(Observer):
    """Every `eval.every` steps: one `evaluation` event for each kind of weights, and a `collapse` (an alarm) or
    `recovered`
    event when one is detected. The event of raw weights contains the last healthy evaluation (`well_until`).

    The generator is evaluated under standing statistics of a few forwards (`eval.standing_passes`), made on a copy:
    the state, its modes and the global random state stay as they are. It must come before the observers that act upon
    its events: the monitor, which records the scores, and the checkpoint store, which keeps the best.
    """

    def __init__(
        self, report: Callable[[str], None] = print, remember: Callable[[str], None] = lambda text: None
    ) -> None:
        """`report` is called with a text when something takes a while (training the classifier features), and with
        warnings; `remember` with what to say of the scores once more at the end."""
        self.report, self.remember = report, remember

    def on_start(self, trainer: Trainer) -> None:
        """Prepare features and reference if an evaluation is due in this session, and restore the detector's
        history."""
        self.trainer, self.config = trainer, trainer.config.eval
        start, every = trainer.state.step, self.config.every
        self.evaluator: Evaluator | None = None
        if not every or trainer.config.steps // every == start // every:
            return
        check_features(self.config.features)
        self.evaluator = Evaluator.of_run(
            trainer.config,
            self.config.features,
            weights=self.config.weights,
            reference=self.config.reference,
            report=self.report,
            device=trainer.config.device,
        )
        if self.evaluator.warning:
            self.remember(self.evaluator.warning)
        check_samples(self.evaluator.reference, self.config.samples)
        if warning := bias_warning(self.evaluator.reference, self.config.samples, "--eval.samples", quick_scores()):
            self.report(warning)
        if self.config.samples < 2 * trainer.config.model.classes:
            self.report(
                f"eval.samples is {self.config.samples:,}, fewer than two for each of {trainer.config.model.classes:,} "
                f"classes: the spread within classes is not known, and collapse is judged by the FID alone"
            )
        self.detector = Collapse()
        settings = self._settings(self.evaluator, "raw").as_dict()
        for event in trainer.run.events_that_hold("evaluation", start):
            if event["settings"] == settings:
                self._detect(event["step"], from_json(event["scores"]))

    def after_step(self, step: int, stats: Mapping[str, float]) -> None:
        """Evaluate where it is due."""
        if self.evaluator is None or step % self.config.every:
            return
        state = self.trainer.state
        kinds: tuple[Weights, Weights] = ("raw", "ema")
        for weights in kinds:
            network = state.G if weights == "raw" else state.ema.network
            settings = self._settings(self.evaluator, weights)
            scores = self.evaluator.scores(network, settings, step, quick_scores())
            said: dict[str, Any] = {"scores": to_json(scores), "settings": settings.as_dict()}
            finding = None
            if weights == "raw":
                finding = self._detect(step, scores)
                said["well_until"] = self.detector.well_until
            self.trainer.emit("evaluation", weights=weights, **said)
            if finding is not None:
                self.trainer.emit(finding.kind, onset=finding.onset, details=finding.details)
            if finding is not None and finding.kind == "collapse":
                self.trainer.emit("alarm", cause="collapse", onset=finding.onset)

    def _settings(self, evaluator: Evaluator, weights: Weights) -> Settings:
        return evaluator.settings(weights, samples=self.config.samples, passes=self.config.standing_passes)

    def _detect(self, step: int, scores: Mapping[str, float]) -> Finding | None:
        return self.detector.update(step, scores["spread_share"], scores["fid"])


def to_json(value: Any) -> Any:
    """Numbers, and lists and mappings of them, for an event or a file. NaN and Inf become strings, since JSON has
    neither."""
    if isinstance(value, Mapping):
        return {name: to_json(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def from_json(scores: Mapping[str, Any]) -> dict[str, float]:
    """The scores of an `evaluation` event, NaN and Inf as numbers again."""
    return {name: float(value) for name, value in scores.items()}

"""Registers what is about GANs with `spectra`: its entry point group `spectra.extensions` calls `register`."""

from __future__ import annotations

from collections.abc import Iterator

from biggan.observers.collapse_of_run import CollapseOfSamples
from biggan.observers.discriminator_alarms import DiscriminatorDeath, DiscriminatorLossJumps
from biggan.observers.memorizing_discriminator import DiscriminatorMemorizes
from spectra.detect.losses import SEARCHED_ELSEWHERE
from spectra.detect.registry import DETECTORS, find_detectors
from spectra.draw.charts import MARKED_EVENTS, SCALAR_CHARTS
from spectra.networks.checkpoint_files import FORMATS

FID_TAG = "1-training/FID_.*"
"""What TensorBoard calls the FIDs (`biggan.observers.tensorboard`)."""


class AlarmCauses:
    """The causes that an `alarm` event may have: the kinds of findings of every detector that raises alarms."""

    def __iter__(self) -> Iterator[str]:
        register()
        kinds = dict.fromkeys(kind for detector in find_detectors() if detector.alarms for kind in detector.kinds)
        return iter(kind for kind in kinds if kind != "recovered")  # the end of a collapse is no alarm


ALARM_CAUSES = AlarmCauses()


def register() -> None:
    """Register the detectors, charts and marks of a GAN, and the format of the trainer's checkpoints."""
    DETECTORS.update(
        loss_jumps=DiscriminatorLossJumps,
        dead_discriminator=DiscriminatorDeath,
        memorization=DiscriminatorMemorizes,
        collapse=CollapseOfSamples,
    )
    # What a rise of the losses of two networks against each other means, the detectors above judge.
    SEARCHED_ELSEWHERE["loss/D_real"] = ("loss/D_real", "loss/D_fake", "loss/G")
    SCALAR_CHARTS.update(
        {
            "FID": FID_TAG,
            "accuracies": "(D/)?accuracy/.*",
            "AUC of D's output (train_val 0.5: no memorization)": "D/auc/.*",
            "gap of D's mean output, train - val, in its spread": "D/gap/.*",
        }
    )
    MARKED_EVENTS.update(collapse="darkred", recovered="green", memorization="purple")
    FORMATS["biggan"] = ("G.", "D.")

"""An exact, resumable, observable BigGAN trainer (Brock, Donahue, Simonyan, ICLR 2019).

The public names below are imported on first use, so that `biggan-train --help` does not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectra.public import lazy_names

if TYPE_CHECKING:  # else a type checker would take the file train.py for it
    from biggan.run.python import train as train

_HOMES = {
    "biggan.config": ["Config", "ModelConfig", "differences", "from_dict", "to_dict"],
    "biggan.errors": ["UserError"],
    "biggan.networks": ["FAMILIES", "Family", "build_networks"],
    "biggan.networks.base": ["DiscriminatorNetwork", "GeneratorNetwork"],
    "biggan.networks.generator": ["Generator"],
    "biggan.networks.discriminator": ["Discriminator"],
    "biggan.objective": ["GRADIENT_PENALTIES", "LATENTS", "LOSSES", "WEIGHT_PENALTIES"],
    "biggan.training.state": ["TrainingState"],
    "biggan.run.folding": ["fold_spectral_norm"],
    "biggan.run.checkpoint": ["Checkpoint", "newest_checkpoint", "read_checkpoint", "save_checkpoint"],
    "biggan.data.sources.opening": ["open_source"],
    "biggan.data.loader": ["training_batches"],
    "biggan.run.session": ["open_new", "open_resumed"],
    "biggan.run.python": ["TrainedRun", "train"],
    "biggan.training.trainer": ["Trainer"],
    "biggan.training.observer": ["Observer"],
    "biggan.run.retention": ["CheckpointStore"],
    "biggan.evaluation.pictures.grids": ["class_images", "draw_grid", "load_generator"],
    "biggan.evaluation.standing": ["sampling_copy"],
    "biggan.evaluation.features.registry": ["FEATURES", "load_features"],
    "biggan.evaluation.registry": ["SCORES", "Score"],
    "biggan.evaluation.scores": ["compute_scores"],
    "biggan.evaluation.evaluator": ["Evaluator"],
    "biggan.observers.evaluation": ["Evaluation"],
    "biggan.observers.collapse": [
        "Collapse",
        "CollapseJudgement",
        "CollapseThresholds",
        "collapse",
        "judge_collapse",
    ],
    "biggan.observers.collapse_of_run": ["collapse_of", "same_settings", "settings_of"],
    "biggan.observers.dead_discriminator": ["DeadDiscriminator", "dead_discriminator"],
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES, {"data": "biggan.data"})

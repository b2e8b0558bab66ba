"""The fields of the configuration whose values are names in a registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from biggan.config import Config, flatten, to_dict
from biggan.data.sources.registry import SOURCES
from biggan.errors import check_known
from biggan.networks import FAMILIES
from biggan.objective import GRADIENT_PENALTIES, LATENTS, LOSSES, WEIGHT_PENALTIES
from biggan.observers.extension import ALARM_CAUSES
from spectra.extensions import load_extensions
from spectra.monitor.probes import PROBES

CHOICES: dict[str, Iterable[str]] = {
    "model.family": FAMILIES,
    "data.source": SOURCES,
    "loss.name": LOSSES,
    "latents.distribution": LATENTS,
    "regularizers.weight_penalties_G": WEIGHT_PENALTIES,
    "regularizers.weight_penalties_D": WEIGHT_PENALTIES,
    "regularizers.gradient_penalties": GRADIENT_PENALTIES,
    "spectra.probes": PROBES,
    "train.alarm_causes": ALARM_CAUSES,
}
"""Field -> the names that it, or each entry of its list or mapping, may have."""


def check_names(config: Config) -> None:
    """Raise `UserError` for a name that is in no registry, with the nearest right one."""
    load_extensions()
    values = flatten(to_dict(config))
    for field, known in CHOICES.items():
        value = values[field]
        for name in value if isinstance(value, (Mapping, list)) else [] if value is None else [value]:
            check_known(name, known, field)

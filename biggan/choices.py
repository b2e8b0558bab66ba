"""The fields of the configuration whose values are names in a registry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from biggan.config import Config, flatten, to_dict
from biggan.errors import UserError, check_known
from biggan.networks import FAMILIES
from biggan.objective import GRADIENT_PENALTIES, LATENTS, LOSSES, WEIGHT_PENALTIES

CHOICES: dict[str, Iterable[str]] = {
    "model.family": FAMILIES,
    "loss.name": LOSSES,
    "latents.distribution": LATENTS,
    "regularizers.weight_penalties_G": WEIGHT_PENALTIES,
    "regularizers.weight_penalties_D": WEIGHT_PENALTIES,
    "regularizers.gradient_penalties": GRADIENT_PENALTIES,
}
"""Field -> the names that it, or for a mapping each of its keys, may have."""


def check_names(config: Config) -> None:
    """Raise `UserError` for a name that is in no registry, with the nearest right one."""
    values = flatten(to_dict(config))
    for field, known in CHOICES.items():
        for name in values[field] if isinstance(values[field], Mapping) else [values[field]]:
            check_known(name, known, field)
    if config.spectra.probes is not None:
        from spectra.monitor.probes import find_probes

        try:
            find_probes(config.spectra.probes)
        except ValueError as error:
            raise UserError(f"spectra.probes: {error}.") from error

"""The fitted checks of a guarded model as entries of its file, and back, each bound to how the classifier read pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from photopic.core.errors import ModelError
from photopic.guard._clean import check_reading
from photopic.guard.amplified_norms import Amplified, ordered
from photopic.guard.guardfile import GuardFileError, SavedCheck, SavedGuard
from photopic.guard.open_set.guard import OpenSetGuard
from photopic.guard.scaling_consistency import Fitted, ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier

BACKDOOR, OPEN_SET = "scaling_consistency", "open_set"  # the kinds of checks in a file
READING = "reading"  # among the settings of a check: how the classifier read pictures


@dataclass(frozen=True)
class FittedOn:
    """What a guard was fitted on, besides the weights.

    Attributes:
        size: (height, width) of an image; None where no check asks.
        reading: How the classifier read pictures and called classes; None in files of before.
    """

    size: tuple[int, int] | None
    reading: Mapping[str, Any] | None


def saved_checks(checks: Mapping[str, Any], fitted_on: FittedOn | None) -> list[SavedCheck]:
    """The entries of fitted checks.

    Args:
        checks: By kind.
        fitted_on: None where nothing was fitted yet.

    Raises:
        ModelError: If one is not fitted.
    """
    found = []
    if (wall := checks.get(BACKDOOR)) is not None:
        if wall.fitted is None or fitted_on is None or fitted_on.size is None:
            raise ModelError(f"{wall.model.name}: the guard is not fitted; call fit with clean images first")
        fitted = {key: value for key, value in asdict(wall.fitted).items() if key != "log_doubt" or value is not None}
        state = {"config": asdict(wall.config), "fitted": fitted, "size": list(fitted_on.size)}
        found.append(SavedCheck(BACKDOOR, state, {}))
    if (known := checks.get(OPEN_SET)) is not None:
        found.append(SavedCheck(OPEN_SET, *known.state()))
    if fitted_on is None or fitted_on.reading is None:  # a file of before did not say, and keeps its bytes
        return found
    return [replace(check, settings={**check.settings, READING: fitted_on.reading}) for check in found]


def restored_checks(name: str, saved: SavedGuard, model: Classifier) -> tuple[dict[str, Any], FittedOn]:
    """The checks that ``saved_checks`` took apart, around the same model.

    Args:
        name: What messages call the file.
        saved: Its content.
        model: The classifier, whose weights are the file's.

    Raises:
        GuardFileError: If a check is of another kind or there twice, or the model reads pictures otherwise.
        DataError: If the state of a check is not one of its kind.
    """
    checks: dict[str, Any] = {}
    for each in saved.checks:
        if each.kind in checks or each.kind not in (BACKDOOR, OPEN_SET):
            raise GuardFileError(f"{name}: expected checks {BACKDOOR} and {OPEN_SET}, each once, found {each.kind}")
        settings = dict(each.settings)
        if (reading := settings.pop(READING, None)) is not None:
            check_reading(name, reading, model)
        of_state = _backdoor if each.kind == BACKDOOR else OpenSetGuard.of_state
        checks[each.kind] = of_state(model, settings, each.arrays)
    sizes = [tuple(each.settings["size"]) for each in saved.checks if each.kind == BACKDOOR]
    return checks, FittedOn(sizes[0] if sizes else None, saved.checks[0].settings.get(READING))


def _backdoor(model: Classifier, settings: Any, arrays: Mapping[str, np.ndarray]) -> ScalingConsistency:
    """The check that gave this state: the order of the layers is watched again, on a blank picture of the size it was."""
    try:
        config, fitted = (_with_tuples(settings[key]) for key in ("config", "fitted"))
        wall = ScalingConsistency(model, ScalingConsistencyConfig(**config))
        found = Fitted(**fitted)
        height, width = settings["size"]
        blank = np.zeros((1, int(height), int(width), 3), np.uint8)
        order, layers = ordered(model, blank, as_registered=wall.config.compat == "published-code")
        if layers != found.layers or not all(1 <= size <= len(layers) for size in found.sizes):
            raise ValueError(f"normalisations {found.layers[:2]}")
    except (TypeError, KeyError, ValueError) as error:
        raise GuardFileError(
            f"{BACKDOOR}: expected the settings of a guard of {model.name}, found others ({error})"
        ) from error
    wall.fitted = replace(found, threshold=float(found.threshold))
    wall._amplified = Amplified(model, order, layers, float(found.omega))
    return wall


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

"""The fitted checks of a guarded model as entries of its file, and back, each bound to how the classifier read pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from photopic.core.errors import ModelError
from photopic.guard._clean import check_reading
from photopic.guard._scaling_scores import Fitted
from photopic.guard.amplified_norms import Amplified, ordered
from photopic.guard.guardfile import GuardFileError, SavedCheck, SavedGuard
from photopic.guard.open_set.guard import OpenSetGuard
from photopic.guard.scaling_consistency import ScalingConsistency, ScalingConsistencyConfig
from photopic.models.classifier import Classifier

BACKDOOR, OPEN_SET = "scaling_consistency", "open_set"  # the kinds of checks in a file
READING = "reading"  # among the settings of a check: how the classifier read pictures
SHAPE = "shape"  # and the shape of one, where it is not (height, width, 3)


@dataclass(frozen=True)
class FittedOn:
    """What a guard was fitted on, besides the weights.

    Attributes:
        shape: Of an image, as ``shape_of`` gives it; None in files of before without a check for triggers.
        reading: How the classifier read pictures and called classes; None in files of before.
    """

    shape: tuple[int, ...] | None
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
        if wall.fitted is None or fitted_on is None or fitted_on.shape is None:
            raise ModelError(f"{wall.model.name}: the guard is not fitted; call fit with clean images first")
        fitted = {key: value for key, value in asdict(wall.fitted).items() if key != "log_doubt" or value is not None}
        state = {"config": asdict(wall.config), "fitted": fitted, "size": list(fitted_on.shape[:2])}
        found.append(SavedCheck(BACKDOOR, state, {}))
    if (known := checks.get(OPEN_SET)) is not None:
        found.append(SavedCheck(OPEN_SET, *known.state()))
    if fitted_on is None or fitted_on.reading is None:  # a file of before did not say, and keeps its bytes
        return found
    added: dict[str, Any] = {READING: fitted_on.reading}
    if fitted_on.shape is not None and fitted_on.shape[2:] != (3,):  # (height, width, 3) goes without saying
        added[SHAPE] = list(fitted_on.shape)
    return [replace(check, settings={**check.settings, **added}) for check in found]


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
    shape: tuple[int, ...] | None = None
    for each in saved.checks:
        if each.kind in checks or each.kind not in (BACKDOOR, OPEN_SET):
            raise GuardFileError(f"{name}: expected checks {BACKDOOR} and {OPEN_SET}, each once, found {each.kind}")
        settings = dict(each.settings)
        own = settings.pop(SHAPE, None)
        if own is None and each.kind == BACKDOOR and isinstance(settings.get("size"), list):
            own = [*settings["size"], 3]
        shape = shape if own is None else _shape(name, own)
        if (reading := settings.pop(READING, None)) is not None:
            check_reading(name, reading, model, shape or (1, 1, 3))
        if each.kind == BACKDOOR:
            checks[each.kind] = _backdoor(model, settings, shape)
        else:
            checks[each.kind] = OpenSetGuard.of_state(model, settings, each.arrays)
    return checks, FittedOn(shape, saved.checks[0].settings.get(READING))


def _shape(name: str, found: Any) -> tuple[int, ...]:
    if (
        not isinstance(found, list)
        or len(found) not in (2, 3)
        or not all(type(each) is int and each > 0 for each in found)
    ):
        raise GuardFileError(f"{name}: expected the shape of a picture, found {found!r}; fit the guard again")
    return tuple(found)


def _backdoor(model: Classifier, settings: Any, shape: tuple[int, ...] | None) -> ScalingConsistency:
    """The check that gave this state: the order of the layers is watched again, on a blank picture like those of the fit."""
    try:
        config, fitted = (_with_tuples(settings[key]) for key in ("config", "fitted"))
        wall = ScalingConsistency(model, ScalingConsistencyConfig(**config))
        found = Fitted(**fitted)
        if shape is None:
            raise KeyError("size")
        order, layers = ordered(
            model, [np.zeros(shape, np.uint8)], as_registered=wall.config.compat == "published-code"
        )
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

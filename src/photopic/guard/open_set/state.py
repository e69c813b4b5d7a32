"""A fitted detector as JSON values and arrays, and back, with every name and shape checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from photopic.core.errors import DataError
from photopic.guard.open_set._common import OpenSetDetector


def state_of(detector: OpenSetDetector) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Parameters, without the head, and learned numbers as JSON values; learned arrays apart.

    Args:
        detector: A fitted one.

    Raises:
        DataError: If a parameter is no JSON value.

    Example:
        >>> from photopic.guard.open_set import KNN
        >>> state_of(KNN().fit([[1.0, 0.0], [0.0, 1.0]]))[0]["width"]
        2
    """
    parameters = {name: value for name, value in detector.get_params().items() if name != "head"}
    for name, value in parameters.items():
        if not isinstance(value, str | bool | int | float | None):
            raise DataError(f"{type(detector).__name__}: {name}: expected a plain value to save, found {value!r}")
    numbers = {name: float(getattr(detector, name)) for name, shape in detector.learned.items() if not shape}
    arrays = {name: np.asarray(getattr(detector, name), float) for name, shape in detector.learned.items() if shape}
    about = {"parameters": parameters, "numbers": numbers, "offset": detector.offset_, "width": detector.n_features_in_}
    return about, arrays


def detector_of(
    kind: type[OpenSetDetector], about: Any, arrays: Mapping[str, np.ndarray], head: Any = None
) -> OpenSetDetector:
    """The detector that ``state_of`` took apart.

    Args:
        kind: Its class.
        about: Its JSON values.
        arrays: Its arrays.
        head: The classifier's last layer.

    Raises:
        DataError: If a field, a name, a shape or a number is not what the class learns.

    Example:
        >>> from photopic.guard.open_set import KNN
        >>> first = KNN().fit([[1.0, 0.0], [0.0, 1.0]])
        >>> detector_of(KNN, *state_of(first)).predict([[1.0, 0.0]])
        array([1])
    """
    name = kind.__name__
    if not isinstance(about, dict) or sorted(about) != ["numbers", "offset", "parameters", "width"]:
        raise DataError(f"{name}: expected numbers, offset, parameters and width, found other fields")
    parameters, numbers = about["parameters"], about["numbers"]
    expected = set(kind._get_param_names()) - {"head"}
    if not isinstance(parameters, dict) or set(parameters) != expected:
        raise DataError(f"{name}: expected the parameters {', '.join(sorted(expected))}, found others")
    detector = kind(**parameters | ({"head": head} if "head" in kind._get_param_names() else {}))
    asked = {each for each, shape in kind.learned.items() if not shape}
    if not isinstance(numbers, dict) or set(numbers) != asked or set(arrays) != set(kind.learned) - asked:
        raise DataError(f"{name}: expected the learned {', '.join(sorted(kind.learned)) or 'nothing'}, found others")
    sizes = {"width": about["width"], "one": 1, "two": 2}
    if type(sizes["width"]) is not int or sizes["width"] < 1:
        raise DataError(f"{name}: width: expected a whole number, found {sizes['width']!r}")
    for each, values in arrays.items():
        shape = kind.learned[each]
        fits = values.ndim == len(shape) and values.dtype == np.float64
        fits = fits and all(
            sizes.setdefault(axis, size) == size for axis, size in zip(shape, values.shape, strict=True)
        )
        if not fits or not np.isfinite(values).all():
            found = f"{values.dtype} {values.shape}"
            raise DataError(f"{name}: {each}: expected finite float64 of shape ({', '.join(shape)}), found {found}")
        setattr(detector, each, values)
    for each, number in {**numbers, "offset_": about["offset"]}.items():
        if type(number) is not float or not np.isfinite(number):
            raise DataError(f"{name}: {each}: expected a finite number, found {number!r}")
        setattr(detector, each, number)
    detector.n_features_in_ = sizes["width"]
    return detector

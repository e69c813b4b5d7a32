"""Every example of a docstring runs and prints what it says; those that need a model or a folder are marked ``+SKIP``."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import nn

import photopic

MODULES = [each.name for each in pkgutil.walk_packages(photopic.__path__, "photopic.") if "__main__" not in each.name]
AT_HAND = {"np": np, "torch": torch, "nn": nn}  # what an example may use without importing it


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_right(name: str) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    found = doctest.testmod(import_module(name), extraglobs=AT_HAND, optionflags=flags)
    assert not found.failed


def test_a_wrong_example_is_seen() -> None:
    example = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, None)
    assert doctest.DocTestRunner().run(example, out=lambda text: None).failed == 1

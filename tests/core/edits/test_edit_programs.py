"""Random programs over edits of mixed kinds: after each step the model is what its edits say, at the end it is the base again.

``PHOTOPIC_PROGRAMS=10000 pytest tests/core/edits/test_edit_programs.py`` runs more of them.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photopic.core.edits import Edit, EditStack, compose
from photopic.core.errors import EditError
from photopic.core.fingerprint import fingerprint
from tests.core.small import (
    BASE,
    HOOK_KINDS,
    IDS,
    WEIGHT_KINDS,
    Net,
    assert_state,
    content,
    made,
    state_after,
)

COUNT = int(os.environ.get("PHOTOPIC_PROGRAMS", "100"))
ACTIONS = ("load", "load", "unload", "enable", "disable", "weight", "pattern", "applied", "compose", "fingerprint")
weights = st.sampled_from([0.0, 1.0, 1.0, 0.5, -1.5, 0.3])
chosen = st.tuples(st.sampled_from(WEIGHT_KINDS + HOOK_KINDS), st.integers(0, 60))
step = st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 5), weights)


@pytest.mark.timeout(0 if COUNT > 100 else 300)
@settings(max_examples=COUNT, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.lists(chosen, min_size=1, max_size=6),
    st.lists(step, min_size=1, max_size=8),
)
def test_every_program_ends_at_the_bytes_it_began_with(
    dtype: torch.dtype, specs: list[tuple[str, int]], program: list[tuple[str, int, int, float]]
) -> None:
    model = Net().to(dtype)
    before, parameter, digest = content(model), model.one.weight, fingerprint({"m": model}, "net").digest
    edits, stack = [made(*spec) for spec in specs], EditStack({"m": model})
    for action, one, other, weight in program:
        _take(stack, edits, action, one, other, weight, model)
        _compare(stack, model, dtype)
    stack.clear()
    assert content(model) == before and model.one.weight is parameter and model.tied.weight is parameter
    assert fingerprint({"m": model}, "net").digest == digest
    assert not model.one._forward_hooks and not model.two._forward_hooks


def _take(stack: EditStack, edits: list[Edit], action: str, one: int, other: int, weight: float, model: Net) -> None:
    edit, names = edits[one % len(edits)], stack.names()
    name = names[other % len(names)] if names else None
    if action == "load":
        stack.load(edit, weight=weight, overlap="last")
    elif action == "fingerprint":
        assert stack.fingerprint().digest == fingerprint({"m": Net().to(model.one.weight.dtype)}, "net").digest
    elif action == "applied":
        with stack.applied(edit, edits[other % len(edits)], weight=weight, overlap="last"):
            _compare(stack, model, model.one.weight.dtype)
    elif action == "compose":
        stack.load(compose(edit, edits[other % len(edits)], overlap="first"), weight=weight, overlap="last")
    elif name is not None and action == "pattern":
        first = next((n for n in next(each for each in stack.list() if each.name == name).edit.touched()), None)
        stack.set_weights({name: {first: weight} if first else weight})
    elif name is not None:
        act: dict[str, Any] = {
            "unload": lambda: stack.unload(name),
            "enable": lambda: stack.enable(name),
            "disable": lambda: stack.disable(name),
            "weight": lambda: stack.set_weights({name: weight}),
        }
        act[action]()


def _compare(stack: EditStack, model: Net, dtype: torch.dtype) -> None:
    assert_state(model, state_after([(each.edit, each.weight_at) for each in stack.list()], dtype))


def test_the_network_of_the_programs_is_changed_by_every_kind_and_refuses_what_overlaps() -> None:
    for kind in WEIGHT_KINDS:
        model = Net()
        before = content(model)
        with EditStack({"m": model}).applied(made(kind, 1)):
            assert content(model) != before, kind
    for kind in HOOK_KINDS:
        model = Net()
        before = model(IDS)
        with EditStack({"m": model}).applied(made(kind)):
            assert not torch.equal(model(IDS), before), kind
        assert torch.equal(model(IDS), before)
    stack = EditStack({"m": Net()})
    stack.load(made("delta", 1))
    with pytest.raises(EditError, match="both touch"):
        stack.load(made("values-32", 1))
    assert BASE.digest == stack.fingerprint().digest

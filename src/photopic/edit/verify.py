"""Whether an edit does to a model what it says and nothing else: the checks behind ``photopic verify``.

What every touched tensor has to become is computed here from the base and the edit, and not by the code that applies edits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import torch
from torch import Tensor, nn

from photopic.core.config import Flags
from photopic.core.edits import (
    Edit,
    EditStack,
    TokenEmbedding,
)
from photopic.core.edits.positions import Write, first_names
from photopic.core.edits.runtime_tokens import input_embedding
from photopic.core.errors import EditError
from photopic.core.events import Event, Steps
from photopic.core.fingerprint import fingerprint, named_tensors
from photopic.core.method import method
from photopic.core.results import Verdict
from photopic.core.view import Section, Table, View
from photopic.edit._common import called, labels
from photopic.models.handle import Handle


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What, in a few words.
        passed: Whether it holds.
        detail: What was found.
    """

    name: str
    passed: bool
    detail: str


def verify_view(verdict: Verdict) -> View:
    """One row a check."""
    rows = [[each["name"], "ok" if each["passed"] else "failed", each["detail"]] for each in verdict.evidence["checks"]]
    title = f"{verdict.evidence['edit']} on {verdict.evidence['model']}"
    return View(title, [Section(title, [Table(["check", "", "found"], rows)])], lead=verdict.reason)


@method(
    examples=(
        "Example: photopic verify bear.edit emoji-diffusion",
        "For a program: photopic verify bear.edit ./model --json",
    ),
    view=verify_view,
)
def verify(
    edit: Edit,
    model: Annotated[Handle, Flags("MODEL", default="emoji-diffusion")],
    *,
    names: Annotated[Sequence[str] | None, Flags()] = None,
) -> Steps[Verdict]:
    """Apply an edit to a model, check every tensor, revert it and compare the model with itself before.

    Every entry the edit touches must hold what the edit says, every other byte must be the base's, and after reverting all must.
    The model's files are only read. Leaves with status 0 if every check holds, 1 if one fails, 2 on trouble, such as an edit made
    for another model.

    Args:
        edit: An edit file.
        model: A bundled model, a folder with a pipeline, dual encoder or classifier, or a hub id.
        names: What to call the edit; its words by default.

    Returns:
        Accepted if every check passed; the checks are its evidence.

    Raises:
        EditError: If the edit was made for another base or does not fit.
        ModelError: If another edit is loaded.

    Example:
        >>> verify(load("bear.edit"), model).accepted  # doctest: +SKIP
        True
    """
    label = labels([edit], names)[0]
    checks: list[Check] = []
    with called(label):
        for check in checks_of(edit, model.edits):
            checks.append(check)
            yield Event("checking", len(checks))
    failed = [check.name for check in checks if not check.passed]
    reason = f"failed: {', '.join(failed)}" if failed else f"all {len(checks)} checks hold"
    evidence = {"edit": label, "model": model.name, "checks": [asdict(check) for check in checks]}
    return Verdict(not failed, reason, evidence)


def checks_of(edit: Edit, stack: EditStack) -> Iterator[Check]:
    """The checks of ``verify``, one by one, on the stack of any model or module.

    Args:
        edit: What to check.
        stack: Of the model, with no edit loaded.

    Yields:
        One `Check` after the other.

    Raises:
        EditError: If the edit was made for another base or does not fit, or another edit is loaded.
    """
    if stack.names():
        raise EditError(
            f"verify: expected {stack.name} without edits, found {', '.join(stack.names())}; unload them first"
        )
    tensors = named_tensors(stack.modules)
    digest, before, hooks = fingerprint(stack.modules, stack.name).digest, _hashes(tensors), _hooks(edit, stack)
    vocabularies = {name: tokenizer.get_vocab() for name, tokenizer in stack.tokenizers.items()}
    expected = _expected(edit, tensors)
    with stack.applied(edit):
        same = edit.base.digest == digest
        yield Check(
            "base", True, f"{stack.name} ({digest[:12]}), " + ("byte for byte" if same else "another precision")
        )
        after = _hashes(named_tensors(stack.modules))
        if expected:
            yield _touched(edit, expected, after)
        yield _untouched(before.keys() - expected.keys(), before, after)
        if edit.tokens:
            yield _words(edit, stack)
        if hooks:
            added = {name: count - hooks[name] for name, count in _hooks(edit, stack).items()}
            yield _none_of(
                [n for n, count in added.items() if count < 1],
                "hooks",
                f"{', '.join(list(hooks)[:3])}{' ...' if len(hooks) > 3 else ''}",
            )
    digest_after, reverted = fingerprint(stack.modules, stack.name).digest, _hashes(named_tensors(stack.modules))
    changed = sorted(name for name in before if reverted.get(name) != before[name])
    yield _none_of(changed, "reverted: tensors", f"{len(before):,} of {len(before):,}, the base's bytes again")
    yield Check("reverted: digest", digest == digest_after, f"{digest[:12]} before, {digest_after[:12]} after")
    if edit.tokens or hooks:
        left = [name for name, known in vocabularies.items() if stack.tokenizers[name].get_vocab() != known]
        left += [name for name, count in _hooks(edit, stack).items() if count != hooks[name]]
        yield _none_of(left, "reverted: words, hooks", "as before")


def _expected(edit: Edit, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What each touched tensor has to be, as a hash; a shared one under all its names. Loading refuses what is not there."""
    first = first_names(tensors)
    found: dict[str, str] = {}
    for shared in sorted({first[name] for name in edit.touched() if name in tensors}):
        names = [name for name in tensors if first[name] == shared]
        flat = tensors[shared].detach().reshape(-1).cpu().clone()
        for part in edit.parts:
            for name in names:
                if name in part.names() and tuple(edit.base.shapes[name]) == tuple(tensors[name].shape):
                    _write(flat, part.change(name))
        found |= dict.fromkeys(names, _hash(flat))
    return found


def _write(flat: Tensor, write: Write) -> None:
    """The definition of a change at weight 1, on the flattened tensor."""
    at = slice(None) if write.indices is None else write.indices
    values = write.values() if callable(write.values) else write.values
    if values is None:
        flat[at] = 0.0
    elif write.adds:
        flat[at] = (flat[at].float() + values.float()).to(flat.dtype)
    else:
        flat[at] = values.float().to(flat.dtype)


def _hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: _hash(tensor) for name, tensor in tensors.items()}


def _hash(tensor: Tensor) -> str:
    raw = tensor.detach().reshape(-1).cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw.data).hexdigest()


def _hooks(edit: Edit, stack: EditStack) -> dict[str, int]:
    """How many forward hooks there are on each module that the edit hooks."""
    names = {name for part in edit.parts for name in part.modules()}
    modules = {name: _module(stack.modules, name) for name in sorted(names)}
    return {name: len(module._forward_hooks) for name, module in modules.items() if module is not None}


def _module(modules: Mapping[str, nn.Module], name: str) -> nn.Module | None:
    component, _, path = name.partition(".")
    inside = (
        dict(getattr(modules[component], "_orig_mod", modules[component]).named_modules())
        if component in modules
        else {}
    )
    return inside.get(path)


def _touched(edit: Edit, expected: Mapping[str, str], after: Mapping[str, str]) -> Check:
    sizes = {name: torch.Size(edit.base.shapes[name]).numel() for name in edit.touched()}
    count = sum(sizes[name] if at is None else len(at) for name, at in edit.touched().items())
    wrong = sorted(name for name in expected if after.get(name) != expected[name])
    return _none_of(wrong, "touched entries", f"{count:,} weights in {len(sizes):,} tensors are what the edit says")


def _untouched(names: set[str], before: Mapping[str, str], after: Mapping[str, str]) -> Check:
    changed = sorted(name for name in names if after.get(name) != before[name]) + sorted(after.keys() - before.keys())
    return _none_of(changed, "other tensors", f"{len(names):,} of {len(before):,}, the base's bytes")


def _words(edit: Edit, stack: EditStack) -> Check:
    """Each new token is one id that the text encoder turns into the edit's row."""
    wrong = []
    for part in edit.of(TokenEmbedding):
        for component, row in part.rows.items():
            key = component if component in stack.tokenizers else component.replace("text_encoder", "tokenizer")
            embedding = input_embedding(stack.modules[component])
            ids = stack.tokenizers[key](part.token, add_special_tokens=False, return_tensors="pt").input_ids
            with torch.no_grad():
                found = embedding(ids.to(embedding.weight.device))[0]  # (tokens, dim)
            if not torch.equal(found, row.to(found).unsqueeze(0)):
                wrong.append(f"{component}: {part.token}")
    return _none_of(wrong, "new words", f"{' '.join(edit.tokens)}: one token each, with the edit's row")


def _none_of(wrong: list[str], name: str, detail: str) -> Check:
    """A check that passes if nothing is wrong, and names what is."""
    shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
    return Check(name, not wrong, detail if not wrong else f"wrong: {shown}")

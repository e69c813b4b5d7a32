"""Keep each edit inside its region of the picture: beyond it the model draws with the weights it had before.

What an edit makes of the cross-attention layers is computed beside what the model makes of them, and each cell of a layer's output
comes from the edit whose region it lies in, from the model elsewhere (region-wise mixing as in Mix-of-Show, arXiv:2305.18292,
there for the hidden states of several prompts; here for located weights). New words of the edits stand in the one prompt they
share; a region with a prompt of its own reads that. Exact: a region that covers the picture is the edit applied plainly, and
outside its region a layer's output is the model's bit for bit; both are tests. Each edit costs one more cross-attention a layer,
and in the other layers regions see each other, so that some of a subject's looks may still pass its border.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from photopic.core.config import Config, Flags
from photopic.core.edits import Edit, TokenEmbedding, TokenResidual
from photopic.core.errors import EditError
from photopic.core.fingerprint import named_tensors
from photopic.core.method import method
from photopic.core.nn.attention import Grid, cross_attention, is_doubled, uncompiled
from photopic.core.sampling import Control
from photopic.data.layout import Layout
from photopic.generate.guidance._own_prompts import reading, with_own_prompt
from photopic.models.text_to_image.handle import TextToImage

PROJECTION = re.compile(r"unet\.(?P<layer>.+)\.(?P<weight>(to_[qkv]|to_out\.0)\.(weight|bias))")
Changes = dict[str, dict[str, Tensor]]  # layer -> name in the layer, such as to_k.weight -> its edited value


@dataclass(frozen=True, kw_only=True)
class RegionalEditsConfig(Config):
    """How far the edits go."""

    weight: Annotated[float, Ge(0), Le(1)] = 1.0  # how far each edit goes in its region, 0 to 1


@method(
    paper="arXiv:2305.18292",
    examples=(
        "Example: photopic generate 'a <mine> cat and a mug' --control regional_edits:layout=a.json,edits=cat.edit",
    ),
)
class RegionalEdits(Control):
    """Draw with edits that each change their own region of the picture only.

    Args:
        layout: The regions.
        edits: Edits with one new word each; each belongs to the region that names its word.
        config: How far they go.

    Raises:
        DataError: If an edit's word is in no region or in two, or two edits' words are in one.
        EditError: If an edit has no word of its own, or several; while drawing, if it changes more than cross-attention and words.

    Example:
        >>> model.generate("a <cat> cat and a cup", seeds=[0], controls=[RegionalEdits(layout, [cat])])  # doctest: +SKIP
    """

    def __init__(
        self,
        layout: Layout,
        edits: Annotated[Sequence[Edit], Flags("--edits")],
        *,
        config: RegionalEditsConfig = RegionalEditsConfig(),
    ):
        self.layout, self.edits, self.config = layout, by_region(layout, edits), config

    def applied(self, model: Any) -> AbstractContextManager[None]:
        """In force around a batch, its words while the prompts are encoded too."""
        return regional_edits(model, self.layout, self.edits, weight=self.config.weight)


@contextmanager
def regional_edits(
    model: TextToImage, layout: Layout, edits: Mapping[str, Edit], *, weight: float = 1.0, force: bool = False
) -> Iterator[None]:
    """Apply each edit in its region only, on top of the edits in force, inside the ``with`` block.

    Args:
        model: Whatever draws with it inside the block draws so: ``generate``, the pipeline itself, or a training loss.
        layout: The regions.
        edits: The words of a region to its edit; ``by_region`` finds them by the edits' own words. Regions may go without.
        weight: As for ``EditStack.load``, of all of them.
        force: As for ``EditStack.load``.

    Yields:
        Nothing; afterwards the model is as it was.

    Raises:
        EditError: If an edit changes more than cross-attention and words, a region does not exist, or it cannot be applied.

    Example:
        >>> with regional_edits(model, layout, by_region(layout, [cat, mug])):  # doctest: +SKIP
        ...     model.generate("a <cat> cat and a <mug> cup", seeds=[0], controls=[guidance])
    """
    numbers = {region.words: index for index, region in enumerate(layout.regions)}
    for words, edit in edits.items():
        if words not in numbers:
            raise EditError(f"edit of {words!r}: the layout has no such region, only {', '.join(map(repr, numbers))}")
        _check_parts(words, edit, model)
    with ExitStack() as stack:
        # put together before any token is added, each on the model as it was
        changed = {numbers[words]: _changes(model, edit, weight, force) for words, edit in edits.items()}
        for edit in edits.values():
            spoken = edit.of(TokenEmbedding, TokenResidual)  # words stand in the one prompt, so for the whole picture
            if spoken:
                wording = Edit(spoken, edit.base, edit.provenance)
                stack.enter_context(model.edits.applied(wording, weight=weight, force=force))
        prompts = {numbers[words]: layout.regions[numbers[words]].prompt for words in edits}
        told = {index: model.encode_prompts([prompt]).hidden for index, prompt in prompts.items() if prompt}
        grid = Grid()
        stack.enter_context(uncompiled(model.unet))
        stack.enter_context(grid.watching(model.unet))
        for name, layer in cross_attention(model.unet).items():
            # an edit of words alone has a twin too where its region reads a prompt of its own
            twins = {i: _twin(layer, each.get(name, {})) for i, each in changed.items() if name in each or i in told}
            if twins:
                hook = _mixing(name, grid, layout, twins, told)
                stack.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def by_region(layout: Layout, edits: Sequence[Edit]) -> dict[str, Edit]:
    """The edits by the words of their regions: each belongs where its own new word is.

    Raises:
        DataError: If an edit's word is in no region or in two, or two edits' words are in one.
        EditError: If an edit has no word of its own, or several.

    Example:
        >>> by_region(layout, [cat, mug]).keys()  # doctest: +SKIP
        dict_keys(['<cat> cat', '<mug> cup'])
    """
    for edit in edits:
        if len(edit.subjects) != 1:
            found = " ".join(edit.subjects) or "none"
            raise EditError(
                f"regions: expected edits with one new word each, found {found}; apply it to the whole picture"
            )
    places = layout.place_of([edit.subjects[0] for edit in edits])
    return {layout.regions[place].words: edit for place, edit in zip(places, edits, strict=True)}


def _changes(model: TextToImage, edit: Edit, weight: float, force: bool) -> Changes:
    """The edited projections, put together once: what they would be were the edit in force."""
    found: Changes = {}
    if not edit.weight_parts:
        return found
    with model.edits.applied(Edit(edit.weight_parts, edit.base, edit.provenance), weight=weight, force=force):
        tensors = named_tensors(model.components)
        for name in edit.touched():
            match = PROJECTION.fullmatch(name)
            assert match is not None  # `_check_parts` has refused everything else
            found.setdefault(match["layer"], {})[match["weight"]] = tensors[name].detach().clone()
    return found


def _twin(layer: Attention, changed: Mapping[str, Tensor]) -> Attention:
    """The layer with other projections, which shares all else; its own hooks do not run in it."""
    twin = copy.copy(layer)  # shallow: normalisations, processor and every unedited projection are the layer's own
    twin._modules = dict(layer._modules)
    for name in ("to_q", "to_k", "to_v"):
        twin._modules[name] = _projection(getattr(layer, name), name, changed)
    twin._modules["to_out"] = nn.ModuleList([_projection(layer.to_out[0], "to_out.0", changed), *layer.to_out[1:]])
    return twin


def _projection(linear: nn.Module, name: str, changed: Mapping[str, Tensor]) -> nn.Module:
    values = {part: changed[key] for part in ("weight", "bias") if (key := f"{name}.{part}") in changed}
    if not values:
        return linear
    edited = copy.copy(linear)
    edited._parameters = dict(linear._parameters)
    # a dictionary of its own, so that the model's projection keeps its weight
    edited._parameters |= {part: nn.Parameter(value, requires_grad=False) for part, value in values.items()}
    return edited


def _mixing(
    name: str, grid: Grid, layout: Layout, twins: Mapping[int, Attention], told: Mapping[int, Tensor]
) -> Callable[..., Tensor]:
    def mix(layer: Attention, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        # (regions, h, w) -> (regions, cells): each layer has a grid of its own
        inside = torch.from_numpy(layout.cells(*grid.of(name, output.shape[1]))).flatten(1).to(output.device)
        given = {key: value for key, value in kwargs.items() if key != "watchers"}  # they watch the layer itself
        for index, twin in twins.items():
            twin.processor = layer.processor  # with the rewrites of this run
            found = twin.forward(*args, **given)  # (batch, cells, dim)
            if index in told:
                found = with_own_prompt(reading(twin), args[0], told[index], found, doubled=is_doubled())
            output = torch.where(inside[index, :, None], found, output)
        return output

    return mix


def _check_parts(words: str, edit: Edit, model: TextToImage) -> None:
    layers = cross_attention(model.unet)
    kept = (*edit.weight_parts, *edit.of(TokenEmbedding, TokenResidual))
    others = [part.kind for part in edit.parts if part not in kept]
    others += [
        name
        for name in edit.touched()
        if not (match := PROJECTION.fullmatch(name)) or type(_linear(layers, match)) is not nn.Linear
    ]
    if others:
        raise EditError(
            f"edit of {words!r}: changes {others[0]}, and only cross-attention projections can be kept to a region; "
            "apply it to the whole picture, or keep its part with photopic.core.edits.restrict"
        )


def _linear(layers: Mapping[str, nn.Module], found: re.Match[str]) -> nn.Module | None:
    layer = layers.get(found["layer"])
    return None if layer is None else layer.get_submodule(found["weight"].rpartition(".")[0])

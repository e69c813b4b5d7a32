"""The words of a stack, and the models it has to live with: pipelines, shared weights, compiled, offloaded and quantised ones."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from photopic.core.edits import (
    Edit,
    EditStack,
    LowRankDelta,
    SparseWeights,
    SteeringVector,
    TokenEmbedding,
    ZeroedWeights,
    attach,
    compose,
)
from photopic.core.edits.file import save
from photopic.core.errors import EditError, PhotopicError
from photopic.core.fingerprint import fingerprint
from tests.core.small import BASE, IDS, SHAPES, Net, assert_state, content, made, state_after
from tests.tiny import tiny_pipeline


def entry(name: str, value: float | None = None, at: int = 0) -> Edit:
    """Shut one entry, or give it a value."""
    indices = {name: torch.tensor([at])}
    part = ZeroedWeights(indices) if value is None else SparseWeights(indices, {name: torch.tensor([value])})
    return Edit((part,), BASE)


def test_an_edit_is_loaded_from_its_file_and_named_after_it(tmp_path: Path) -> None:
    save(made("shut", 1), tmp_path / "bear.edit")
    model = Net()
    stack = EditStack({"m": model})
    assert [stack.load(tmp_path / "bear.edit"), stack.load(str(tmp_path / "bear.edit"))] == ["bear", "bear-2"]
    assert_state(model, state_after([(made("shut", 1), 1.0)]))
    with stack.applied(tmp_path / "bear.edit"):
        assert stack.names() == ("bear", "bear-2", "bear-3")
    with pytest.raises(EditError, match=r"no\.edit: expected a file, found nothing"):
        stack.load(tmp_path / "no.edit")
    stack.unload("bear", "bear-2")
    assert content(model) == content(Net())


def test_disabled_edits_stay_listed_and_out_of_force() -> None:
    model, edit = Net(), made("values-32", 4)
    stack = EditStack({"m": model})
    name = stack.load(edit, weight=0.5)
    stack.disable(name)
    assert content(model) == content(Net()) and [(each.name, each.enabled) for each in stack.list()] == [(name, False)]
    stack.set_weights({name: -1.0})
    assert content(model) == content(Net())
    stack.enable()
    assert_state(model, state_after([(edit, -1.0)]))
    with pytest.raises(EditError, match="no edit 'mug' is applied"):
        stack.disable("mug")


def test_weights_follow_patterns_of_layers() -> None:
    model = Net()
    edit = made("delta", 2, ["m.one.weight", "m.two.weight", "m.two.bias", "m.conv.weight"])
    stack = EditStack({"m": model})
    stack.load(edit, weight={"m.two.*": 0.5, "m.conv.*": 0.0}, name="bear")
    expected = {"m.one.weight": 1.0, "m.two.weight": 0.5, "m.two.bias": 0.5, "m.conv.weight": 0.0}
    assert_state(model, state_after([(edit, expected.__getitem__)]))
    stack.set_weights({"bear": {"m.two.bias": 2.0, "m.two.*": 0.25}})
    expected = {"m.one.weight": 1.0, "m.two.weight": 0.25, "m.two.bias": 2.0, "m.conv.weight": 1.0}
    assert_state(model, state_after([(edit, expected.__getitem__)]))
    with pytest.raises(
        EditError, match=r"pattern 'unet\.\*' matches nothing this edit touches, such as m\.conv\.weight"
    ):
        stack.set_weights({"bear": {"unet.*": 0.5}})
    assert_state(model, state_after([(edit, expected.__getitem__)]))


def test_a_shared_weight_is_weighted_under_the_name_the_edit_uses() -> None:
    model = Net()
    start = float(model.one.weight.detach()[0, 4])
    stack = EditStack({"m": model})  # held: one that is collected takes its edits away
    stack.load(entry("m.tied.weight", at=4), weight={"m.tied.*": 0.25})
    assert float(model.one.weight.detach()[0, 4]) == pytest.approx(0.75 * start)


def test_two_names_of_a_shared_weight_are_one_support() -> None:
    model = Net()
    stack = EditStack({"m": model})
    stack.load(entry("m.one.weight", 2.0, at=4), name="one")
    with pytest.raises(EditError, match="tied and one both touch 1 entries"):
        stack.load(entry("m.tied.weight", 3.0, at=4), name="tied")
    stack.load(entry("m.tied.weight", 3.0, at=4), name="tied", overlap="last")
    assert float(model.one.weight.detach()[0, 4]) == 3.0
    stack.unload("one")
    assert float(model.one.weight.detach()[0, 4]) == 3.0
    stack.clear()
    assert content(model) == content(Net())


def test_an_overlap_that_comes_back_is_refused_and_nothing_changes() -> None:
    for act in ("enable", "set_weights"):
        model = Net()
        stack = EditStack({"m": model})
        stack.load(entry("m.two.bias", 1.0), name="first", weight=0.0 if act == "set_weights" else 1.0)
        if act == "enable":
            stack.disable("first")
        stack.load(entry("m.two.bias", 2.0), name="second")
        with pytest.raises(EditError, match=r"second and first both touch 1 entries of m\.two\.bias"):
            stack.enable("first") if act == "enable" else stack.set_weights({"first": 1.0})
        assert float(model.two.bias.detach()[0]) == 2.0
        stack.disable("second")
        stack.enable("first"), stack.set_weights({"first": 1.0})
        assert float(model.two.bias.detach()[0]) == 1.0


def test_fusing_leaves_nothing_to_revert_and_a_new_base() -> None:
    model, edit = Net(), made("low_rank", 1)
    stack = EditStack({"m": model})
    stack.load(edit, weight=0.5), stack.load(entry("m.two.bias"), name="off")
    stack.disable("off")
    stack.fuse()
    fused = content(model)
    assert stack.names() == () and fused != content(Net())
    stack.clear()
    assert content(model) == fused
    assert stack.fingerprint().digest == fingerprint({"m": model}, "net").digest != BASE.digest
    with pytest.raises(EditError, match="made for base net"):
        stack.load(edit)
    on_top = Edit(edit.parts, fingerprint({"m": model}, "fused", SHAPES))
    with stack.applied(on_top):
        assert content(model) != fused
    assert content(model) == fused


def test_what_no_weight_can_hold_is_not_fused() -> None:
    model = Net()
    stack = EditStack({"m": model})
    stack.load(made("insertion"), name="tuner"), stack.load(entry("m.two.bias"))
    with pytest.raises(EditError, match="tuner: expected only changes of weights to fuse, found insertion"):
        stack.fuse()
    assert len(stack.names()) == 2
    stack.clear()
    assert content(model) == content(Net())


def test_a_forced_edit_is_marked() -> None:
    model = Net(1)
    stack = EditStack({"m": model}, name="other")
    stack.load(entry("m.two.bias"), force=True, name="bear")
    assert stack.forced == ("bear",) and stack.list()[0].forced
    stack.disable("bear")
    assert stack.forced == ()
    right = EditStack({"m": Net()})
    right.load(entry("m.two.bias"), force=True)
    assert right.forced == ()


def test_attach_gives_one_stack_an_object_and_a_copy_its_own() -> None:
    model = Net()
    stack = attach(model, component="m", name="net")
    assert attach(model) is stack and stack.name == "net" and "_photopic_edits" not in model.state_dict()
    stack.load(entry("m.two.bias", 5.0), name="bear")
    duplicate = copy.deepcopy(model)
    other = attach(duplicate, component="m")
    assert other is not stack
    other.clear()
    assert float(model.two.bias.detach()[0]) == 5.0 and stack.names() == ("bear",)
    stack.clear()
    assert content(model) == content(Net())


def test_attach_works_on_a_plain_pipeline() -> None:
    pipeline = tiny_pipeline()
    stack, tokenizer = attach(pipeline), pipeline.tokenizer
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    base = fingerprint(
        {"unet": pipeline.unet, "vae": pipeline.vae, "text_encoder": pipeline.text_encoder}, "tiny", [name]
    )
    dim = pipeline.text_encoder.config.hidden_size
    row = TokenEmbedding("<mine>", {"text_encoder": torch.zeros(dim)})
    before = content(pipeline.unet)
    with stack.applied(Edit((ZeroedWeights({name: torch.arange(7)}), row), base)):
        assert pipeline.tokenizer is tokenizer and len(pipeline.tokenizer("<mine>").input_ids) == 3
        assert not pipeline.unet.get_parameter(name.removeprefix("unet.")).view(-1)[:7].any()
    assert pipeline.tokenizer is tokenizer and content(pipeline.unet) == before
    assert attach(pipeline) is stack and attach(copy.deepcopy(pipeline)) is not stack


def test_two_stacks_never_hold_edits_of_one_model() -> None:
    model = Net()
    whole, part, before = EditStack({"m": model}), EditStack({"two": model.two}), content(model)
    inner = Edit((ZeroedWeights({"two.bias": torch.tensor([0])}),), part.fingerprint("two.bias"))
    name = whole.load(entry("m.two.bias", 5.0))
    with pytest.raises(EditError, match=rf"another stack holds edits of it \({name}\); unload them there"):
        part.load(inner)
    with pytest.raises(EditError, match="another stack holds edits"):
        part.fingerprint()
    whole.unload(name)
    part.load(inner)
    with pytest.raises(EditError, match="another stack holds edits"):
        whole.load(entry("m.two.bias", 5.0))
    part.clear()
    assert content(model) == before
    whole.load(entry("m.two.bias", 5.0))


def test_a_token_of_a_disabled_edit_is_still_taken() -> None:
    pipeline = tiny_pipeline()
    stack, dim = attach(pipeline), pipeline.text_encoder.config.hidden_size
    base = stack.fingerprint()
    first = Edit((TokenEmbedding("<mine>", {"text_encoder": torch.zeros(dim)}),), base)
    name = stack.load(first)
    stack.disable(name)
    with pytest.raises(EditError, match="'<mine>' is already added by another edit"):
        stack.load(Edit((TokenEmbedding("<mine>", {"text_encoder": torch.ones(dim)}),), base))
    stack.enable(name)
    assert len(pipeline.tokenizer("<mine>").input_ids) == 3


def compiled(model: nn.Module) -> Any:
    torch.compiler.reset()
    return torch.compile(model, backend="eager")


def test_edits_of_weights_reach_compiled_modules() -> None:
    model = Net()
    fast, plain = compiled(model), Net()
    before = fast(IDS)
    edit = made("shut+low_rank", 2, ["m.two.weight"])
    with EditStack({"m": fast}).applied(edit), EditStack({"m": plain}).applied(edit):
        assert torch.equal(fast(IDS), plain(IDS)) and not torch.equal(fast(IDS), before)
    assert torch.equal(fast(IDS), before) and content(model) == content(Net())


@pytest.mark.parametrize("way", ["wrapped", "in place", "inside"])
def test_hooks_reach_compiled_modules(way: str) -> None:
    model = Net().requires_grad_(False)
    fast: Any = model
    if way == "wrapped":
        fast = compiled(model)
    elif way == "in place":
        torch.compiler.reset()
        model.compile(backend="eager")
    else:
        model.two = compiled(model.two)
    before = fast(IDS)
    stack = EditStack({"m": fast})
    base = stack.fingerprint("m.two.weight")
    edit = Edit((SteeringVector({"m.two": torch.ones(5)}),), base)
    with stack.applied(edit, weight=2.0):
        torch.testing.assert_close(fast(IDS), before + 2)
    assert torch.equal(fast(IDS), before)


class Reader(nn.Module):
    """A text encoder in little."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(600, 4)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(self, ids: Tensor) -> Tensor:
        return self.words(ids) * 2


def test_new_tokens_reach_compiled_encoders() -> None:
    tokenizer = tiny_pipeline().tokenizer
    fast = compiled(Reader())
    fast(torch.tensor([[1, 2]]))
    stack = EditStack({"text_encoder": fast}, {"text_encoder": tokenizer})
    edit = Edit((TokenEmbedding("<mine>", {"text_encoder": torch.ones(4)}),), stack.fingerprint())
    with stack.applied(edit):
        where = stack.tokenizers["text_encoder"].convert_tokens_to_ids("<mine>")
        assert torch.equal(fast(torch.tensor([[where]])), torch.full((1, 1, 4), 2.0))
    assert torch.equal(fast(torch.tensor([[1]])), Reader()(torch.tensor([[1]])))


def test_a_model_offloaded_to_memory_is_edited_and_reverted_exactly() -> None:
    from accelerate import cpu_offload

    model = Net()
    before = model(IDS)
    stack = EditStack({"m": model})
    with stack.applied(entry("m.two.bias", 5.0)):
        edited, digest = model(IDS), stack.fingerprint().digest
    model = cpu_offload(Net(), execution_device=torch.device("cpu"))
    assert model.two.bias.is_meta
    stack = EditStack({"m": model})
    assert stack.fingerprint().digest == digest
    with stack.applied(entry("m.two.bias", 5.0)):
        assert torch.equal(model(IDS), edited) and not torch.equal(edited, before)
        assert stack.fingerprint().digest == digest
    assert torch.equal(model(IDS), before) and EditStack({"m": model}).fingerprint().digest == digest


def test_a_new_token_reaches_an_offloaded_text_encoder() -> None:
    from accelerate import cpu_offload

    found = []
    for encoder in (Reader(), cpu_offload(Reader(), execution_device=torch.device("cpu"))):
        stack = EditStack({"text_encoder": encoder}, {"text_encoder": tiny_pipeline().tokenizer})
        edit = Edit((TokenEmbedding("<mine>", {"text_encoder": torch.ones(4)}),), stack.fingerprint())
        with stack.applied(edit):
            where = stack.tokenizers["text_encoder"].convert_tokens_to_ids("<mine>")
            found.append(encoder(torch.tensor([[where, 1]])))
    assert torch.equal(*found)


def test_a_model_offloaded_to_a_disk_is_refused_by_name_with_what_to_do(tmp_path: Path) -> None:
    from accelerate import disk_offload

    model = disk_offload(Net(), str(tmp_path), execution_device=torch.device("cpu"))
    with pytest.raises(PhotopicError, match=r"m\..*: has no data here .*offloaded to a disk\); load the model into"):
        EditStack({"m": model}).load(entry("m.two.bias"))


def test_dispatch_hooks_without_offloading_are_no_obstacle() -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model = Net()
    for part in (model, model.two):
        add_hook_to_module(part, AlignDevicesHook(execution_device="cpu"))
    before = model(IDS)
    stack = EditStack({"m": model})
    with stack.applied(entry("m.two.bias", 5.0), made("direction"), made("insertion")):
        assert not torch.equal(model(IDS), before)
    assert torch.equal(model(IDS), before) and content(model) == content(Net())


class Quantised(torch.Tensor):
    """A tensor subclass with its numbers in another tensor, as torchao's weights are."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> Quantised:
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=torch.float32)

    def __init__(self, numbers: Tensor):
        self.numbers = numbers

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(inner: Any, *_: Any) -> Quantised:
        return Quantised(inner["numbers"])

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return cls(args[0].numbers)
        raise NotImplementedError(str(function))


def test_quantised_weights_are_refused_by_name() -> None:
    model = Net()
    numbers = model.two.weight.detach().mul(10).to(torch.int8)
    del model.two.weight
    model.two.register_buffer("weight", numbers)
    with pytest.raises(
        EditError, match=r"m\.two\.weight: expected float32, float16 or bfloat16, found torch\.int8; load it"
    ):
        stack = EditStack({"m": model})  # held: one that is collected takes its edits away
        stack.load(entry("m.two.weight"), force=True)
    model = Net()
    model.two.weight = nn.Parameter(Quantised(numbers), requires_grad=False)
    with pytest.raises(EditError, match=r"m\.two\.weight: expected plain weights, found quantised ones"):
        EditStack({"m": model}).load(entry("m.two.weight"), force=True)


def test_a_base_of_other_shapes_or_names_is_refused() -> None:
    wide = Net()
    wide.two = nn.Linear(7, 6)
    stack = EditStack({"m": wide}, name="wide")
    with pytest.raises(EditError, match="other tensors or shapes"):
        stack.load(entry("m.two.bias"))
    with pytest.raises(EditError, match=r"wide: m\.two\.bias: expected shape \(5,\), found \(6,\)"):
        stack.load(entry("m.two.bias"), force=True)
    with pytest.raises(EditError, match=r"has no floating-point tensor m\.two\.bias"):
        EditStack({"unet": Net()}).load(entry("m.two.bias"), force=True)
    hooked = Edit((SteeringVector({"m.three": torch.ones(5)}),), BASE)
    with pytest.raises(EditError, match=r"has no module m\.three, which this edit hooks"):
        EditStack({"m": Net()}).load(hooked)


def test_an_edit_that_fails_while_it_is_written_leaves_the_base() -> None:
    """A real fault: the second factor of a product is swapped for one that does not fit after the edit was checked."""
    model = Net()
    stack = EditStack({"m": model})
    good, bad = entry("m.conv.weight"), made("low_rank", 1, ["m.two.weight"])
    stack.load(good, name="good")
    part = bad.parts[0]
    assert isinstance(part, LowRankDelta)
    part.down["m.two.weight"] = torch.ones(3, 3)  # type: ignore[index]
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        stack.load(bad, overlap="last")
    assert content(model) == content(Net()) and stack.names() == ()
    stack.load(good)
    stack.clear()
    assert content(model) == content(Net())


def test_a_composition_applied_is_its_parts_applied() -> None:
    one, other = made("values-8", 4, ["m.two.weight"]), made("delta", 2, ["m.conv.weight"])
    first, second = Net(), Net()
    composed, stack = EditStack({"m": first}), EditStack({"m": second})
    composed.load(compose(one, other))
    stack.load(other), stack.load(one)
    assert content(first) == content(second)

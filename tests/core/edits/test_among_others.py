"""Edits among other threads, libraries and interrupts: the base's bytes come back, or a refusal says why."""

from __future__ import annotations

import copy
import gc
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from photopic.core.edits import Edit, EditStack, SteeringVector, TokenEmbedding, ZeroedWeights, attach
from photopic.core.errors import EditError, ModelError
from photopic.core.fingerprint import fingerprint
from photopic.core.nn.attention.layers import cross_attention
from photopic.models.text_to_image.handle import TextToImage
from tests.core.small import Net, content, interrupted, made, parts, pickled
from tests.tiny import tiny_pipeline

INTERRUPTS = int(os.environ.get("PHOTOPIC_INTERRUPTS", "500"))  # lines, evenly spread over all of them
TO_K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"


def weights_edit(model: TextToImage) -> Edit:
    return Edit((ZeroedWeights({TO_K: torch.arange(200)}),), model.fingerprint(TO_K))


def word_edit(model: TextToImage, token: str = "<mine>") -> Edit:
    return Edit((TokenEmbedding(token, {"text_encoder": torch.ones(32)}),), model.fingerprint())


def everything(model: TextToImage) -> dict[str, str]:
    return {name: content(module) for name, module in model.components.items()}


@pytest.mark.parametrize("stacks", [1, 2])
def test_threads_take_turns(stacks: int) -> None:
    model = Net()
    before, edits = content(model), [made("shut", 1), made("values-32", 2)]
    chosen = [EditStack({"m": model}) for _ in range(stacks)] * (3 - stacks)
    expected = []
    for edit in edits:
        with chosen[0].applied(edit):
            expected.append(content(model))
    wrong: list[Any] = []

    def work(stack: EditStack, number: int) -> None:
        for _ in range(40):
            try:
                with stack.applied(edits[number]):
                    time.sleep(0)
                    if content(model) != expected[number]:
                        wrong.append(number)
            except EditError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(stack, number)) for number, stack in enumerate(chosen)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and content(model) == before


def _written_through_data(model: Net) -> None:
    model.two.weight.data.mul_(1.5)


def _written_to_what_was_shut(model: Net) -> None:
    model.one.weight.data.view(-1)[3] = 7.0


def _loaded(model: Net) -> None:
    model.load_state_dict(Net(seed=3).state_dict())


def _replaced(model: Net) -> None:
    model.two = nn.Linear(7, 5)


def _one_last_bit(model: Net) -> None:
    model.one.weight.data.view(torch.int32).view(-1)[9] ^= 1


FOREIGN = [_written_through_data, _written_to_what_was_shut, _one_last_bit, _loaded, _replaced]


@pytest.mark.parametrize("write", FOREIGN)
@pytest.mark.parametrize("kind", ["positions", "low_rank", "delta"])
def test_what_others_wrote_is_never_written_over(write: Callable[[Net], None], kind: str) -> None:
    model = Net()
    stack, edit = EditStack({"m": model}, name="net"), made("shut", 1)
    mine = Edit((ZeroedWeights({"m.one.weight": torch.tensor([3, 9])}),), edit.base)
    if kind != "positions":
        mine = Edit(parts(kind, 1, ["m.one.weight"]), edit.base)
    stack.load(mine, name="mine")
    write(model)
    theirs = content(model)
    for act in (
        lambda: stack.unload("mine"),
        lambda: stack.load(edit, overlap="last"),
        lambda: stack.set_weights({"mine": 0.5}),
        lambda: stack.fingerprint(),
    ):
        with pytest.raises(EditError, match=r"changed by something else while edits are loaded \(mine\).*forget"):
            act()
        assert content(model) == theirs
    stack.forget()
    assert content(model) == theirs and stack.names() == ()
    assert stack.fingerprint().digest == fingerprint({"m": model}, "net").digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["low_rank", "delta", "shut+low_rank", "values-32"])
def test_a_model_that_moved_to_another_precision_is_checked_as_closely(kind: str, dtype: torch.dtype) -> None:
    model = Net()
    stack, edit = EditStack({"m": model}, name="net"), Edit(parts(kind, 1, ["m.one.weight"]), made("shut").base)
    stack.load(edit, name="mine")
    model.to(dtype)
    bits, at = model.one.weight.data.view(torch.int16).view(-1), edit_position(edit)
    bits[at] ^= 1
    with pytest.raises(EditError, match="has other entries than were written"):
        stack.unload("mine")
    bits[at] ^= 1
    stack.unload("mine")
    assert content(model) == content(Net().to(dtype))


def edit_position(edit: Edit) -> int:
    positions = edit.touched()["m.one.weight"]
    return 9 if positions is None else int(positions[0])


def test_a_base_written_to_through_data_is_another_base() -> None:
    model = Net()
    stack = EditStack({"m": model})
    edit, before = made("shut", 1), stack.fingerprint().digest
    model.two.weight.data.mul_(1.5)
    assert stack.fingerprint().digest != before
    with pytest.raises(EditError, match="made for base"):
        stack.load(edit)


def test_a_component_replaced_while_edits_are_on_is_refused_and_edits_go_to_the_new_one() -> None:
    for of in (attach, lambda pipeline: TextToImage(pipeline, "tiny").edits):
        pipeline, other = tiny_pipeline(), tiny_pipeline().unet
        stack, old = of(pipeline), pipeline.unet
        edit = Edit((ZeroedWeights({TO_K: torch.arange(200)}),), stack.fingerprint(TO_K))
        stack.load(edit, name="mine")
        pipeline.unet = other
        with pytest.raises(EditError, match=r"unet was replaced.*mine"):
            stack.unload("mine")
        pipeline.unet = old
        stack.unload("mine")
        pipeline.unet = other
        with stack.applied(edit):
            assert not other.get_parameter(TO_K.removeprefix("unet.")).view(-1)[:200].any()


def test_fused_projections_follow_the_edit_and_come_back() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    edit, base = weights_edit(model), model.generate("a bear", seeds=[0], steps=2)
    with model.edits.applied(edit):
        edited = model.generate("a bear", seeds=[0], steps=2)
    model.edits.load(edit, name="mine")
    model.pipeline.fuse_qkv_projections()
    assert (model.generate("a bear", seeds=[0], steps=2) == edited).mean() > 0.99
    model.edits.unload("mine")
    assert (model.generate("a bear", seeds=[0], steps=2) == base).mean() > 0.99
    with model.edits.applied(edit):
        assert (model.generate("a bear", seeds=[0], steps=2) == edited).mean() > 0.99
    model.pipeline.unfuse_qkv_projections()
    assert (model.generate("a bear", seeds=[0], steps=2) == base).all() and model.digest() == edit.base.digest


def test_an_adapter_on_top_does_not_hide_the_entries() -> None:
    peft = pytest.importorskip("peft")
    model = TextToImage(tiny_pipeline(), "tiny")
    edit, before = weights_edit(model), content(model.unet)
    model.edits.load(edit, name="mine")
    model.unet.add_adapter(peft.LoraConfig(r=2, target_modules=["to_k"]))
    model.edits.unload("mine")
    with pytest.raises(EditError, match="adapter of peft is loaded"):
        model.edits.load(edit)
    model.unet.delete_adapters("default")
    model.unet.unload_lora() if hasattr(model.unet, "unload_lora") else model.pipeline.unload_lora_weights()
    assert content(model.unet) == before


def test_weights_in_eight_bits_are_refused_by_name() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    edit = weights_edit(model)
    model.edits.load(edit, name="mine")
    model.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(EditError, match="has become float8_e4m3fn"):
        model.edits.unload("mine")
    model.edits.forget()
    with pytest.raises(EditError, match=r"float8_e4m3fn|made for base"):
        model.edits.load(edit)


def test_a_model_made_in_inference_mode_is_edited_and_reverted() -> None:
    with torch.inference_mode():
        model = Net()
    before = content(model)
    with EditStack({"m": model}).applied(made("values-32", 2)):
        assert content(model) != before
    assert content(model) == before


@pytest.mark.parametrize(("token", "prompt"), [("sks", "two desks"), ("sks", "desk sksy"), ("mine", "a mined rock")])
def test_a_bare_word_is_not_read_inside_other_words(token: str, prompt: str) -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    before = model.pipeline.tokenizer(prompt).input_ids
    with model.edits.applied(word_edit(model, token)):
        assert model.pipeline.tokenizer(prompt).input_ids == before
        assert len(model.pipeline.tokenizer(f"a {token}, bear").input_ids) == 6


def test_an_inversion_loaded_in_between_survives_the_edit_and_the_edit_survives_it() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    pipeline, edit = model.pipeline, word_edit(model)
    size = len(pipeline.tokenizer)

    def read(prompt: str) -> list[str]:
        ids = pipeline.tokenizer(pipeline.maybe_convert_prompt(prompt, pipeline.tokenizer)).input_ids
        return pipeline.tokenizer.convert_ids_to_tokens(ids)[1:-1]

    def row(word: str) -> Tensor:
        return pipeline.text_encoder.get_input_embeddings()(
            torch.tensor([pipeline.tokenizer.convert_tokens_to_ids(word)])
        )

    model.edits.load(edit, name="e")
    with pytest.raises(EditError, match="knows <mine> of edits in force"):
        pipeline.tokenizer.save_pretrained("never")
    pipeline.load_textual_inversion({"<mv>": torch.full((2, 32), 2.0)})
    pipeline.text_encoder(torch.tensor([[0]]))  # the encoder was given another embedding
    assert torch.equal(row("<mine>")[0], torch.ones(32)) and torch.equal(row("<mv>_1")[0], torch.full((32,), 2.0))
    model.edits.unload("e")
    assert read("a <mv> bear") == ["a</w>", "<mv>", "<mv>_1", "bear</w>"] and "<mine>" not in read("a <mine> bear")
    assert torch.equal(row("<mv>_1")[0], torch.full((32,), 2.0))
    assert len(pipeline.tokenizer) == len(pipeline.text_encoder.get_input_embeddings().weight) == size + 3


@pytest.mark.parametrize("in_a_block", [True, False])
def test_an_interrupt_at_any_line_leaves_the_base(in_a_block: bool) -> None:
    model = Net()
    stack, before = EditStack({"m": model}), content(model)
    written = parts("shut+low_rank", 1, ["m.two.weight"])
    edit = Edit((*written, *made("direction").parts), made("shut").base)

    def act() -> None:
        if in_a_block:
            with stack.applied(edit):
                return
        stack.load(edit, name="mine")
        stack.unload("mine")

    total, steps = interrupted(act, 0), INTERRUPTS // 2
    for at in sorted({1 + step * total // steps for step in range(steps)}):
        interrupted(act, at)
        assert not (in_a_block and stack.names()), at
        if stack.names():
            stack.clear()  # loaded without a block: the interrupt came when that was done
        assert content(model) == before and not model.two._forward_hooks, at


def test_an_interrupt_at_any_line_inside_a_block_leaves_no_word_behind() -> None:
    pipeline = tiny_pipeline()
    encoder, tokenizer = pipeline.text_encoder, pipeline.tokenizer
    stack = EditStack({"text_encoder": encoder}, {"text_encoder": tokenizer})
    name = "text_encoder.final_layer_norm.weight"
    parts = ZeroedWeights({name: torch.arange(9)}), TokenEmbedding("<mine>", {"text_encoder": torch.ones(32)})
    edit = Edit(parts, stack.fingerprint(name))
    before, words = content(encoder), tokenizer.get_vocab()

    def act() -> None:
        with stack.applied(edit):
            pass

    total = interrupted(act, 0)
    for at in range(1, total + 1, max(1, total // 60)):
        interrupted(act, at)
        gc.collect(0)
        assert content(encoder) == before and stack.names() == () and tokenizer.get_vocab() == words, at
        assert "forward" not in encoder.get_input_embeddings().__dict__ and not encoder._forward_pre_hooks, at


def test_an_abandoned_generator_and_a_collected_stack_leave_the_base() -> None:
    model = Net()
    before = content(model)

    def pictures() -> Any:
        with EditStack({"m": model}).applied(made("shut", 1)):
            yield content(model)

    generator = pictures()
    assert next(generator) != before
    del generator
    gc.collect()
    assert content(model) == before
    stack = EditStack({"m": model})
    stack.load(made("direction", 1))
    stack.load(made("shut", 1))
    del stack
    gc.collect()
    assert content(model) == before and not model.one._forward_hooks


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("with_edits", [False, True])
def test_a_copy_holds_the_same_edits_on_its_own_weights(copied: Callable[[Any], Any], with_edits: bool) -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    before, edit = everything(model), weights_edit(model)
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    hooks = Edit((SteeringVector({name: torch.ones(32)}),), model.fingerprint())
    if with_edits:
        for number, each in enumerate((edit, word_edit(model), hooks)):
            model.edits.load(each, name=str(number))
    other = copied(model)
    assert other.edits is not model.edits and other.edits.names() == model.edits.names()
    assert everything(other) == everything(model)
    assert torch.equal(other.encode_prompts("a <mine> bear").hidden, model.encode_prompts("a <mine> bear").hidden)
    assert (
        other.generate("a <mine> bear", seeds=[0], steps=1) == model.generate("a <mine> bear", seeds=[0], steps=1)
    ).all()
    model.edits.clear()
    assert everything(model) == before and (not with_edits or everything(other) != before)
    other.edits.clear()
    assert everything(other) == before
    assert not other.unet.get_submodule(name[5:])._forward_hooks
    assert "<mine>" not in other.pipeline.tokenizer.get_vocab()


def test_a_copy_of_an_attached_pipeline_or_module_has_its_own_stack() -> None:
    for thing in (tiny_pipeline(), Net()):
        stack = attach(thing, component="m")
        other = copy.deepcopy(thing)
        assert attach(other, component="m") is not stack and attach(thing, component="m") is stack


def test_attention_of_fused_projections_is_refused_by_name() -> None:
    pipeline = tiny_pipeline()
    pipeline.fuse_qkv_projections()
    with pytest.raises(ModelError, match="its projections are fused"):
        cross_attention(pipeline.unet)
    pipeline.unfuse_qkv_projections()
    assert cross_attention(pipeline.unet)


def test_a_word_is_read_by_the_embedding_that_others_put_in() -> None:
    model = TextToImage(tiny_pipeline(), "tiny")
    encoder = model.pipeline.text_encoder
    with model.edits.applied(word_edit(model)):
        expected = model.encode_prompts("a <mine> bear").hidden
        old = encoder.get_input_embeddings()
        encoder.set_input_embeddings(nn.Embedding.from_pretrained(old.weight.detach().clone()))
        assert torch.equal(model.encode_prompts("a <mine> bear").hidden, expected)
    assert "forward" not in old.__dict__ | encoder.get_input_embeddings().__dict__

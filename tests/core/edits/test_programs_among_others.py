"""Random programs over a pipeline that others use too: at the end the base's bytes are back, or a refusal said why.

``PHOTOPIC_PROGRAMS=1000 pytest tests/core/edits/test_programs_among_others.py`` runs more of them, drawn anew each time.
"""

from __future__ import annotations

import copy
import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from photopic.core.edits import Edit, LowRankDelta, SparseWeights, SteeringVector, TokenEmbedding, ZeroedWeights
from photopic.core.edits.file import save
from photopic.core.errors import EditError, PhotopicError
from photopic.core.fingerprint import named_tensors
from photopic.models.text_to_image.handle import TextToImage
from tests.core.small import content, interrupted, pickled
from tests.tiny import tiny_pipeline

COUNT = int(os.environ.get("PHOTOPIC_PROGRAMS", "0"))
ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
NORM = "text_encoder.final_layer_norm.weight"
numbers = st.integers(0, 4)


class Programs(RuleBasedStateMachine):
    """The tiny pipeline; ``foreign`` once somebody else changed what it computes with, ``caught`` if edits were loaded then.

    In half of the programs nobody does, or hardly one would end with the base's bytes to compare.
    """

    def __init__(self) -> None:
        super().__init__()
        self.model = TextToImage(tiny_pipeline(), "tiny")
        self.pipeline, self.words = self.model.pipeline, self.model.pipeline.tokenizer.get_vocab()
        self.base = {name: each.detach().clone() for name, each in named_tensors(self.model.components).items()}
        name, other = f"{ATTENTION}.to_k.weight", f"{ATTENTION}.to_v.weight"
        base = self.model.fingerprint(name, other, NORM)
        self.edits = [
            Edit((part,), base)
            for part in (
                ZeroedWeights({name: torch.arange(50), NORM: torch.tensor([1, 5])}),
                SparseWeights({name: torch.arange(20, 80)}, {name: torch.linspace(-1, 1, 60)}),
                LowRankDelta({other: torch.ones(32, 1)}, {other: torch.full((1, 32), 0.1)}),
                TokenEmbedding("sks", {"text_encoder": torch.ones(32)}),
                SteeringVector({f"{ATTENTION}.to_k": torch.ones(32)}),
            )
        ]
        self.foreign, self.caught, self.inversions, self.dtype = "", False, 0, torch.float32
        self.adapters: list[str] = []
        self.wrapped = False  # peft leaves its layers when the last adapter is deleted
        self.folder = tempfile.TemporaryDirectory()

    @initialize(alone=st.booleans())
    def begin(self, alone: bool) -> None:
        self.alone = alone

    def attempt(self, act: Callable[[], Any]) -> None:
        """A refusal is one line; without a stranger's change only edits may refuse each other."""
        try:
            act()
        except PhotopicError as refusal:
            assert "\n" not in str(refusal) and str(refusal)

    def apply_it(self, number: int) -> None:
        with self.model.edits.applied(self.edits[number], overlap="last"):
            self.pipeline.text_encoder(torch.tensor([[1, 2]]))

    @rule(number=numbers, weight=st.sampled_from([1.0, 1.0, 0.5, 0.0]), overlap=st.sampled_from(["error", "last"]))
    def load(self, number: int, weight: float, overlap: Any) -> None:
        self.attempt(lambda: self.model.edits.load(self.edits[number], weight=weight, overlap=overlap))

    @rule(number=numbers)
    def load_a_file(self, number: int) -> None:
        path = Path(self.folder.name) / f"{number}.edit"
        save(self.edits[number], path)
        self.attempt(lambda: self.model.edits.load(path, overlap="last"))

    @rule(number=numbers)
    def unload(self, number: int) -> None:
        names = self.model.edits.names()
        self.attempt(lambda: self.model.edits.unload(*names[number : number + 1]))

    @rule(number=numbers)
    def apply(self, number: int) -> None:
        self.attempt(lambda: self.apply_it(number))

    @rule(number=numbers, at=st.integers(1, 3000))
    def interrupt(self, number: int, at: int) -> None:
        self.attempt(lambda: interrupted(lambda: self.apply_it(number), at))

    @rule(one=numbers, other=numbers)
    def apply_in_threads(self, one: int, other: int) -> None:
        wrong: list[BaseException] = []

        def work(number: int) -> None:
            try:
                self.apply_it(number)
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in (one, other)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(isinstance(error, PhotopicError) for error in wrong), wrong

    @rule(copied=st.sampled_from([copy.deepcopy, pickled]))
    def copy(self, copied: Callable[[Any], Any]) -> None:
        other = copied(self.model)
        self.attempt(other.edits.clear)
        other.edits.forget()
        if not self.foreign and not self.wrapped:
            self.assert_base(other)

    @precondition(
        lambda self: not self.alone and not self.foreign and not self.model.edits.names() and not self.wrapped
    )
    @rule()
    def fuse(self) -> None:
        self.model.edits.load(self.edits[0])
        self.model.edits.fuse()
        self.foreign = "fused"

    @rule(dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
    def move(self, dtype: torch.dtype) -> None:
        """To another precision: a half rounds the base once; whatever comes after that rounds it again."""
        if self.dtype not in (dtype, torch.float32):
            self.foreign = self.foreign or "cast"
        self.pipeline.to("cpu", dtype)
        self.dtype = dtype

    @precondition(lambda self: not self.alone and self.inversions < 2)
    @rule()
    def invert(self) -> None:
        rows = torch.ones(1, 32, dtype=self.dtype)
        self.pipeline.load_textual_inversion({f"<theirs{self.inversions}>": rows})
        self.inversions, self.foreign = self.inversions + 1, self.foreign or "inversion"

    @precondition(lambda self: len(self.adapters) < 2)
    @rule()
    def load_adapter(self) -> None:
        factors = {
            f"{ATTENTION}.to_k.lora_A.weight": torch.ones(2, 32),
            f"{ATTENTION}.to_k.lora_B.weight": torch.ones(32, 2),
        }
        self.adapters.append(f"a{len(self.adapters)}")
        self.pipeline.load_lora_weights(factors, adapter_name=self.adapters[-1])
        self.wrapped = True

    @precondition(lambda self: self.adapters)
    @rule(weight=st.sampled_from([0.0, 0.5, 1.0]))
    def weigh_adapters(self, weight: float) -> None:
        self.pipeline.set_adapters(self.adapters, adapter_weights=[weight] * len(self.adapters))

    @precondition(lambda self: self.adapters)
    @rule()
    def delete_adapter(self) -> None:
        self.pipeline.delete_adapters(self.adapters.pop())

    @precondition(lambda self: not self.alone and self.adapters)
    @rule(undone=st.booleans())
    def fuse_adapters(self, undone: bool) -> None:
        self.pipeline.fuse_lora()
        self.foreign = self.foreign or "fuse_lora"
        if undone:
            self.pipeline.unfuse_lora()  # by subtraction: other last bits than before

    @precondition(lambda self: not self.alone)
    @rule(way=st.sampled_from(["data", "load_state_dict", "average"]))
    def write(self, way: str) -> None:
        parameter = next(each for name, each in self.model.unet.named_parameters() if "attn2.to_k" in name)
        if way == "data":
            parameter.data.mul_(1.01)
        elif way == "average":  # as diffusers' EMAModel.copy_to
            parameter.data.copy_((0.9 * parameter.data + 0.1).to(parameter.device))
        else:
            self.model.unet.load_state_dict({name: each * 1.01 for name, each in self.model.unet.state_dict().items()})
        self.foreign, self.caught = self.foreign or way, self.caught or bool(self.model.edits.names())

    @rule()
    def fuse_projections(self) -> None:
        if self.wrapped:
            return  # diffusers cannot fuse layers that peft wrapped
        self.pipeline.fuse_qkv_projections()
        self.pipeline.unfuse_qkv_projections()

    def assert_base(self, model: TextToImage) -> None:
        """Every entry's bits are the base's, at the precision that it was moved to."""
        found = named_tensors(model.components)
        assert found.keys() == self.base.keys()
        for name, each in found.items():
            wanted = self.base[name].to(each.dtype)
            assert torch.equal(each.detach().view(-1).view(torch.uint8), wanted.view(-1).view(torch.uint8)), name

    def teardown(self) -> None:
        stack, tokenizer = self.model.edits, self.pipeline.tokenizer
        before_clearing = {name: content(module) for name, module in self.model.components.items()}
        try:
            stack.clear()
            assert not self.caught, "entries of the old base were written over a stranger's"
        except PhotopicError as refusal:
            assert self.foreign and "changed by something else" in str(refusal)
            assert before_clearing == {name: content(module) for name, module in self.model.components.items()}
            stack.forget()
        if self.wrapped:
            self.pipeline.unload_lora_weights()
        for number in range(self.inversions):
            assert f"<theirs{number}>" in tokenizer.get_vocab()
        assert "sks" not in tokenizer.get_vocab()
        if not self.foreign:
            self.assert_base(self.model)
            assert tokenizer.get_vocab() == self.words
            if self.dtype == torch.float32:
                assert self.model.digest() == self.edits[0].base.digest
        with suppress(EditError):
            stack.forget()
        self.folder.cleanup()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of peft: several adapters, merged ones
@pytest.mark.timeout(0 if COUNT else 300)
def test_programs_among_others_end_at_the_base_or_say_why() -> None:
    checks = settings(
        max_examples=COUNT or 6,
        derandomize=not COUNT,  # the same programs at every run of the suite
        phases=[Phase.generate],  # a program is short as it is; to make it shorter takes minutes
        stateful_step_count=12,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Programs, settings=checks)


@pytest.mark.parametrize("way", ["data", "load_state_dict", "average"])
def test_a_program_in_which_a_stranger_writes_over_a_loaded_edit_ends_with_a_refusal(way: str) -> None:
    state = Programs()  # few of the programs that are drawn do this
    state.begin(alone=False)
    state.load(0, 1.0, "last")
    state.write(way)
    assert state.caught
    state.teardown()

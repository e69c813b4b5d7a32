"""Random programs over a pipeline that others use too: at the end the base's bytes are back, or a refusal said why.

``PHOTOPIC_PROGRAMS=1000 pytest tests/core/edits/test_programs_among_others.py`` runs more of them.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from photopic.core.edits import Edit, LowRankDelta, SparseWeights, SteeringVector, TokenEmbedding, ZeroedWeights
from photopic.core.errors import PhotopicError
from photopic.models.text_to_image.handle import TextToImage
from tests.core.small import content
from tests.tiny import tiny_pipeline

COUNT = int(os.environ.get("PHOTOPIC_PROGRAMS", "6"))
ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn2"
NORM = "text_encoder.final_layer_norm.weight"
numbers = st.integers(0, 4)


class Programs(RuleBasedStateMachine):
    """The tiny pipeline; ``foreign`` once somebody else changed what it computes with."""

    def __init__(self) -> None:
        super().__init__()
        self.model = TextToImage(tiny_pipeline(), "tiny")
        self.before, self.words = self.bytes(), self.model.pipeline.tokenizer.get_vocab()
        base = self.model.fingerprint(f"{ATTENTION}.to_k.weight", f"{ATTENTION}.to_v.weight", NORM)
        name, other = f"{ATTENTION}.to_k.weight", f"{ATTENTION}.to_v.weight"
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
        self.foreign, self.inversions = "", 0

    def bytes(self, model: TextToImage | None = None) -> dict[str, str]:
        return {name: content(module) for name, module in (model or self.model).components.items()}

    def attempt(self, act: Any) -> None:
        """A refusal is one line; without a stranger's change only edits may refuse each other."""
        try:
            act()
        except PhotopicError as refusal:
            assert "\n" not in str(refusal) and str(refusal)

    @rule(number=numbers, weight=st.sampled_from([1.0, 1.0, 0.5, 0.0]), overlap=st.sampled_from(["error", "last"]))
    def load(self, number: int, weight: float, overlap: Any) -> None:
        self.attempt(lambda: self.model.edits.load(self.edits[number], weight=weight, overlap=overlap))

    @rule(number=numbers)
    def unload(self, number: int) -> None:
        names = self.model.edits.names()
        self.attempt(lambda: self.model.edits.unload(*names[number : number + 1]))

    @rule(number=numbers)
    def apply(self, number: int) -> None:
        def act() -> None:
            with self.model.edits.applied(self.edits[number], overlap="last"):
                self.model.pipeline.text_encoder(torch.tensor([[1, 2]]))

        self.attempt(act)

    @rule()
    def copy(self) -> None:
        other = copy.deepcopy(self.model)
        self.attempt(other.edits.clear)
        other.edits.forget()
        if not self.foreign:
            assert other.digest() == self.edits[0].base.digest

    @precondition(lambda self: not self.foreign and not self.model.edits.names())
    @rule()
    def fuse(self) -> None:
        self.model.edits.load(self.edits[0])
        self.model.edits.fuse()
        self.foreign = "fused"

    @precondition(lambda self: self.foreign != "cast")
    @rule()
    def move_to_half_and_back(self) -> None:
        self.model.pipeline.to(dtype=torch.bfloat16)
        self.model.pipeline.to(dtype=torch.float32)
        self.foreign = "cast"

    @precondition(lambda self: self.inversions < 2)
    @rule()
    def invert(self) -> None:
        self.model.pipeline.load_textual_inversion({f"<theirs{self.inversions}>": torch.ones(1, 32)})
        self.inversions, self.foreign = self.inversions + 1, self.foreign or "inversion"

    @rule()
    def write_through_data(self) -> None:
        self.model.unet.get_parameter(f"{ATTENTION[5:]}.to_k.weight").data.mul_(1.01)
        self.foreign = self.foreign or "data"

    @rule()
    def fuse_projections(self) -> None:
        self.model.pipeline.fuse_qkv_projections()
        self.model.pipeline.unfuse_qkv_projections()

    def teardown(self) -> None:
        stack, tokenizer = self.model.edits, self.model.pipeline.tokenizer
        before_clearing = self.bytes()
        try:
            stack.clear()
        except PhotopicError as refusal:
            assert self.foreign and "changed by something else" in str(refusal)
            assert self.bytes() == before_clearing  # nothing was written over
            stack.forget()
        for number in range(self.inversions):
            assert f"<theirs{number}>" in tokenizer.get_vocab()
        assert "sks" not in tokenizer.get_vocab()
        if not self.foreign:
            plain = {name: part for name, part in self.model.components.items() if name != "unet"}
            assert {name: content(part) for name, part in plain.items()} == {name: self.before[name] for name in plain}
            assert self.model.digest() == self.edits[0].base.digest and tokenizer.get_vocab() == self.words


@pytest.mark.timeout(0 if COUNT > 100 else 300)
def test_programs_among_others_end_at_the_base_or_say_why(tmp_path: Path) -> None:
    checks = settings(
        max_examples=COUNT, stateful_step_count=8, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(Programs, settings=checks)

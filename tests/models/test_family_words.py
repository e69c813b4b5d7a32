"""Transformer pipelines: words are found where the network reads them, layouts and attention maps look at the text's share."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch import Tensor

from photopic.core.edits import Edit, TokenEmbedding
from photopic.core.errors import ModelError
from photopic.core.nn.attention import JointCall, Place, capture_joint_attention
from photopic.core.sampling import Control, Step
from photopic.data.layout import Layout, Region
from photopic.generate.guidance.layout_guidance import LayoutGuidance
from photopic.learning.subject.new_token import check_noun, new_rows
from photopic.locate.attention import AttentionConfig, attention
from photopic.models.text_to_image.families import FAMILIES
from photopic.models.text_to_image.latents import latent_shape
from photopic.models.text_to_image.text_positions import TEXTS, own_tokens
from photopic.models.text_to_image.transformer_conditioning import TransformerConditioning
from photopic.models.text_to_image.transformer_handle import TransformerTextToImage
from tests.tiny_transformers import STEPS, drawn, handle_of, kind_of, shared_handle, tensors_of, word_tokenizer

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers, importing its own old names
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of its DPM solver
]
PROMPT = "a bear on a red background"
# where the first word stands: a system prompt before it, learnt tokens, the sign of an instruction
FIRST = {"AuraFlowPipeline": 8, "OvisImagePipeline": 1, "ZImagePipeline": 3, "Flux2KleinPipeline": 3}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> TransformerTextToImage:
    return shared_handle(request.param)


def test_a_words_positions_are_where_the_network_is_told_it(model: TransformerTextToImage) -> None:
    found = model.token_positions(PROMPT, "bear")
    assert len(found) == (
        2 if kind_of(model) == "StableDiffusion3Pipeline" else 1
    )  # two encoders' tokens, one behind the other
    whole = model.token_positions(PROMPT, "bear on a red")
    assert set(found) < set(whole) and len(whole) == 4 * len(found)
    assert model.token_positions(PROMPT, "a") == sorted(each + gap for each in found for gap in (-1, 2))
    if kind_of(model) in FIRST:
        assert found[0] - 1 == FIRST[kind_of(model)]
    with pytest.raises(ModelError, match="'cat' is not a word of the prompt"):
        model.token_positions(PROMPT, "cat")


def test_a_new_word_is_one_token_whose_row_acts_in_every_text_encoder(model: TransformerTextToImage) -> None:
    words, base = new_rows(model, "<mine>", "bear", start="random"), model.fingerprint()
    # quotes are what the encoder of bytes reads
    prompt = 'a "<mine>" bear' if kind_of(model) == "HunyuanImagePipeline" else "a <mine> bear"

    def told(rows: dict[str, Tensor]) -> tuple[list[Tensor], list[int]]:
        with model.edits.applied(Edit((TokenEmbedding("<mine>", rows),), base, {})):
            return tensors_of(model.encode_prompts(prompt).rows[0]), model.token_positions(prompt, "<mine>")

    plain, found = told(dict(words.rows))
    assert len(found) == (2 if kind_of(model) in ("StableDiffusion3Pipeline", "HunyuanImagePipeline") else 1)
    for encoder, row in words.rows.items():
        other = told(dict(words.rows) | {encoder: row + 1})[0]
        assert any(not torch.equal(*pair) for pair in zip(plain, other, strict=True)), encoder
    assert all("<mine>" not in tokenizer.get_vocab() for tokenizer in model.tokenizers.values())


def test_attention_maps_are_the_texts_share_and_change_no_bit(model: TransformerTextToImage) -> None:
    said = model.encode_prompts([PROMPT] * 2)  # of one length, or the maps of all tokens would not add up
    shape = latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
    latents, times = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 300])
    with torch.no_grad():
        plain = model.predict(latents, times, said)
        with capture_joint_attention() as maps:
            watched = model.predict(latents, times, said)
    assert (watched - plain).norm() <= 1e-5 * plain.norm()  # rows of several lengths are looked at one by one
    if not model.family.ragged:
        assert torch.equal(watched, plain)
    height, width = (side // model._denoiser._patch for side in shape[1:])
    for name, size in maps.resolutions.items():
        assert size == (height, width)
        share = maps.sums[name].sum(0) / maps.counts[name]  # (tokens, h, w) -> (h, w)
        assert share.min() > 0 and share.max() <= 1 + 1e-5
    assert maps.sums and all(count == 2 for count in maps.counts.values())


def test_a_words_column_is_that_of_its_key(model: TransformerTextToImage) -> None:
    """In the first layer another embedding of one token moves the scores of its own column, and of no other but by refiners."""
    (row,), (where, *_) = model.encode_prompts(PROMPT).rows, model.token_positions(PROMPT, "bear")
    name = next(each for each in TEXTS if each in row)
    changed = [each.clone() for each in row[name]]
    changed[0][where - model.family.registers] += 1  # (tokens, ...)
    other = row | {name: changed if isinstance(row[name], list) else torch.stack(changed)}
    shape = latent_shape(model.pipeline, model.family, model.image_size, model.image_size)
    latents, seen = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0)), []

    def keep(scores: Tensor, place: Place) -> Tensor:
        seen.append(scores.clone())
        return scores

    for each in (row, other):
        with torch.no_grad(), model._denoiser.rewriting(keep):
            model.predict(latents, torch.tensor([500]), TransformerConditioning((each,), ("",)))
    moved = (seen[0] - seen[len(seen) // 2]).abs().amax((0, 1, 2))  # (batch, heads, cells, tokens) -> (tokens,)
    assert moved[where] > 0
    if not any(keys.refines for keys in model.family.text_keys):
        assert moved.count_nonzero() == 1


class Shut(Control):
    """No cell reads some positions."""

    def __init__(self, positions: list[int]):
        self.positions, self.seen = positions, []

    def attention(self, scores: Tensor, place: object, step: Step) -> Tensor:
        self.seen.append((tuple(scores.shape), step.guided))
        return scores.index_fill(-1, torch.tensor(self.positions), -torch.inf)


def test_a_control_rewrites_what_pictures_read_of_text(model: TransformerTextToImage) -> None:
    bear = model.token_positions(PROMPT, "bear")
    control = Shut(bear)
    with model.text_maps([bear, [bear[0] - 1]]) as maps:
        pictures = model.generate(PROMPT, seeds=[0], steps=STEPS, guidance=4.0, controls=[control])
    assert control.seen and all(shape[0] == 1 and not guided for shape, guided in control.seen)
    assert not maps.mean()[0].any() and maps.mean()[1].any()
    assert pictures.shape[1:3] == (model.image_size,) * 2
    none = Shut([])
    none.attention = lambda scores, place, step: scores  # type: ignore[method-assign]
    same = model.generate(PROMPT, seeds=[0], steps=STEPS, guidance=4.0, controls=[none]).astype(int)
    assert abs(same - drawn(model, [PROMPT], [0], 4.0)[1]).max() <= 1  # computed by hand it only rounds otherwise


@pytest.mark.parametrize("kind", ["FluxPipeline", "Lumina2Pipeline"])
def test_a_layout_follows_each_prompt_of_a_batch(kind: str) -> None:
    model = shared_handle(kind)
    prompts = ["a bear and a mug", "a red background with a bear and a mug"]  # the words stand at other places
    layout = Layout((Region("bear", (0.0, 0.0, 0.5, 1.0)), Region("mug", (0.5, 0.0, 1.0, 1.0))))
    for prompt in prompts:
        with model.text_maps([model.token_positions(prompt, word) for word in ("bear", "mug")]) as maps:
            model.generate(prompt, seeds=[0], steps=STEPS, controls=[LayoutGuidance(layout)])
        bear, mug = maps.mean()
        half = bear.shape[1] // 2
        assert bear[:, half:].sum() < 0.05 * bear.sum() and mug[:, :half].sum() < 0.05 * mug.sum()
    together = model.generate(prompts, seeds=[0, 1], steps=STEPS, controls=[LayoutGuidance(layout)])
    alone = model.generate(prompts[1], seeds=[1], steps=STEPS, controls=[LayoutGuidance(layout)])
    assert abs(together[1].astype(int) - alone[0]).max() <= 1  # each prompt's own positions


def test_the_map_of_a_word_is_drawn() -> None:
    model = shared_handle("QwenImagePipeline")
    found = attention(model, PROMPT, ["bear", "[start]"], config=AttentionConfig(steps=STEPS))
    assert found.values.shape == (1, 2, 4, 4) and (found.values > 0).all()


def test_spans_of_queries_and_keys() -> None:
    def call(image_first: bool, padded: int = 1, crossed: bool = False) -> JointCall:
        return JointCall(2, 2, image_first, crossed, padded, (0,), (0,), ())

    assert call(False).spans(9, 9) == (slice(5, 9), slice(0, 5))
    assert call(True, 32).spans(64, 64) == (slice(0, 4), slice(32, 64))  # behind what the picture is padded to
    assert call(False).spans(4, 9) == (slice(0, 4), slice(0, 5))  # the text reads nothing
    assert call(False, crossed=True).spans(4, 9) == (slice(0, 4), slice(0, 9))
    assert call(False).spans(4, 4) is None and call(False).spans(5, 9) is None


@pytest.mark.parametrize(
    ("prompt", "before"),
    [("a bear", "a bear in a red house"), ("A Bear", "")],  # templates that say words of the prompt, and lost capitals
)
def test_a_prompts_own_tokens_are_found_behind_a_template(prompt: str, before: str) -> None:
    tokenizer = word_tokenizer(end=False)
    ids = tokenizer(f"{before} {prompt.lower()}").input_ids
    own = own_tokens(tokenizer, prompt, [0, 0, *ids, 0])
    assert [prompt[slice(*own[place])].lower() for place in sorted(own)] == prompt.lower().split()
    assert min(own) == 2 + len(before.split())


def test_bytes_are_counted_as_characters() -> None:
    tokenizer = transformers.ByT5Tokenizer()
    prompt = "ein Bär"
    own = own_tokens(tokenizer, prompt, tokenizer(prompt).input_ids)
    assert [own[place] for place in sorted(own)][-4:] == [
        (4, 5),
        (5, 6),
        (5, 6),
        (6, 7),
    ]  # B, two bytes of one letter, r


def test_words_of_a_tokenizer_of_bytes_come_and_go() -> None:
    model = handle_of("HunyuanImagePipeline")
    model.pipeline.tokenizer_2 = transformers.ByT5Tokenizer(model_max_length=16)
    model.pipeline.text_encoder_2.resize_token_embeddings(512)
    check_noun(model, "bear")  # of which every byte is known
    tokenizer, base = model.pipeline.tokenizer_2, model.fingerprint()
    before = dict(tokenizer.get_vocab())
    stack = model.edits
    for word in ("<one>", "<two>", "<three>"):
        stack.load(Edit((new_rows(model, word, "bear", start="random"),), base, {}), name=word)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("<one>", "<two>", "<three>")}
    stack.unload("<two>")
    assert {word: tokenizer.convert_tokens_to_ids(word) for word in ("<one>", "<three>")} == {
        word: ids[word] for word in ("<one>", "<three>")
    }
    assert tokenizer.tokenize("<two>") == list("<two>") and tokenizer.tokenize("a <one>")[-1] == "<one>"
    found = model.token_positions('a "<one>" bear', "<one>")
    assert len(found) == 2 and found[0] < found[1]  # bytes before words
    stack.clear()
    assert dict(tokenizer.get_vocab()) == before

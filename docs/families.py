"""The generated tables of docs/pipelines.md: the transformer pipelines, and feature x family x verified how.

A feature names the tests that show it; a test that is not there any more stops the build.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from photopic.models.text_to_image.families import FAMILIES, Family

TESTS = Path(__file__).resolve().parents[1] / "tests"


# whose transformers diffusers 0.42 reads from no single file
NOT_IN_ONE_FILE = "PixArtSigma CogView4 PRX OvisImage LongCatImage NucleusMoEImage HunyuanImage Ideogram4".split()


@dataclass(frozen=True)
class Feature:
    """What the library does with a model.

    Attributes:
        what: In a few words.
        test: That shows it, as file and function.
        how: What the test compares.
        of: Of which families; it was tried on each of them where ``every`` says so, else on those that ``how`` names.
        every: Whether the test runs over all of them.
    """

    what: str
    test: tuple[str, str]
    how: str
    of: Callable[[Family], bool] = lambda family: True
    every: bool = True


FEATURES = (
    Feature(
        "predictions and pictures",
        ("models/test_families", "test_predictions_and_pictures_are_the_stock_pipelines"),
        "what the scheduler is given, to a relative 1e-5 of the stock pipeline's, Sana 2e-4; pictures at most 1 of 255 "
        "apart; one prompt without guidance, two with it (CogView4, PRX: one at a time)",
    ),
    Feature(
        "VAE round trip",
        ("models/test_families", "test_encoded_images_are_what_the_vae_decodes"),
        "what `encode_images` gives is what the pipeline's rule makes into the VAE's own mean again, to 1e-6",
    ),
    Feature(
        "time and sign measured at load",
        ("models/test_families", "test_measured_time_and_sign_are_those_of_the_table"),
        "two recorded steps against the table; in bfloat16 to the bit as the pipeline rounds",
    ),
    Feature(
        "what the text keys read",
        ("models/test_families", "test_what_goes_through_the_text_keys_is_what_the_table_says"),
        "their inputs at two pictures and two times",
    ),
    Feature(
        "edits",
        ("models/test_family_edits", "test_an_edit_goes_without_a_trace"),
        "applied and reverted, every byte of the model as before, in float32 and bfloat16",
    ),
    Feature(
        "`concept_neurons`, new words",
        ("models/test_family_search", "test_three_steps_of_a_search_touch_only_text_keys_and_values"),
        "three steps of a search: only rows of the table are touched, and the new word is read by every text encoder",
    ),
    Feature(
        "edits of fused matrices by rows",
        ("models/test_family_edits", "test_rows_of_a_fused_matrix_are_its_keys"),
        "without these rows the keys of the layer are zero, on Flux 2",
        lambda family: any(keys.fused for keys in family.text_keys),
        every=False,
    ),
    Feature(
        "words in prompts",
        ("models/test_family_words", "test_a_words_positions_are_where_the_network_is_told_it"),
        "in templated, padded, doubled and registered sequences, followed through the pipeline",
    ),
    Feature(
        "attention maps",
        ("models/test_family_words", "test_attention_maps_are_the_texts_share_and_change_no_bit"),
        "shares of a softmax over all keys, at most 1, on the grid of the latents; nothing else changes",
    ),
    Feature(
        "controls that rewrite attention to text",
        ("models/test_family_words", "test_a_control_rewrites_what_pictures_read_of_text"),
        "a token that is shut gets nothing; one that changes nothing draws the same picture",
    ),
    Feature(
        "layouts",
        ("models/test_family_features", "test_a_layout_puts_the_attention_to_a_word_into_its_region"),
        "at least 95 % of a word's attention in its region; in a batch each prompt's own positions, on Flux and Lumina 2",
    ),
    Feature(
        "image to image, masks",
        (
            "models/test_family_features",
            "test_a_picture_is_drawn_from_its_noise_level_on_and_what_is_known_is_put_back",
        ),
        "the first latents and, outside the mask, those of every step are the picture's at the noise level of the time that the "
        "network is told, and the last the picture's own; pictures to the bit, on Flux and PixArt Sigma",
    ),
    Feature(
        "schedulers `euler`, `heun`, `dpm++`, `dpm++-sde`, `lcm`",
        ("models/test_family_features", "test_every_sampler_ends_where_a_perfect_prediction_points"),
        "with a perfect prediction each ends at its picture, and the network is told the time of its noise (`dpm++-sde`: on Flux "
        "and CogView4); Heun as the stock pipeline with it, on Stable Diffusion 3",
        lambda family: family.predicts == "velocity",
    ),
    Feature(
        "LoRA files in and out (diffusers, kohya and musubi, ComfyUI and ai-toolkit)",
        ("edit/interop/test_transformer_lora", "test_every_naming_means_the_same_change"),
        "written and read in three namings on six classes; Flux and Qwen-Image against diffusers' own loading",
        every=False,
    ),
    Feature(
        "token residuals",
        ("models/test_family_residuals", "test_a_residual_is_added_where_its_word_stands_and_nowhere_else"),
        "what the transformer is told changes at the word's positions alone, from each text encoder but Flux's CLIP, which is read "
        "as one vector; CLIP's, T5's and chat models' tokenizers, bytes and sentencepiece",
        lambda family: not family.by_layers,
    ),
    Feature(
        "learning token residuals (`tune residual`)",
        ("models/test_family_residuals", "test_what_learns_reaches_the_transformer_as_its_edit_does"),
        "what learns is told to the transformer as its edit is, at the precision of files, and gradients come back to each number; "
        "that it lowers the loss, on Stable Diffusion 3, Flux and Qwen-Image",
        lambda family: not family.by_layers,
    ),
    Feature(
        "inversion",
        ("models/test_family_traps", "test_inversion_finds_the_noise_that_a_picture_was_drawn_from"),
        "from the last latents to the start noise along Euler's steps, to 2 % after 20 refinements that come nearer and nearer",
        lambda family: family.predicts == "velocity" and not family.crossed,
    ),
    Feature(
        "pictures that are not square",
        ("models/test_family_traps", "test_pictures_that_are_not_square_are_the_stock_pipelines"),
        "predictions of the stock pipeline, to 1e-5, on Lumina 2, LongCat, Qwen-Image and Flux",
        every=False,
    ),
    Feature(
        "`measure slopes`",
        ("models/test_family_traps", "test_a_probe_sees_the_same_denoiser_as_the_loss"),
        "the noise it implies against the model's own schedule, on Flux, CogView4, Lumina 2 and PixArt Sigma",
        every=False,
    ),
    Feature(
        "pipelines that lack a part",
        ("models/test_family_refusals", "test_a_missing_part_is_named_in_one_line"),
        "each part of each class taken away: it is named in one line; Stable Diffusion 3 draws without its third text encoder",
    ),
    Feature(
        "negative prompts",
        ("models/test_family_refusals", "test_a_negative_prompt_acts_or_is_refused_in_one_line"),
        "they change what the unconditional half is told, or are refused in one line where they would do nothing; distilled Klein "
        "and HunyuanImage too",
    ),
    Feature(
        "edits of another model",
        ("models/test_family_traps", "test_another_familys_edit_is_refused_in_one_line"),
        "refused in one line",
    ),
    Feature(
        "8-bit floats kept by layerwise casting",
        ("core/edits/test_branches", "test_a_transformer_under_layerwise_casting_is_edited_and_comes_back"),
        "an edit stands beside the frozen matrix as a branch and leaves no trace, on Flux, Qwen-Image, Z-Image and Sana",
        every=False,
    ),
    Feature(
        "a transformer in a GGUF file",
        ("core/edits/test_quantised_pipelines", "test_a_gguf_file_beside_its_pipeline_is_loaded_and_edited"),
        "loaded beside its pipeline; edits act, go without a trace, are saved for this base and draw as on the numbers that it "
        "stands for, to 2 of 255, on Qwen-Image and Z-Image (Q8_0)",
        lambda family: not any(family is FAMILIES[f"{kind}Pipeline"] for kind in NOT_IN_ONE_FILE),
        every=False,
    ),
    Feature(
        "a transformer quantised by torchao",
        ("core/edits/test_quantised_pipelines", "test_a_transformer_quantised_by_torchao_is_loaded_and_edited"),
        "as above, and saved and loaded again, on Qwen-Image and Z-Image (8-bit whole and floating-point numbers), where torchao "
        "is installed (0.18, a processor)",
        every=False,
    ),
    Feature(
        "8 bits of bitsandbytes",
        ("core/edits/test_branches", "test_a_transformer_in_8_bits_of_bitsandbytes_is_edited_and_comes_back"),
        "as above, on Flux, where bitsandbytes is installed (0.50, a processor)",
        every=False,
    ),
    Feature(
        "weights offloaded to memory",
        ("core/edits/test_branches", "test_an_offloaded_transformer_is_edited_and_comes_back"),
        "the pictures of an edited model and of the model afterwards, on Flux: `enable_model_cpu_offload`, `enable_group_offload`, "
        "accelerate's `cpu_offload`, hooks a model and `device_map`; on Chroma, Qwen-Image, Z-Image and Sana each one of "
        "them",
        every=False,
    ),
    Feature(
        "weights offloaded to a disk",
        ("core/edits/test_branches", "test_what_is_offloaded_to_a_disk_draws_and_is_not_edited"),
        "the model draws as before, an edit is refused, on Flux: accelerate's `disk_offload` and `device_map`, groups of diffusers",
        every=False,
    ),
    Feature(
        "search with blocks computed again",
        ("models/test_family_edits", "test_blocks_computed_again_give_the_same_gradients_in_less_memory"),
        "gradients and bytes, on Stable Diffusion 3, Flux and Ideogram 4",
        every=False,
    ),
    Feature(
        "`measure diffusion-classifier`",
        (
            "models/test_family_features",
            "test_the_diffusion_classifiers_error_is_that_of_the_noise_a_prediction_implies",
        ),
        "its error against the formula",
    ),
)


def family_table() -> Iterator[str]:
    """One row a transformer pipeline: how it is called, and what of it is searched."""
    guided = {
        "negative": "a negative prompt",
        "empty": "the empty prompt",
        "none": "nothing: the number goes into the network",
    }
    streams = {
        "text": "text alone",
        "separate": "text's own, its input moves with picture and time",
        "shared": "the picture's too",
    }
    columns = (
        "pipeline",
        "guidance leads away from",
        "its own number for guidance g",
        "scheduler",
        "matrices searched",
    )
    yield f"| {' | '.join(columns)}, and what goes through them |"
    yield "|---|---|---|---|---|"
    for kind, family in FAMILIES.items():
        number = "g" + (f" - {family.extra:g}" if family.extra else "")
        searched = "; ".join(
            f"`{keys.key.removesuffix('.weight')}` ({streams[keys.stream]})" for keys in family.text_keys
        )
        by = "flow matching" if family.predicts == "velocity" else "discrete, as for UNets"
        yield f"| `{kind}` | {guided[family.unconditional]} | `{family.scale}` = {number} | {by} | {searched} |"


def feature_table() -> Iterator[str]:
    """One row a feature: for which families, and verified how.

    Raises:
        KeyError: If a test is not there.
    """
    yield "| feature | classes | tried on | verified how |"
    yield "|---|---|---|---|"
    for feature in FEATURES:
        file, name = feature.test
        written = {
            node.name
            for node in ast.parse((TESTS / f"{file}.py").read_text()).body
            if isinstance(node, ast.FunctionDef)
        }
        if name not in written:
            raise KeyError(f"{file}.py has no {name}, which docs/families.py names")
        found = [kind for kind, family in FAMILIES.items() if feature.of(family)]
        which = (
            "all" if len(found) == len(FAMILIES) else ", ".join(f"`{kind.removesuffix('Pipeline')}`" for kind in found)
        )
        if 0 < len(missing := FAMILIES.keys() - found) <= 3:
            which = "all but " + ", ".join(f"`{kind.removesuffix('Pipeline')}`" for kind in FAMILIES if kind in missing)
        yield f"| {feature.what} | {which} | {'each' if feature.every else 'some'} | {feature.how}: `{file}.py` |"


TABLES: Mapping[str, Callable[[], Iterator[str]]] = {"table": family_table, "features": feature_table}

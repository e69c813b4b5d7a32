"""Run a benchmark: ``python -m benchmarks layout``; ``--help`` after its name tells its options.

python -m benchmarks --list 'few*'     # names that fit
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

# Where each benchmark is, by the name of its result; two of one module share what they measure with.
MODULES = {
    "adaptive-guidance": "generate.adaptive_guidance",
    "aro": "measure.aro",
    "attribution": "locate.attribution",
    "attribution-peers": "locate.attribution_peers",
    "bacon-captions": "knowledge.bacon_captions",
    "bacon-grounding": "knowledge.bacon_grounding",
    "bacon-redraw": "knowledge.bacon_redraw",
    "break-a-scene": "tune.break_a_scene",
    "bundled-model": "models.bundled_model",
    "byte-front": "locate.byte_front",
    "color-mae": "train.masked",
    "composer": "generate.composer",
    "composition": "generate.composition",
    "concept-neurons": "locate.concept_neurons",
    "concept-neurons-small-batch": "locate.concept_neurons",
    "condition-dropout": "train.condition_dropout",
    "conditions": "measure.conditions",
    "contrastive": "train.contrastive",
    "covlasso": "measure.covlasso",
    "customisation": "tune.customisation",
    "dagnn": "knowledge.dagnn",
    "dann": "train.adaptation",
    "dependencies": "measure.dependencies",
    "dvdp": "train.dvdp",
    "edit-costs": "edit.edit_costs",
    "emoji-gan": "models.generator",
    "entropy-scaling": "generate.entropy_scaling",
    "few-shot": "tune.few_shot",
    "few-shot-action": "tune.few_shot_action",
    "file-rate": "edit.file_rate",
    "fingerprint-rate": "edit.fingerprint_rate",
    "firewall": "guard.firewall",
    "firewall-vit": "guard.firewall",
    "fisher-weights": "edit.fisher_weights",
    "flow-composition": "tune.flow_composition",
    "flow-costs": "models.flow",
    "flow-neurons": "locate.flow_neurons",
    "fmix": "train.mixed_samples",
    "geometry": "train.geometry",
    "gan-costs": "locate.latent_directions",
    "good-seeds": "generate.good_seeds",
    "graph-contrast": "tune.graph_contrast",
    "guard-costs": "guard.guard_costs",
    "guard-serve": "guard.guard_serve",
    "index-code": "edit.index_code",
    "extrapolation": "tune.latents",
    "knowledge-graph": "knowledge.graph_building",
    "knowledge-text": "knowledge.knowledge_text",
    "hard-sketch": "generate.hard_sketch",
    "inpainting-protection": "guard.inpainting_protection",
    "jackpots": "tune.sparse_towers",
    "layout": "generate.layout",
    "linear-guidance": "generate.linear_guidance",
    "linked-latents": "tune.latents",
    "links": "knowledge.links",
    "lora-files": "edit.lora_files",
    "low-rank": "locate.latent_directions",
    "low-rank-bundled": "locate.bundled_directions",
    "mask-tuning": "tune.mask_tuning",
    "masked-speed": "train.masked",
    "merging": "edit.merging",
    "negclip": "train.contrastive",
    "negative-token-merging": "generate.negative_token_merging",
    "network-rank": "measure.network_rank",
    "noise-injection": "train.noise_injection",
    "open-set": "guard.open_set",
    "open-set-digits": "guard.open_set",
    "oracle": "metrics.oracle",
    "oracle-128": "metrics.oracle_128",
    "perception": "measure.perception",
    "projection": "tune.projection",
    "protection": "guard.protection",
    "race": "tune.race.run",
    "race-search": "tune.race.searching",
    "race-search-half": "tune.race.searching",
    "random-pruning": "tune.sparse_towers",
    "reward": "tune.reward",
    "reward-parameters": "tune.reward",
    "robustness": "guard.robustness",
    "saturation": "guard.saturation",
    "sd15-shape": "locate.sd15_shape",
    "sd3-shape": "locate.sd3_shape",
    "sfda": "train.adaptation",
    "shared-timesteps": "train.shared_timesteps",
    "skeleton": "train.skeleton",
    "skeleton-128": "train.skeleton",
    "start": "models.start",
    "style-injection": "generate.style_injection",
    "studio": "generate.studio",
    "task-vectors": "edit.task_vectors",
    "transfer": "train.distillation",
    "transfer-score": "measure.transfer_score",
    "unified-tuners": "tune.unified_tuners",
}


def benchmark_named(name: str) -> Any:
    """The benchmark of a name.

    Raises:
        SystemExit: If there is none.
    """
    if name not in MODULES:
        raise SystemExit(f"{name}: expected one of {', '.join(MODULES)}")
    module = importlib.import_module(f"benchmarks.{MODULES[name]}")
    return next(each for each in module.BENCHMARKS if each.name == name)


def main(arguments: Sequence[str]) -> None:
    """Run one benchmark, or list names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        raise SystemExit(f"{__doc__}\n{' '.join(MODULES)}")
    name = arguments[0].replace("_", "-")
    if name == "--list":
        print(*(each for each in MODULES if fnmatchcase(each, [*arguments, "*"][1].replace("_", "-"))), sep="\n")
        return
    benchmark = benchmark_named(name)
    from benchmarks.harness.benchmark import run  # seconds to import

    run(benchmark, arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])

"""What a step of mask tuning costs in time and memory, beside a step of plain fine-tuning on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.harness.benchmark import Row, row
from benchmarks.harness.timing import median_ratio, side_by_side
from photopic.data.few_shot import LabelledImages
from photopic.learning.losses.distillation import Teacher, distillation
from photopic.learning.parameters.binary_mask import BinaryMask, Masked, maskable
from photopic.models.dual_encoder import DualEncoder


def steps_of(model: DualEncoder, data: LabelledImages) -> dict[str, Callable[[], Callable[[], object]]]:
    """One step on the same 32 pictures: plain fine-tuning of the masked tensors, mask tuning, the same with a kept teacher."""
    pixels, labels = model.preprocess(data.images[:32]), torch.from_numpy(data.labels[:32])
    rows, encoder = model.logit_scale * model.class_features(data.names), Masked(model)
    weights = maskable(model)
    main = partial(F.cross_entropy, target=labels)
    index = np.arange(len(pixels))

    def forward(tried: Mapping[str, Tensor]) -> Tensor:
        return encoder(pixels, tried) @ rows.mT

    def plain() -> Callable[[], object]:
        copies = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        adam = torch.optim.Adam(copies.values(), lr=1e-5)

        def step() -> None:
            adam.zero_grad(set_to_none=True)
            main(forward(copies)).backward()
            adam.step()

        return step

    def mask(teacher: Teacher) -> Callable[[], object]:
        state = BinaryMask(weights)

        def step() -> None:
            guide = partial(distillation, teacher=teacher(pixels, index))
            state.step(forward, main, guide, lr=1e-5)

        return step

    unscaled = model.class_features(data.names)
    kept = Teacher(model, unscaled, data.images[:32])
    return {"plain": plain, "mask": lambda: mask(Teacher(model, unscaled)), "kept": lambda: mask(kept)}


def cost_rows(model: DualEncoder, data: LabelledImages, rounds: int) -> Iterator[Row]:
    """Time and memory of a step beside plain fine-tuning."""
    made = steps_of(model, data)
    plain, mask, with_teacher = side_by_side([make() for make in made.values()], rounds, warm_up=1)
    note = (
        f"{median(mask):.3f} s against {median(plain):.3f} s; {median_ratio(with_teacher, plain).value:.2f} with a kept teacher, "
        "without augmentation"
    )
    yield row("mask_tuning.step_time_ratio", median_ratio(mask, plain), n=rounds, note=note)
    base = sum(each.numel() * each.element_size() for each in model.network.parameters())
    peaks = {name: base + peak(make) for name, make in made.items() if name != "kept"}
    note = f"{peaks['mask'] / 2**20:.0f} MiB against {peaks['plain'] / 2**20:.0f}"
    yield row("mask_tuning.peak_memory_ratio", peaks["mask"] / peaks["plain"], note=note)


def peak(make: Callable[[], Callable[[], object]]) -> int:
    """The most bytes held at once of what torch allocates while something is made and runs three times."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step = make()
        for _ in range(3):
            step()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return int(max(np.cumsum([event.nbytes() for event in events])))

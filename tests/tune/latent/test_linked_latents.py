"""Linked latents: the losses of a hand-made generator, the lazy schedule, and that re-rolling touches nothing else."""

from __future__ import annotations

import pytest
import torch

from photopic.core.errors import DataError
from photopic.core.events import last
from photopic.edit.reroll import RerollConfig, reroll, rerolled
from photopic.models.generator import Generator, GeneratorConfig
from photopic.tune.latent.linked_latents import (
    Link,
    LinkedLatentsConfig,
    LinkTuning,
    link_losses,
    linked_latents,
    links_of,
    perturbed,
)

TINY = GeneratorConfig(resolution=16, channels=(8, 8, 4), z_width=8, w_width=8, seed=3)
TOP = "0,0,1,0.5"


@pytest.fixture(scope="module")
def stacked():
    """A picture of 2 x 4 grey pixels, [A w_1; B w_2], and the links of its rows."""
    torch.manual_seed(0)
    a, b = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    top = torch.tensor([[True] * 4, [False] * 4])

    def synthesize(w):
        return torch.stack([w[:, :3] @ a.mT, w[:, 3:] @ b.mT], 1)[:, None]  # (n, 1, 2, 4)

    return synthesize, a, b, top


def losses(synthesize, w, link, shift):
    return link_losses(synthesize(w), *perturbed(synthesize, w, link, shift), link.mask)


def test_a_generator_whose_parts_are_apart_has_no_loss(stacked):
    synthesize, _, _, top = stacked
    w, shift = torch.randn(2, 6, 8).double()
    assert [each.item() for each in losses(synthesize, w, Link(0, 3, top), shift)] == [0.0, 0.0]


def test_with_masks_exchanged_the_expected_losses_are_the_squared_norms(stacked):
    synthesize, a, b, top = stacked
    torch.manual_seed(1)
    w, alpha, wrong = torch.zeros(1, 8).double(), 0.7, Link(0, 3, ~top)
    found = torch.tensor([
        [4 * float(each) for each in losses(synthesize, w, wrong, alpha * torch.randn(1, 8).double())]
        for _ in range(3000)
    ])  # fmt: skip
    expected = alpha**2 * torch.tensor([b.square().sum(), a.square().sum()])
    errors = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - expected).abs() < 3 * errors).all()


def test_without_reach_both_losses_and_their_gradients_are_zero(stacked):
    synthesize, _, _, top = stacked
    w = torch.randn(2, 8).double().requires_grad_()
    inner, outer = losses(synthesize, w, Link(0, 3, ~top), torch.zeros(2, 8).double())
    assert inner.item() == outer.item() == 0
    assert not torch.autograd.grad(inner + outer, w)[0].any()


def tuning(weight: float = 1.0, every: int = 3, regions: tuple[str, ...] = (TOP,), **more: float) -> LinkTuning:
    model = Generator.fresh(TINY, "tiny")
    config = LinkedLatentsConfig(axes=3, weight=weight, every=every, batch=4, **more)

    def pairs(step):
        z = model.sample_z(4, start=4 * step)
        return z, model.synthesize(model.map(z))

    return LinkTuning(model, links_of(model, regions, 3), config, pairs)


@pytest.mark.parametrize(("weight", "looks"), [(1.0, 2), (0.0, 0)])
def test_the_link_is_looked_at_once_every_so_many_steps(weight, looks):
    learner = tuning(weight, likeness=2.0, warm=5)
    numbers = [learner.step(step) for step in range(8)]
    assert learner.looks == looks and sum("leak_in" in each for each in numbers) == looks
    for step, each in enumerate(numbers):  # its gradient counts so many times
        adversarial = min(1, (step + 1) / 5) * each["fooled"]
        assert each["loss"] == pytest.approx(
            2 * each["likeness"] + 3 * (each.get("leak_in", 0) + each.get("leak_out", 0)) + adversarial, rel=1e-5
        )


def test_pictures_with_moved_numbers_are_fakes_too():
    learner, seen = tuning(regions=(TOP, "0,0.5,1,1"), every=2), []
    learner.critic.register_forward_hook(
        lambda _, inputs, __: seen.append((len(inputs[0]), learner.critic.last.weight.requires_grad))
    )
    for step in range(2):
        learner.step(step)
    # fooling with frozen weights, then real and fake: 4 pictures, and with two links 4 * (1 + 2 * 2)
    assert seen == [(4, False), (4, True), (4, True), (20, False), (4, True), (20, True)]


def test_the_discriminator_learns_and_is_none_of_the_edit():
    learner = tuning()
    before = {name: each.clone() for name, each in learner.critic.state_dict().items()}
    learner.step(0)
    assert not torch.equal(learner.critic.state_dict()["last.weight"], before["last.weight"])
    assert not any(name.startswith("critic") for name in learner.tensors)
    silent = tuning(adversary=0.0)
    before = {name: each.clone() for name, each in silent.critic.state_dict().items()}
    assert "fooled" not in silent.step(0)
    assert all(torch.equal(each, before[name]) for name, each in silent.critic.state_dict().items())


def test_a_learner_goes_on_from_its_state_to_the_bit():
    one = tuning()
    for step in range(3):
        one.step(step)
    other = tuning()
    other.restore({name: each.clone() for name, each in one.state().items()})
    assert one.step(3) == other.step(3)
    assert all(torch.equal(each, other.state()[name]) for name, each in one.state().items())


def test_the_gradient_is_the_sum_of_that_of_the_parts():
    learner = tuning(regions=(TOP, "0,0.5,1,1"))
    z, wanted = learner.pairs(0)
    names = [name for name in learner.tensors if name.startswith("synthesis.convs")]

    def gradient(choose):
        w = learner.copy.map(z)
        pictures = learner.copy.synthesize(w)
        parts = [
            (pictures - wanted).square().mean() + w.sum(),
            *(x for each in learner.link_parts(w, pictures, 0)[0] for x in each),
        ]
        return torch.cat(
            [each.flatten() for each in torch.autograd.grad(choose(parts), [learner.tensors[n] for n in names])]
        )

    parts = [gradient(lambda found, place=place: found[place]) for place in range(1, 5)]
    torch.testing.assert_close(gradient(lambda found: sum(found[1:])), sum(parts), rtol=1e-4, atol=1e-6)


def test_groups_are_disjoint_and_regions_have_to_be():
    model = Generator.fresh(TINY, "tiny")
    links = links_of(model, [TOP, "0,0.5,1,1"], 3)
    assert not (links[0].axes(8) & links[1].axes(8)).any() and links[0].axes(8).sum() == 3
    for regions, axes, said in (
        (["0,0,1,0.6", "0,0.5,1,1"], 3, "share pixels"),
        ([], 3, "none"),
        ([TOP], 8, "lower axes"),
    ):
        with pytest.raises(DataError, match=said):
            links_of(model, regions, axes)


def test_re_rolling_leaves_the_other_numbers_to_the_bit_and_says_what_moved():
    w, other = torch.randn(2, 5, 8)
    found = rerolled(w, other, 3, 2)
    assert torch.equal(found[:, :3], w[:, :3]) and torch.equal(found[:, 5:], w[:, 5:])
    assert torch.equal(found[:, 3:5], other[:, 3:5])
    model = Generator.fresh(TINY, "tiny")
    edit = linked_latents(model, regions=[TOP], config=LinkedLatentsConfig(axes=3, steps=3, every=1, batch=4))
    before = model.digest()
    report = last(reroll.events(edit, model, config=RerollConfig(pictures=2, count=3)))
    assert len(report.rows) == 2 and len(report.rows[0]["drawn"]) == 4 and report.values["inside"] > 0
    assert model.digest() == before
    with pytest.raises(DataError, match="2 regions or more"):
        reroll(edit, model, config=RerollConfig(link=2))

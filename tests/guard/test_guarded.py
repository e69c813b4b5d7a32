"""A guarded model: its answers are those of the classifier and of the checks, and the classifier is the same afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import photopic
from photopic.core.edits import DenseDelta, Edit
from photopic.core.errors import DataError, ModelError
from photopic.guard.fitting import GuardConfig
from photopic.guard.guarded import BACKDOOR, OPEN_SET, GuardedModel, Prediction, load_guarded
from photopic.guard.guarded import guarded as guard
from photopic.guard.guardfile import GuardFileError
from photopic.guard.guardfile import load as load_file
from photopic.guard.guardfile import save as save_file
from photopic.guard.open_set import Mahalanobis
from photopic.guard.open_set.guard import OpenSetConfig
from photopic.guard.scaling_consistency import ScalingConsistencyConfig
from photopic.metrics.conformal import conformal_threshold
from photopic.models.classifier import Classifier
from tests.guard.test_scaling_consistency import handle, pictures, predicted, resnet, vit
from tests.processes import printed

WRITING = ("changing.py", "live_model.py", "overwritten.py", "replay.py", "stack.py")
WALL = ScalingConsistencyConfig(error_bound=0.3, false_positive_rate=0.1)


def guarded_by(model: Classifier, *, count: int = 60, **options: Any) -> GuardedModel:
    images = pictures(count)
    return guard(model, **{"backdoor": WALL, **options}).fit(images, predicted(model, images))


def bits(model: Classifier) -> dict[str, bytes]:
    """Every parameter and buffer."""
    return {name: value.numpy().tobytes() for name, value in model.network.state_dict().items()}


def assert_untouched(model: Classifier, before: dict[str, bytes]) -> None:
    assert bits(model) == before
    for part in model.network.modules():
        assert "forward" not in part.__dict__
        assert not part._forward_hooks and not part._forward_pre_hooks


# --- the name


IMPORTS = {
    "at once": "import photopic; f = photopic.guarded",
    "imported as a name": "from photopic import guarded as f",
    "after the package": "import photopic.guard.scaling_consistency; f = photopic.guarded",
}


@pytest.mark.parametrize("order", IMPORTS)
def test_the_function_is_there_in_any_order_of_imports(order: str) -> None:
    code = (
        f"{IMPORTS[order]}\n"
        "from photopic.guard.guarded import guarded\n"
        "assert f is guarded\n"
        "try: f('no such classifier')\n"
        "except ValueError as error: print(error)\n"
    )
    assert "no such model" in printed(code)


def test_naming_the_package_imports_nothing_heavy() -> None:
    code = "import sys, photopic.guard; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert "guarded" in dir(photopic)


# --- answers


@pytest.mark.parametrize("build", [resnet, vit])
def test_answers_are_those_of_the_classifier_and_of_each_check(build: Callable[[], Classifier]) -> None:
    model = build()
    guarded, images = guarded_by(model, open_set="energy"), pictures(9, 1)
    found = photopic.guarded(model, backdoor=WALL, open_set="energy").fit(pictures(60), predicted(model, pictures(60)))
    answers = guarded(images, batch=4)
    assert [each.to_dict() for each in found(images)] == [each.to_dict() for each in guarded(images)]
    expected = model.logits(images).double().softmax(1).max(1)
    assert [each.label for each in answers] == [model.labels[index] for index in expected.indices]
    np.testing.assert_allclose([each.probability for each in answers], expected.values.numpy(), atol=1e-6)
    verdicts = {name: check.predict(images) for name, check in guarded.checks.items()}
    assert list(verdicts) == [BACKDOOR, OPEN_SET]
    for number, answer in enumerate(answers):
        against = [name for name in verdicts if not verdicts[name][number].accepted]
        assert answer.verdict.accepted is (not against) and answer.verdict.evidence["rejected_by"] == against
        for name in verdicts:
            assert answer.verdict.evidence[name]["threshold"] == verdicts[name][number].evidence["threshold"]
            assert (name in answer.verdict.reason) is (name in against or not against)


def test_the_rate_is_shared_by_the_checks_and_kept_by_configurations() -> None:
    model = resnet()
    shared = guard(model, false_positive_rate=0.1)
    assert [check.config.false_positive_rate for check in shared.checks.values()] == [0.05, 0.05]
    assert shared.expected_false_positive_rate == pytest.approx(0.1)
    assert guard(model, open_set=False).checks[BACKDOOR].config.false_positive_rate == 0.05
    own = guard(model, backdoor=False, open_set=OpenSetConfig("knn", false_positive_rate=0.2))
    assert own.expected_false_positive_rate == 0.2 and list(own.checks) == [OPEN_SET]
    assert guard(model, backdoor=replace(WALL, threshold=0.9)).expected_false_positive_rate is None


def test_at_most_the_rate_of_fresh_clean_images_is_rejected() -> None:
    guarded = guarded_by(resnet(), count=400, backdoor=replace(WALL, false_positive_rate=0.05), open_set="msp")
    rejected = np.mean([not each.verdict.accepted for each in guarded(pictures(500, 3))])
    assert 0.01 < rejected < 0.14  # 0.075 expected at most; 200 and 400 clean images


def test_scorers_with_settings_of_their_own() -> None:
    model = resnet()
    guarded = guard(model, backdoor=False, open_set=Mahalanobis("empirical")).fit(
        pictures(80), predicted(model, pictures(80))
    )
    check = guarded.checks[OPEN_SET]
    assert check.config.scorer == "mahalanobis" and check.detector.covariance == "empirical"
    with pytest.raises(DataError, match="covariance: scorer knn has none; mahalanobis and rmds do"):
        GuardConfig(scorer="knn", covariance="empirical")


def test_copies_among_the_clean_pictures_are_told() -> None:
    model, images = resnet(), pictures(60)
    images[30:33] = images[0]
    with pytest.warns(UserWarning, match="3 of 60 clean pictures are copies of others"):
        guard(model, backdoor=False).fit(images, predicted(model, images))


def test_the_threshold_is_that_of_all_doubts() -> None:
    """Only the lowest doubts are summed over all members; the bound is the one that all of them give."""
    for count, rate in ((120, 0.05), (60, 0.3), (200, 0.01)):
        model, images = resnet(), pictures(count)
        wall = guard(model, backdoor=replace(WALL, false_positive_rate=rate), open_set=False).checks[BACKDOOR]
        wall.fit(images, predicted(model, images), batch=16)
        rest = images[np.random.default_rng(0).permutation(count)[count // 2 :]]
        doubts = wall.assess(model.preprocess(rest)).log_doubt
        assert wall.fitted.bound == pytest.approx(-conformal_threshold(-doubts, rate), abs=1e-5)


def test_other_weights_than_those_of_the_fit_are_refused_and_moved_ones_are_not() -> None:
    for options in ({"open_set": False}, {"backdoor": False}):
        model = resnet()
        guarded, images = guarded_by(model, **options), pictures(3)
        expected = [each.to_dict() for each in guarded(images)]
        for parameter in model.network.parameters():
            parameter.data = parameter.data.clone()  # the same numbers elsewhere
        assert [each.to_dict() for each in guarded(images)] == expected
        with torch.no_grad():
            next(model.network.parameters()).mul_(1.01)
        with pytest.raises(ModelError, match="other weights than those the guard was fitted on"):
            guarded(images)


def test_a_model_with_an_edit_in_force_is_refused_until_it_is_gone() -> None:
    model = resnet()
    guarded, images = guarded_by(model), pictures(3)
    name = "network.classifier.1.bias"
    edit = Edit((DenseDelta({name: torch.ones(4)}),), model.fingerprint(name), {})
    with model.edits.applied(edit), pytest.raises(ModelError, match=r"edits are in force .*unload them"):
        guarded(images)
    assert len(guarded(images)) == 3


def test_the_caveats_of_every_check_that_is_on_come_along() -> None:
    model = resnet()
    guarded = guarded_by(model)
    (answer,) = guarded(pictures(1))
    assert list(answer.verdict.provenance["caveats"]) == list(guarded.caveats)
    assert any("without one target class" in line for line in guarded.caveats)
    assert any("unknown class" in line for line in guarded.caveats)
    alone = guard(model, backdoor=False).caveats
    assert not any("target class" in line for line in alone) and len(alone) + 1 == len(guarded.caveats)


def test_it_streams_and_takes_lists_of_pictures_of_any_size() -> None:
    guarded = guarded_by(resnet())
    assert [len(each) for each in guarded.stream(pictures(5), batch=2)] == [2, 2, 1]
    (answer,) = guarded([Image.new("RGB", (40, 20), "red")])
    assert isinstance(answer, Prediction) and answer.verdict.reason


# --- the model stays as it is


@pytest.mark.parametrize("build", [resnet, vit])
def test_the_model_keeps_every_bit_after_many_calls(build: Callable[[], Classifier]) -> None:
    model = build()
    before = bits(model)
    guarded = guarded_by(model)
    for seed in range(5):
        guarded(pictures(3, seed))
    assert_untouched(model, before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("run", [1, 2, 3])
def test_the_model_keeps_every_bit_when_a_call_raises(error: type[BaseException], run: int) -> None:
    model = resnet()
    before, guarded = bits(model), guarded_by(model)
    (last,) = [part for part in model.network.modules() if isinstance(part, nn.Linear)]
    calls = []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) == run:
            raise error("stop")

    hook = last.register_forward_hook(stop)
    with pytest.raises((error, ModelError)):
        guarded(pictures(8))
    hook.remove()
    assert_untouched(model, before)
    assert len(guarded(pictures(2))) == 2


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where the shell started the tests in the background and had SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_at_any_moment_leaves_the_model_as_it_was() -> None:
    """SIGINT at the n-th call of what writes to the model and puts it back, for many n."""
    model = resnet()
    before, guarded = bits(model), guarded_by(model)
    images = pictures(4)
    guarded(images)
    handler = signal.getsignal(signal.SIGINT)

    def interrupted_after(calls: int) -> tuple[int, bool]:
        seen = 0

        def count(frame: FrameType, event: str, _argument: object) -> None:
            nonlocal seen
            if event == "call" and frame.f_code.co_filename.endswith(WRITING):
                seen += 1
                if seen == calls:
                    os.kill(os.getpid(), signal.SIGINT)

        try:
            sys.setprofile(count)
            guarded(images)
        except KeyboardInterrupt:
            return seen, True
        finally:
            sys.setprofile(None)
        return seen, False

    # stacks of other tests that are collected meanwhile are counted too: the fewest are this one's own
    whole = min(interrupted_after(-1)[0] for _ in range(3))
    stops = 0
    for calls in np.linspace(1, whole, 25).astype(int):
        _, stopped = interrupted_after(int(calls))
        stops += stopped
        assert_untouched(model, before)
        assert signal.getsignal(signal.SIGINT) is handler
    assert stops == 25


def test_calls_from_several_threads_give_what_one_gives() -> None:
    model = resnet()
    guarded, other = guarded_by(model), guarded_by(model, open_set=False)  # two guards of one network
    before, images = bits(model), pictures(6, 1)
    expected = {each: [answer.to_dict() for answer in each(images)] for each in (guarded, other)}
    wrong: list[object] = []

    def ask(each: GuardedModel) -> None:
        try:
            for _ in range(4):
                found = [answer.to_dict() for answer in each(images, batch=6)]
                wrong.extend([] if found == expected[each] else [found])
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(each,)) for each in (guarded, other, guarded, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert_untouched(model, before)


# --- files


def test_a_guard_from_its_file_gives_the_same_answers(tmp_path: Path) -> None:
    model, file = resnet(), tmp_path / "net.guard"
    guarded = guarded_by(model, open_set=OpenSetConfig("knn", false_positive_rate=0.1))
    guarded.save(file)
    again = load_guarded(file, model)
    assert again.expected_false_positive_rate == guarded.expected_false_positive_rate
    images = pictures(8, 2)
    assert [each.to_dict() for each in again(images)] == [each.to_dict() for each in guarded(images)]
    again.save(tmp_path / "again.guard")
    assert (tmp_path / "again.guard").read_bytes() == file.read_bytes()


def gray(model: Classifier) -> Classifier:
    """The same network, which its own preprocessing gives gray pictures alone."""

    def reads(images: Any) -> torch.Tensor:
        rows = torch.stack([torch.from_numpy(np.ascontiguousarray(each)).float() / 255 for each in images])  # (n, h, w)
        return nn.functional.interpolate(rows[:, None], (16, 16)).expand(-1, 3, -1, -1)

    return Classifier(model.network, preprocess=reads, labels=model.labels)


def channels_first(model: Classifier) -> Classifier:
    """The same network, which its own preprocessing gives pictures with channels first alone."""

    def reads(images: Any) -> torch.Tensor:
        rows = torch.from_numpy(np.stack(images)).float() / 255  # (n, 3, h, w)
        assert rows.shape[1] == 3
        return nn.functional.interpolate(rows, (16, 16))

    return Classifier(model.network, preprocess=reads, labels=model.labels)


LAYOUTS = {
    "gray": (gray, lambda images: list(images[..., 0])),
    "channels first alone": (channels_first, lambda images: images.transpose(0, 3, 1, 2)),
    "channels first": (lambda model: model, lambda images: images.transpose(0, 3, 1, 2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pictures_of_other_layouts_and_ones_own_preprocessing(layout: str, tmp_path: Path) -> None:
    build, shaped = LAYOUTS[layout]
    model, images = build(resnet()), shaped(pictures(60))
    guarded = guard(model, backdoor=WALL).fit(images, predicted(model, images))
    guarded.save(tmp_path / "a.guard")
    again = load_guarded(tmp_path / "a.guard", model)
    again.save(tmp_path / "b.guard")
    assert (tmp_path / "a.guard").read_bytes() == (tmp_path / "b.guard").read_bytes()
    assert [each.to_dict() for each in again(images[:4])] == [each.to_dict() for each in guarded(images[:4])]
    (single,) = again(images[0])
    assert single.label == again(images[:1])[0].label


def test_a_file_of_other_weights_or_other_settings_is_refused(tmp_path: Path) -> None:
    model, file = resnet(), tmp_path / "net.guard"
    guarded_by(model).save(file)
    other = resnet()
    with torch.no_grad():
        next(other.network.parameters()).flatten()[0] += 1
    with pytest.raises(GuardFileError, match=r"net.guard: fitted on model .* give the model it was fitted on"):
        load_guarded(file, other)
    saved = load_file(file)
    wall, known = saved.checks
    bad = [
        replace(wall, settings={**wall.settings, "size": [0, "x"]}),
        replace(wall, settings={**wall.settings, "fitted": {**wall.settings["fitted"], "layers": ["a"]}}),
        replace(wall, settings={**wall.settings, "config": {"omega": 3}}),
        replace(wall, kind="other"),
    ]
    for check in bad:
        save_file(replace(saved, checks=[check, known]), file)
        with pytest.raises(GuardFileError):
            load_guarded(file, model)
    save_file(replace(saved, checks=[known, known]), file)
    with pytest.raises(GuardFileError, match="each once"):
        load_guarded(file, model)


def test_mistakes_are_refused_by_name(tmp_path: Path) -> None:
    model, images = resnet(), pictures(3)
    with pytest.raises(DataError, match="turn one on"):
        guard(model, backdoor=False, open_set=False)
    with pytest.raises(DataError, match="expected one of msp"):
        guard(model, open_set="mps")
    with pytest.raises(DataError, match="between 0 and 1, found 1"):
        guard(model, false_positive_rate=1.0)
    with pytest.raises(ModelError, match="none to amplify"):
        guard(handle(nn.Sequential(nn.Flatten(), nn.Linear(768, 4))))
    unfitted = guard(model, backdoor=WALL)
    for ask in (lambda: unfitted(images), lambda: unfitted.save(tmp_path / "x")):
        with pytest.raises(ModelError, match="not fitted"):
            ask()
    guarded = guarded_by(model)
    with pytest.raises(DataError, match="at least one"):
        guarded(images[:0])
    with pytest.raises(DataError, match="batch"):
        guarded(images, batch=0)
    for checks in ({"open_set": False}, {"backdoor": False}):
        with pytest.raises(DataError, match="batch: expected 1 or more, found 0"):
            guard(model, **checks).fit(pictures(60), predicted(model, pictures(60)), batch=0)
    with pytest.raises(DataError, match="expected model"):
        GuardedModel(resnet(), backdoor=guarded.checks[BACKDOOR])

"""Exported programs as classifiers: their logits are the network's, guards go around them, what they do not show is refused."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import photopic
from photopic.core.errors import ModelError
from photopic.guard.guarded import guarded, load_guarded
from photopic.locate.attribution.grad_cam import grad_cam
from photopic.measure.network_rank import network_rank
from photopic.measure.neural_dependencies import neural_dependencies
from photopic.models.classifier import Classifier
from photopic.models.preprocessing import Preprocessing
from tests.guard.open_set.small import LABELS, coloured, small_classifier

READS = Preprocessing(resize=(4, 4))


def onnx_file(model: Classifier, file: Path, *, beside: bool = True) -> Path:
    """The small classifier's two layers, written as ONNX says, for any number of pictures."""
    linear = [part for part in model.network if isinstance(part, nn.Linear)]  # type: ignore[union-attr]
    weights = {f"{name}{at}": getattr(part, name) for at, part in enumerate(linear) for name in ("weight", "bias")}
    gemm = {"transB": 1}
    nodes = [
        onnx.helper.make_node("Flatten", ["pixels"], ["flat"]),
        onnx.helper.make_node("Gemm", ["flat", "weight0", "bias0"], ["hidden"], **gemm),
        onnx.helper.make_node("Relu", ["hidden"], ["active"]),
        onnx.helper.make_node("Gemm", ["active", "weight1", "bias1"], ["logits"], **gemm),
    ]
    shapes = {"pixels": ["n", 3, 4, 4], "logits": ["n", len(LABELS)]}
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    values = [onnx.numpy_helper.from_array(value.detach().numpy(), name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "small", ends[:1], ends[1:], values)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), file)
    if beside:
        (file.parent / "config.json").write_text(json.dumps({"id2label": dict(enumerate(LABELS))}))
        size = {"size": {"height": 4, "width": 4}, "do_normalize": False}
        (file.parent / "preprocessor_config.json").write_text(json.dumps(size))
    return file


def exported(model: Classifier) -> torch.export.ExportedProgram:
    """The small classifier as a program of ``torch.export``."""
    return torch.export.export(model.network, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=({0: torch.export.Dim("n")},))


def programs(model: Classifier, folder: Path) -> dict[str, Classifier]:
    """The small classifier in both forms."""
    found = photopic.load(exported(model), "cpu", preprocess=READS, labels=LABELS)
    assert isinstance(found, Classifier)
    return {"onnx": Classifier.load(onnx_file(model, folder / "small.onnx"), "cpu"), "torch": found}


@pytest.fixture(scope="module")
def model() -> Classifier:
    return small_classifier()


@pytest.fixture(scope="module", params=["onnx", "torch"])
def program(model: Classifier, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    return programs(model, tmp_path_factory.mktemp("programs"))[request.param]


def test_logits_are_those_of_the_network(model: Classifier, program: Classifier) -> None:
    images = coloured(9, seed=1)[0]
    torch.testing.assert_close(program.logits(images, batch=4), model.logits(images), rtol=1e-5, atol=1e-5)
    assert program.labels == LABELS and not program.shows_layers
    assert program.digest() == program.digest()


def test_a_guard_of_logits_goes_around_it_and_comes_back_from_its_file(
    model: Classifier, program: Classifier, tmp_path: Path
) -> None:
    (images, labels), file = coloured(120, seed=2), tmp_path / "a.guard"
    made = guarded(program, backdoor=False, open_set="energy", false_positive_rate=0.1).fit(images, labels)
    found, expected = made(images[:20]), guarded(model, backdoor=False, open_set="energy")
    expected.fit(images, labels)
    assert [each.label for each in found] == [each.label for each in expected(images[:20])]
    made.save(file)
    assert [each.to_dict() for each in load_guarded(file, program)(images[:5])] == [
        each.to_dict() for each in found[:5]
    ]


def test_dependencies_need_logits_only(program: Classifier) -> None:
    report = neural_dependencies(program, coloured(60, seed=3)[0])
    assert report.values["classes"] == 3 and report.values["head_width"] is None


def test_what_needs_layers_or_gradients_is_refused_by_name(program: Classifier) -> None:
    images = coloured(8, seed=4)[0]
    asks = [
        lambda: guarded(program, open_set=False),
        lambda: guarded(program, backdoor=False, open_set="knn"),
        lambda: program.features(images),
        lambda: network_rank(program, images),
        lambda: grad_cam(program, images),
    ]
    for ask in asks:
        with pytest.raises(ModelError, match="an exported program shows only logits; give the network itself"):
            ask()


def test_an_onnx_program_gives_no_gradient(model: Classifier, tmp_path: Path) -> None:
    program = programs(model, tmp_path)["onnx"]
    with pytest.raises(ModelError, match="a gradient needs"):
        program.forward(torch.zeros(1, 3, 4, 4, requires_grad=True))
    with pytest.raises(ModelError, match="refuses images of 5 x 5"):
        program.forward(torch.zeros(1, 3, 5, 5))


def test_a_preprocessing_of_ones_own_and_another_file(tmp_path: Path) -> None:
    model, images = small_classifier(), coloured(5, seed=5)[0]
    file = onnx_file(model, tmp_path / "alone.onnx", beside=False)
    own = photopic.load(file, "cpu", preprocess=lambda pictures: READS(pictures), labels=LABELS)
    loaded = [photopic.load(exported(model), "cpu", preprocess=READS, labels=LABELS).digest() for _ in range(2)]
    assert loaded[0] == loaded[1]
    torch.testing.assert_close(own.logits(images), model.logits(images), rtol=1e-5, atol=1e-5)  # type: ignore[attr-defined]
    with torch.no_grad():
        model.head.bias[0] += 1
    other = photopic.load(
        onnx_file(model, tmp_path / "other.onnx", beside=False), "cpu", preprocess=READS, labels=LABELS
    )
    assert own.digest() != other.digest()
    assert photopic.load(exported(model), "cpu", preprocess=READS, labels=LABELS).digest() != loaded[0]


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    for name, content, match in (
        ("none.onnx", None, "no such file"),
        ("bad.onnx", b"no protobuf", "expected an ONNX file, onnxruntime refuses it"),
        ("net.pt2", b"PK", "unpickling, which runs code .* module:factory"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match=match):
            photopic.load(tmp_path / name, "cpu", preprocess=READS, labels=LABELS)
    alone = onnx_file(small_classifier(), tmp_path / "alone.onnx", beside=False)
    with pytest.raises(ModelError, match=r"preprocessor_config.json"):
        Classifier.load(alone)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 4, "width": 4}}))
    with pytest.raises(ModelError, match=r"config.json beside it with id2label"):
        Classifier.load(alone)


def test_a_program_exported_in_training_mode_is_refused() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 3))
    for mode in (False, True):
        program = torch.export.export(network.train(mode), (torch.zeros(2, 3, 4, 4),))
        if mode:
            with pytest.raises(ModelError, match="exported in training mode"):
                photopic.load(program, "cpu", preprocess=READS, labels=LABELS)
        else:
            assert photopic.load(program, "cpu", preprocess=READS, labels=LABELS).digest()

"""What an output holds is found from the graph and its values, made usable, or asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import edge_fg
from edge_fg.errors import NotAClassifierError, UsageError
from edge_fg_tools.graph import prepare
from support.small_nets import FEATURES, HEAD, net, random_images, run

TRUNK = HEAD.replace("logits =", "z =")
NUMBERS: dict[str, Any] = {
    "hundred": 100.0,
    "seventh": 1 / 7,
    "tiny": 1e-9,
    "ten": 2.302585,
    "two": 2.0,
    "one": 1.0,
    "none_first": [0, 20, 30, 40, 50],
    "sure_first": [9, -9, -9, -9, -9],
}


def ending(body: str, **more: NDArray[Any]) -> onnx.ModelProto:
    """A classifier of 5 classes that goes on from its scores `z` to `y`."""
    known = {name: np.array(value, np.float32) for name, value in NUMBERS.items()}
    sum_axis = {"axes": np.array([1], np.int64)}
    return net(f"{TRUNK} {body}", outputs="float[N,5] y", **known, **sum_axis, **more)


def softmax(values: NDArray[Any]) -> NDArray[Any]:
    odds = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("body", "kind", "warns"),
    [
        ("y = Identity(z)", "logits", ""),
        ("y = Mul(z, ten)", "logits", ""),
        ("y = LogSoftmax(z)", "logits", ""),
        ("s = Softmax(z) q = Add(s, tiny) y = Log(q)", "logits", ""),
        ("l = LogSoftmax(z) y = Div(l, ten)", "logits", "0.434 times the logarithm"),
        ("l = LogSoftmax(z) y = Neg(l)", "logits", "-1 times the logarithm"),
        ("y = Softmax(z)", "probabilities", ""),
        ("t = Mul(z, seventh) y = Softmax(t)", "probabilities", ""),
        ("l = LogSoftmax(z) y = Exp(l)", "probabilities", "no Softmax"),
        ("s = Softmax(z) y = Mul(s, hundred)", "probabilities", "sums to 100"),
        ("s = Softmax(z) q = Mul(s, hundred) y = Round(q)", "probabilities", "sums to 100"),
        ("s = Softmax(z) t = Mul(z, two) q = Softmax(t) y = Add(s, q)", "probabilities", "to 2 "),
    ],
)
def test_the_kind_is_found_and_mended(body: str, kind: str, warns: str) -> None:
    model = ending(body)
    prepared = prepare(model)
    assert prepared.kind == kind
    assert [warns in text for text in prepared.warnings] == [True] * bool(warns)
    images = 2 * random_images(6)
    given, found = run(model, images), run(prepared.model, images)
    if kind == "probabilities":
        expected = given / given.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=0.03 * ("Round" in body) + 1e-5)
    else:
        scale = 2.302585 if "Mul(z, ten)" in body else 1
        plain = run(ending("y = Identity(z)"), images) * scale
        np.testing.assert_allclose(softmax(found), softmax(plain), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_probabilities_that_hardly_vary_are_told_by_the_graph(size: float) -> None:
    known = {"size": np.array(size, np.float32), "order": np.arange(5, dtype=np.float32) * 99}
    body = "b = Add(z, order) t = Mul(b, size) s = Softmax(t) y = Mul(s, hundred)"
    model = ending(body, **known)
    prepared = prepare(model)
    assert prepared.kind == "probabilities"
    np.testing.assert_allclose(run(prepared.model, random_images(2)).sum(axis=1), 1, rtol=1e-3)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("y = Sigmoid(z)", "multi-label"),
        ("n = Neg(z) e = Exp(n) f = Add(e, one) y = Reciprocal(f)", "between 0 and 1"),
        ("s = Sigmoid(z) y = Mul(s, hundred)", "changed behind it"),
        ("s = Softmax(z) y = Sub(s, seventh)", "changed behind it"),
        ("s = Softmax(z) y = Pow(s, two)", "between 0 and 1"),
        ("y = LpNormalization<axis=1>(z)", "embedding"),
        ("q = Abs(z) v = Add(q, ten) y = Mul(v, none_first)", "scores.* or costs"),
        ("t = Mul(z, tiny) v = Add(t, sure_first) y = Sigmoid(v)", "multi-label"),
    ],
)
def test_what_can_not_be_told_is_asked(body: str, says: str) -> None:
    with pytest.raises(NotAClassifierError, match=rf"{says}.*--output-kind") as caught:
        prepare(ending(body))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350
    assert prepare(ending(body), output_kind="logits").kind == "logits"


def test_answers_that_are_said_to_be_probabilities_sum_to_one() -> None:
    model = ending("y = Sigmoid(z)")
    prepared = prepare(model, output_kind="probabilities")
    given = run(model, random_images(4))
    np.testing.assert_allclose(
        run(prepared.model, random_images(4)), given / given.sum(axis=1, keepdims=True), rtol=1e-4
    )
    assert any("divided by its sum" in text for text in prepared.warnings)
    with pytest.raises(UsageError, match="negative values"):
        prepare(ending("y = Identity(z)"), output_kind="probabilities")


def test_scores_of_whole_numbers_are_named() -> None:
    model = ending("s = Softmax(z) q = Mul(s, hundred) y = Cast<to=2>(q)")
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8
    with pytest.raises(NotAClassifierError, match="uint8: its scores are rounded"):
        prepare(model)


@pytest.mark.parametrize(
    ("body", "output", "says"),
    [
        (FEATURES, "float[N,4,8,8] r", "features of a backbone"),
        (
            "c = Conv<strides=[4,4]>(image, many) y = Reshape(c, shape)",
            "float[N,4,128] y",
            "tokens .*features of a backbone",
        ),
    ],
)
def test_features_are_told_from_classes(body: str, output: str, says: str) -> None:
    many, shape = np.ones((128, 3, 4, 4), np.float32), np.array([0, 4, 128], np.int64)
    with pytest.raises(NotAClassifierError, match=says):
        prepare(net(body, outputs=output, many=many, shape=shape))


@pytest.mark.parametrize("output", ["y", "image_embeds"])
def test_labels_that_do_not_fit_a_feature_extractor_say_so(
    workshop: Any, edge_fg_command: Any, output: str
) -> None:
    body = f"{FEATURES} y = Flatten(p)" if output == "y" else f"{HEAD} {output} = Identity(logits)"
    classes = 4 if output == "y" else 5
    model = net(body, "float[N,3,16,16] image", f"float[N,{classes}] {output}")
    workshop.model.write_bytes(model.SerializeToString())
    workshop.labels.write_text("owl\nrobin\n")
    done = edge_fg_command(*workshop.arguments())
    assert done.code == 1
    assert "2 labels" in done.complaint
    assert "feature extractor" in done.complaint


def test_the_kind_can_be_said_at_the_command_line(workshop: Any, edge_fg_command: Any) -> None:
    body = f"{TRUNK} y = Sigmoid(z)"
    model = net(body, "float[N,3,16,16] image", "float[N,5] y")
    workshop.model.write_bytes(model.SerializeToString())
    workshop.labels.write_text("a\nb\nc\nd\ne\n")
    assert "--output-kind" in edge_fg_command(*workshop.arguments()).complaint
    said = ("--output-kind", "probabilities", "--precision", "fp32,fp16")
    done = edge_fg_command(*workshop.arguments(*said))
    assert done.code == 0, done.err
    bundle = edge_fg.Bundle(workshop.folder / "b.edgefg")
    assert bundle.manifest.outputs[0].kind == "probabilities"
    session = onnxruntime.InferenceSession(bundle.graph("fp16"))
    np.testing.assert_allclose(
        session.run(None, {"image": random_images(2, 3, 16, 16)})[0].sum(axis=1), 1, atol=0.01
    )
    told = edge_fg_command("inspect", workshop.model, "--output-kind", "logits")
    assert "5 classes, logits" in told.out

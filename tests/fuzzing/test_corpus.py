"""What spoilt inputs have found: each as the shortest input of its kind, with the right result."""

from __future__ import annotations

from pathlib import Path

import pytest

import edge_fg
from edge_fg.errors import BackendError, ModelFormatError, SourceError, UnsupportedNodeError
from edge_fg.label_files import parse_labels
from edge_fg.pipeline.policy import parse_policy
from edge_fg.sources import open_source, redact
from edge_fg.sources.live.http_auth import parse_challenges

onnx = pytest.importorskip("onnx")

from edge_fg_tools.graph import load_model  # noqa: E402
from support.graphs import bundle_of, classifier, value  # noqa: E402
from support.small_nets import HEAD, net  # noqa: E402


@pytest.mark.parametrize("common", ["Great Tit ", " Great Tit", "Great Tit\u00a0"])
def test_labels_come_back_from_a_bundle_as_they_were_read(common: str) -> None:
    labels = parse_labels(f"Parus major ({common})\nwren\n".encode())
    assert labels[0].common_name == "Great Tit"
    assert parse_labels(labels.to_csv().encode()) == labels


@pytest.mark.parametrize("name", ["*\ud800.jpg", "b/**/\udfff*", "[\ud800]"])
def test_a_glob_that_no_file_system_can_hold(name: str) -> None:
    with pytest.raises(SourceError, match="half of a surrogate pair"):
        open_source(name)


@pytest.mark.parametrize("text", ["rate(4294967295)", "rate(0.12345678)", "latest(max_age=1e-7)"])
def test_a_policy_is_written_as_it_is_read(text: str) -> None:
    policy = parse_policy(text)
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize("shape", [None, (), (3,), (1, 3, 8, 8, 1)])
def test_a_graph_that_takes_no_image(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    pytest.importorskip("onnxruntime")
    model = onnx.load_from_string(
        classifier(
            [onnx.helper.make_node("Identity", ["b"], ["y"])],
            tensors=[onnx.helper.make_tensor("b", 1, [1, 3], [0.1, 0.2, 0.7])],
            output=value("y", shape=[1, 3]),
        )
    )
    del model.graph.node[:2]
    model.graph.input[0].CopyFrom(value("x", shape=shape))
    bundle = bundle_of(tmp_path / "b", model.SerializeToString())
    with pytest.raises(BackendError, match="takes images of"):
        edge_fg.load(bundle, backend="onnxruntime")


@pytest.mark.parametrize(
    "nodes",
    [
        "c = Conv<pads=[1,1048576,1,1]>(image, w)",
        "c = MaxPool<kernel_shape=[2,2], pads=[1,1,1,1048576]>(image)",
        "c = ConvTranspose<strides=[1048576,1]>(image, t)",
        "p = Constant<value_ints=[0,0,0,0,0,0,1048576,0]>() c = Pad(image, p)",
    ],
)
def test_what_makes_images_of_a_million_rows(tmp_path: Path, nodes: str) -> None:
    model = net(f"{nodes} q = GlobalAveragePool(c) f = Flatten(q) logits = Gemm(f, d)")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="pads, strides or the like of 1048576"):
        load_model(path)


@pytest.mark.parametrize(
    "name", ["*/" * 100_000, "rtsp://cam/" + "a" * 20_000, "b/**/" + "x" * 20_000]
)
def test_a_source_of_endless_name(name: str) -> None:
    with pytest.raises(SourceError, match="at most 16384 characters"):
        open_source(name)


def test_a_tensor_in_segments(tmp_path: Path) -> None:
    model = net(HEAD)
    model.graph.initializer[0].segment.end = 4
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="'w' declares 108 values and holds more or fewer"):
        load_model(path)


@pytest.mark.parametrize("number", [0, 1])
def test_an_attribute_of_a_function_outside_of_one(tmp_path: Path, number: int) -> None:
    body = "c = Conv<pads=[1,1,1,1]>(image, w) p = ReduceMean<axes=[2,3], keepdims=0>(c) "
    model = net(body + "logits = MatMul(p, d)")
    model.graph.node[number].attribute[0].ref_attr_name = "f"
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedNodeError, match="an attribute from a function, but is in none"):
        load_model(path)


@pytest.mark.parametrize("piece", [":", "://", "rtsp://a/user", "rtsp://a@", "pass="])
def test_hiding_secrets_takes_no_square_of_the_length(piece: str) -> None:
    # With a square of it, the third one takes an hour.
    assert "hunter2" not in redact(f"rtsp://cam/{piece * 400_000}password_=hunter2")
    assert redact(piece * 400_000)


@pytest.mark.parametrize("rest", ["a" * 60_000, "-" * 60_000, "a " * 30_000])
def test_a_login_of_endless_words(rest: str) -> None:
    offered = 'Digest realm="r", nonce="n", '
    assert parse_challenges([offered + rest])[0] == ("digest", {"realm": "r", "nonce": "n"})

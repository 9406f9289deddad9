"""Wrong preprocessing and wrong labels are noticed, and right ones are not suspected."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.preprocess import PreprocessSpec, Resize, presets

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper, numpy_helper  # noqa: E402

from edge_fg_tools.building.preprocess_check import preprocess_doubts  # noqa: E402
from edge_fg_tools.graph import prepare  # noqa: E402

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BYTES = tuple(tuple(255 * one for one in row) for row in IMAGENET)
FLOAT, UINT8 = onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8


def row(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def model(nodes, stored, *, layout="nchw", dtype=FLOAT, channels=3):
    """Return a classifier whose first layer reads what `nodes` make of `image`, `x`."""
    nodes = [helper.make_node(op, inputs, [out], **kw) for op, inputs, out, kw in nodes]
    read = nodes[-1].output[0] if nodes else "image"
    if layout == "nhwc":
        nodes.append(helper.make_node("Transpose", [read], ["moved"], perm=[0, 3, 1, 2]))
        read = "moved"
    nodes += [
        helper.make_node("Conv", [read, "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["logits"]),
    ]
    weights = np.random.default_rng(0).normal(size=(4, channels, 3, 3)).astype(np.float32)
    stored = {**stored, "w": weights}
    shape = ["N", channels, 16, 16] if layout == "nchw" else ["N", 16, 16, channels]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("logits", FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def sub_div(mean, std):
    nodes = [("Sub", ["image", "m"], "x", {}), ("Div", ["x", "s"], "y", {})]
    return model(nodes, {"m": row(*mean), "s": row(*std)})


def batch_norm(mean, variance):
    ones = np.ones(3, np.float32)
    nodes = [("BatchNormalization", ["image", "one", "zero", "m", "v"], "x", {})]
    stored = {"one": ones, "zero": 0 * ones, "m": mean * ones, "v": variance * ones}
    return model(nodes, stored)


def rescaled(**options):
    nodes = [("Mul", ["image", "s"], "x", {}), ("Add", ["x", "o"], "y", {})]
    return model(nodes, {"s": np.float32(1 / 127.5), "o": np.float32(-1)}, **options)


def from_bytes():
    nodes = [("Cast", ["image"], "x", {"to": FLOAT}), ("Div", ["x", "s"], "y", {})]
    return model(nodes, {"s": np.float32(255)}, dtype=UINT8)


def imagenet_to_inception():
    """What torchvision's Inception does to images that are normalised already."""
    nodes = [("Mul", ["image", "s"], "x", {}), ("Add", ["x", "o"], "y", {})]
    scale, shift = (np.array(one) for one in reversed(IMAGENET))
    return model(nodes, {"s": row(*(scale / 0.5)), "o": row(*((shift - 0.5) / 0.5))})


def quantised_input():
    nodes = [
        ("QuantizeLinear", ["image", "s", "z"], "x", {}),
        ("DequantizeLinear", ["x", "s", "z"], "y", {}),
    ]
    return model(nodes, {"s": np.float32(0.0186), "z": np.int8(14)})


def flipped():
    nodes = [("Gather", ["image", "i"], "x", {"axis": 1}), ("Sub", ["x", "m"], "y", {})]
    return model(nodes, {"i": np.array([2, 1, 0]), "m": row(103.9, 116.8, 123.7)})


def spec(mean=(0.0,) * 3, std=(1.0,) * 3) -> PreprocessSpec:
    return PreprocessSpec(Resize("squash", (16, 16)), mean=mean, std=std)


RAW, UNIT = spec(), spec(std=(255.0,) * 3)
DOUBLED = {
    "0..1 inside": (sub_div(*IMAGENET), UNIT, "std = [255, 255, 255]"),
    "0..255 inside": (sub_div(*BYTES), RAW, "std = [1, 1, 1]"),
    "half and half": (sub_div((0.5,) * 3, (0.5,) * 3), UNIT, "std = [255, 255, 255]"),
    "batch normalisation": (batch_norm(118, 3500), RAW, "std = [1, 1, 1]"),
    "Keras rescaling": (rescaled(layout="nhwc"), RAW, "std = [1, 1, 1]"),
    "one grey channel": (rescaled(channels=1), RAW, "std = [1, 1, 1]"),
    "only scaled": (from_bytes(), RAW, "std = [1, 1, 1]"),
    "colours exchanged": (flipped(), RAW, "std = [1, 1, 1]"),
}


@pytest.mark.parametrize("name", DOUBLED)
def test_a_model_that_normalises_takes_no_preset(name: str) -> None:
    graph, right, advice = DOUBLED[name]
    inside = prepare(graph).normalisation
    assert inside is not None
    assert preprocess_doubts(right, inside) == ()
    for preset, one in presets().items():
        if name == "colours exchanged" and preset == "keras-caffe":
            continue
        (said,) = preprocess_doubts(one, inside)
        assert said.startswith("preprocessing: the model normalises by itself"), preset
        assert advice in said
        assert repr(inside.node) in said


@pytest.mark.parametrize(
    "make",
    [
        lambda: model([], {}),
        imagenet_to_inception,
        quantised_input,
        lambda: batch_norm(0.1, 1.2),
        lambda: model([("LRN", ["image"], "x", {"size": 3})], {}),
    ],
)
def test_usual_models_and_presets_are_not_suspected(make) -> None:
    inside = prepare(make()).normalisation
    for one in presets().values():
        assert preprocess_doubts(one, inside) == ()
    assert preprocess_doubts(spec((190.0,) * 3, (50.0,) * 3), inside) == ()  # bright images


@pytest.mark.parametrize(
    "wrong",
    [
        spec(*IMAGENET),
        spec((0.5,) * 3, (0.5,) * 3),
        spec((0.0,) * 3, (1 / 255,) * 3),
        spec((0.485,) * 3, (58.0,) * 3),
        spec(BYTES[0], IMAGENET[1]),
        spec((0.5,) * 3),
    ],
)
def test_mean_and_std_of_another_unit(wrong: PreprocessSpec) -> None:
    (said,) = preprocess_doubts(wrong, None)
    assert "look like values for pixels of 0..1" in said
    assert "docs/preprocessing.md" in said


@pytest.mark.parametrize("wrong", [spec((-128.0,) * 3, (128.0,) * 3), spec(std=(1024.0,) * 3)])
def test_values_that_no_network_is_trained_on(wrong: PreprocessSpec) -> None:
    (said,) = preprocess_doubts(wrong, None)
    assert "which no network is trained on" in said


def test_the_built_in_model_is_not_suspected() -> None:
    from edge_fg.preprocess import load_preprocess
    from edge_fg_tools import fieldguide
    from edge_fg_tools.graph import load_model

    inside = prepare(load_model(fieldguide.model_path())).normalisation
    assert preprocess_doubts(load_preprocess(fieldguide.preprocess_path()), inside) == ()


def test_a_file_of_another_unit_is_warned_of_first(workshop, edge_fg_command) -> None:
    text = workshop.preprocess.read_text()
    workshop.preprocess.write_text(text.replace("128, 128, 128", "0.5, 0.5, 0.5"))
    done = edge_fg_command(*workshop.arguments("--precision", "fp32"))
    assert done.code == 0, done.err
    assert "preprocessing: mean 0.5 and std 64" in done.err.splitlines()[0]
    assert "proven" not in done.out
    assert "in doubt: preprocessing: mean 0.5 and std 64" in done.out
    report = json.loads((workshop.folder / "b.edgefg" / "report.json").read_text())
    assert "preprocessing: mean 0.5" in report["concerns"][0]
    assert "preprocessing: mean 0.5" in report["model"]["warnings"][0]


def labelled(workshop, edge_fg_command, shift: int, images: int) -> Path:
    """Return a CSV of the workshop's images, some with the model's own answers plus `shift`."""
    assert edge_fg_command(*workshop.arguments("--precision", "fp32")).code == 0
    lines = ["file,index"]
    with edge_fg.load(workshop.folder / "b.edgefg") as classifier:
        for number, path in enumerate(sorted(workshop.images.iterdir())):
            answer = (classifier(path).class_id + shift) % 4
            lines.append(f"images/{path.name},{answer if number < images else ''}")
    table = workshop.folder / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def test_a_model_that_is_right_by_chance_is_not_built(workshop, edge_fg_command) -> None:
    table = labelled(workshop, edge_fg_command, 1, 40)
    arguments = workshop.arguments(
        "--precision", "fp32", calibration=table, output=workshop.folder / "c.edgefg"
    )
    done = edge_fg_command(*arguments)
    assert done.code == 3
    assert "only 0 of 40 labelled images right" in done.complaint
    for word in ("--labels", "--preprocess", "--allow-low-accuracy", "near chance"):
        assert word in done.complaint
    assert done.out == ""
    assert not (workshop.folder / "c.edgefg").exists()
    done = edge_fg_command(*arguments, "--allow-low-accuracy")
    assert done.code == 0, done.err
    assert "proven" not in done.out
    assert "near chance: the labels may be in another order" in done.out
    report = json.loads((workshop.folder / "c.edgefg" / "report.json").read_text())
    assert "near chance" in report["concerns"][0]
    done = edge_fg_command("evaluate", workshop.folder / "c.edgefg", table)
    assert done.code == 0
    assert "only 0 of 40 labelled images" in done.err


@pytest.mark.parametrize(("shift", "images"), [(0, 40), (1, 5)])
def test_right_labels_or_few_images_end_no_build(workshop, edge_fg_command, shift, images) -> None:
    table = labelled(workshop, edge_fg_command, shift, images)
    arguments = ("--precision", "fp32", "--overwrite")
    done = edge_fg_command(*workshop.arguments(*arguments, calibration=table))
    assert done.code == 0, done.err
    assert "proven on 20 hold-out images" in done.out
    assert "preprocessing" not in done.err


def test_inspect_shows_what_a_model_takes(tmp_path: Path, edge_fg_command) -> None:
    graph = rescaled(layout="nhwc")
    for key, value in {"mean": "127.5", "author": "x", "Image.BitmapPixelFormat": "Bgr8"}.items():
        graph.metadata_props.add(key=key, value=value)
    onnx.save(graph, tmp_path / "m.onnx")
    done = edge_fg_command("inspect", tmp_path / "m.onnx")
    assert "image N x 3 x 16 x 16 nhwc float32" in done.out
    assert "normalises by itself, (x - 127.5) / 127.5 from node 'mul_0' on" in done.out
    assert "made for pixels of 0..255: leave mean out, std = [1, 1, 1]" in done.out
    assert "metadata mean: 127.5" in done.out
    assert "metadata Image.BitmapPixelFormat: Bgr8" in done.out
    assert "author" not in done.out
    onnx.save(from_bytes(), tmp_path / "u.onnx")
    assert "nchw uint8" in edge_fg_command("inspect", tmp_path / "u.onnx").out
    onnx.save(model([], {}), tmp_path / "n.onnx")
    assert "the graph doesn't normalise" in edge_fg_command("inspect", tmp_path / "n.onnx").out

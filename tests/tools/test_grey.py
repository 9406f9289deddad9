"""Models of one grey channel take any image, and answer as they did for the image in grey."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

import edge_fg
from edge_fg.errors import ModelError, NotAClassifierError
from edge_fg_tools.graph import prepare
from support.small_nets import HEAD, net, random_images, run

STEM = np.random.default_rng(6).standard_normal((16, 1, 3, 3), dtype=np.float32)
DENSE = np.random.default_rng(7).standard_normal((16, 5), dtype=np.float32)
GREY_HEAD = HEAD.replace("(image, w)", "(image, one)")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def grey_net(body: str = GREY_HEAD, inputs: str = "float[N,1,8,8] image") -> onnx.ModelProto:
    return net(body, inputs, one=STEM, d=DENSE)


def in_front(operator: str) -> str:
    return f"t = {operator} {GREY_HEAD.replace('(image', '(t')}"


@pytest.mark.parametrize(
    ("model", "axis"),
    [
        (grey_net(), 1),
        (grey_net(inputs="float[1,1,8,8] image"), 1),
        (grey_net(in_front("Transpose<perm=[0,3,1,2]>(image)"), "float[N,8,8,1] image"), 3),
        (grey_net(in_front("Cast<to=1>(image)"), "uint8[N,1,8,8] image"), 1),
        (net("f = Flatten(image) logits = Gemm(f, e)", "float[N,1,8,8] image", e=np.eye(64, 5)
             .astype(np.float32)), 1),
    ],
)  # fmt: skip
def test_colour_is_made_grey_inside(model: onnx.ModelProto, axis: int) -> None:
    prepared = prepare(model)
    assert (prepared.channels, prepared.is_grey, prepared.batch) == (3, True, None)
    assert any("takes one grey channel" in text for text in prepared.warnings)
    colour = random_images(3, 3, 8, 8)
    if prepared.input_dtype == "uint8":
        colour = np.random.default_rng(3).integers(0, 256, (3, 1, 8, 8), np.uint8).repeat(3, 1)
    grey = np.tensordot(LUMA, colour, (0, 1))[:, None]
    grey = grey if colour.dtype == np.float32 else np.rint(grey).astype(np.uint8)
    if axis == 3:
        colour, grey = colour.transpose(0, 2, 3, 1), grey.transpose(0, 2, 3, 1)
    expected = np.concatenate([run(model, one[None]) for one in grey])
    np.testing.assert_allclose(run(prepared.model, colour), expected, rtol=1e-3, atol=1e-3)


def test_the_number_of_channels_is_read_from_the_first_convolution() -> None:
    assert prepare(grey_net(inputs="float[N,C,8,8] image")).is_grey
    assert not prepare(net(HEAD, "float[N,C,8,8] image")).is_grey


def test_a_batch_that_stays_is_exported_again_with_one_channel() -> None:
    body = (
        "a = GlobalAveragePool(image) f = Conv(a, k) own = Reshape(f, shape) c = Conv(image, own) "
        "p = GlobalAveragePool(c) features = Flatten(p) logits = Gemm(features, d)"
    )
    kernels = {"k": np.ones((4, 1, 1, 1), np.float32), "shape": np.array([4, 1, 1, 1])}
    grey, batch = prepare(
        net(body, "float[1,1,8,8] image", "float[1,5] logits", **kernels)
    ).warnings
    assert "takes one grey channel" in grey
    assert "torch.rand(2, 1, 8, 8)" in batch


def test_other_numbers_of_channels_are_refused() -> None:
    four = np.ones((4, 4, 3, 3), np.float32)
    with pytest.raises(NotAClassifierError, match="takes 4 channels"):
        prepare(net(GREY_HEAD, "float[N,4,8,8] image", one=four))
    body = "s = Slice(image, a, b) " + in_front("Cast<to=1>(s)")
    cut = {"a": np.array([0, 0, 0, 0]), "b": np.array([99, 1, 7, 7])}
    with pytest.raises(ModelError, match="not made float32 first"):
        prepare(net(body, "uint8[N,1,8,8] image", one=STEM, d=DENSE, **cut))


def test_a_grey_model_is_built_and_answers_any_image(workshop: Any, edge_fg_command: Any) -> None:
    model = grey_net(inputs="float[N,1,16,16] image")
    workshop.model.write_bytes(model.SerializeToString())
    workshop.labels.write_text("a\nb\nc\nd\ne\n")
    for path in list(workshop.images.iterdir())[::2]:
        with Image.open(path) as image:
            image.convert("L").save(path)
    # BGR is no different where all channels become one.
    text = workshop.preprocess.read_text().replace("std = [64", 'color = "bgr"\nstd = [128')
    workshop.preprocess.write_text(text.replace("128, 64, 64", "128, 128, 128"))
    done = edge_fg_command(*workshop.arguments("--precision", "fp32,fp16,int8,int8-fp16"))
    assert done.code == 0, done.err
    for precision in ("fp32", "int8"):
        with edge_fg.load(workshop.folder / "b.edgefg", precision=precision) as classifier:
            for path in sorted(workshop.images.iterdir())[:4]:
                probabilities = classifier(path).probabilities
                assert np.abs(probabilities - expected(model, path)).max() < 0.05


def expected(model: onnx.ModelProto, path: Any) -> NDArray[Any]:
    with Image.open(path) as image:
        small = image.convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    scores = run(model, (np.asarray(small, np.float32)[None, None] - 128) / 128)[0]
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum())


def test_colours_that_are_normalised_apart_are_refused(workshop: Any, edge_fg_command: Any) -> None:
    workshop.model.write_bytes(grey_net(inputs="float[N,1,16,16] image").SerializeToString())
    workshop.labels.write_text("a\nb\nc\nd\ne\n")
    done = edge_fg_command(*workshop.arguments(preprocess="torchvision"))
    assert "one grey channel" in done.complaint
    done = edge_fg_command(*workshop.arguments("--precision", "fp32", preprocess="inception"))
    assert done.code == 0, done.err

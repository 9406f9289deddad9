"""A graph that was exported with one example is freed of that batch: each image's answer stays."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edge_fg.errors import ModelError, NotAClassifierError
from edge_fg_tools.graph import prepare
from support.small_nets import net, random_images, run

RANDOM = np.random.default_rng(5)


def floats(*shape: int) -> NDArray[Any]:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def sizes(*values: int) -> NDArray[Any]:
    return np.array(values, np.int64)


def exported(body: str, batch: int, declared: str = "", **more: NDArray[Any]) -> onnx.ModelProto:
    """A graph of constant shapes for `batch` images; "R(" stands for torch's Reshape."""
    body = body.replace("R(", "Reshape<allowzero=1>(")
    first = declared or batch
    return net(body, f"float[{first},3,8,8] image", f"float[{first},5] logits", opset=18, **more)


TOKENS = "c = Conv<strides=[4,4]>(image, patch) t = R(c, b_d_n) x = Transpose<perm=[0,2,1]>(t) "
CLASS_TOKEN = TOKENS + (
    "many = Expand(token, b_1_d) j = Concat<axis=1>(many, x) y = Add(j, places) "
    "q = R(y, b_n_h_e) k = Transpose<perm=[0,2,3,1]>(q) v = Transpose<perm=[0,2,1,3]>(q) "
    "s = MatMul(v, k) a = Softmax(s) o = MatMul(a, v) u = Transpose<perm=[0,2,1,3]>(o) "
    "z = R(u, b_n_d) f = Gather<axis=1>(z, zero) logits = Gemm(f, head)"
)
# nn.MultiheadAttention: tokens come before images, and images share a dimension with the heads.
TOKENS_FIRST = TOKENS + (
    "l = Transpose<perm=[1,0,2]>(x) q = R(l, n_bh_e) r = Transpose<perm=[1,0,2]>(q) "
    "h = R(r, b_h_n_e) k = Transpose<perm=[0,1,3,2]>(h) s = MatMul(h, k) a = Softmax(s) "
    "o = MatMul(a, h) u = Transpose<perm=[2,0,1,3]>(o) m = R(u, nb_d) g = Gemm(m, square) "
    "w2 = R(g, n_b_d) y = Transpose<perm=[1,0,2]>(w2) f = ReduceMean<keepdims=0>(y, one) "
    "logits = Gemm(f, head)"
)
WINDOWS = (
    "c = Conv<strides=[2,2]>(image, small) t = Transpose<perm=[0,2,3,1]>(c) r = R(t, b_2_2_2_2_d) "
    "p = Transpose<perm=[0,1,3,2,4,5]>(r) x = R(p, bw_4_d) k = Transpose<perm=[0,2,1]>(x) "
    "s = MatMul(x, k) s2 = R(s, b_w_4_4) m = Add(s2, mask) s3 = R(m, bw_4_4) a = Softmax(s3) "
    "o = MatMul(a, x) y = R(o, b_2_2_2_2_d) u = Transpose<perm=[0,1,3,2,4,5]>(y) "
    "z = R(u, b_4_4_d) f = ReduceMean<keepdims=0>(z, middle) logits = Gemm(f, head)"
)
RESIZED = (
    'z = Resize<mode="linear">(image, , , larger) c = Conv(z, patch) '
    'y = Resize<mode="nearest">(c, , , smaller) p = GlobalAveragePool(y) f = R(p, b_d) '
    "logits = Gemm(f, head)"
)
RECURRENT = TOKENS + (
    "l = Transpose<perm=[1,0,2]>(x) zeros = ConstantOfShape(one_b_d) "
    "all, last = GRU<hidden_size=8>(l, gates, states, , , zeros) f = R(last, b_d) "
    "logits = Gemm(f, head)"
)
CONSTANTS = (
    "many = Tile(query, repeats) c = Conv<strides=[4,4]>(image, patch) x = R(c, b_d_n) "
    "y = Where(wanted, x, none) s = MatMul(many, y) a = Softmax(s) f = R(a, b_8) "
    "logits = Gemm(f, head)"
)

# Of one example torch makes a batch of any size in some places, and a constant one in others.
MIXED = TOKENS.replace("b_d_n", "any_d_n") + (
    "n = Shape<start=0, end=1>(image) m = Concat<axis=0>(n, two_d) many = Expand(query, m) "
    "l = Transpose<perm=[1,0,2]>(many) h = R(l, two_any_e) q = Transpose<perm=[1,0,2]>(h) "
    "q4 = R(q, any_2_2_e) k = Transpose<perm=[1,0,2]>(x) g = R(k, n_any_e) "
    "k3 = Transpose<perm=[1,2,0]>(g) k4 = R(k3, b_2_e_n) s = MatMul(q4, k4) a = Softmax(s) "
    "v = Transpose<perm=[0,1,3,2]>(k4) o = MatMul(a, v) u = ReduceMean<keepdims=0>(o, one) "
    "f = R(u, any_d) logits = Gemm(f, head)"
)

# as_strided(): one row of all values, and where each lies in it.
STRIDED = (
    "c = Conv<strides=[4,4]>(image, patch) p = GlobalAveragePool(c) row = R(p, one_row) "
    "g = Gather<axis=0>(row, places_of) f = R(g, b_d) logits = Gemm(f, head)"
)


def constants(b: int) -> dict[str, NDArray[Any]]:
    """What the graphs above read; 8 features in 2 heads, 4 tokens or windows."""
    return {
        "patch": floats(8, 3, 4, 4),
        "small": floats(8, 3, 2, 2),
        "token": floats(1, 1, 8),
        "places": floats(1, 5, 8),
        "head": floats(8, 5),
        "square": floats(8, 8),
        "mask": floats(1, 4, 4, 4),
        "gates": floats(1, 24, 8),
        "states": floats(1, 24, 8),
        "query": floats(1, 2, 8),
        "wanted": np.repeat(floats(1, 8, 1) > 0, b, 0),
        "none": np.zeros((b, 1, 1), np.float32),
        "repeats": sizes(b, 1, 1),
        "one_row": sizes(-1),
        "places_of": np.arange(8)[::-1].reshape(1, 8, 1, 1).copy(),
        "two_d": sizes(2, 8),
        "any_d_n": sizes(-1, 8, 4),
        "two_any_e": sizes(2, -1, 4),
        "any_2_2_e": sizes(-1, 2, 2, 4),
        "n_any_e": sizes(4, -1, 4),
        "b_2_e_n": sizes(b, 2, 4, 4),
        "any_d": sizes(-1, 8),
        "zero": np.array(0),
        "one": sizes(1),
        "middle": sizes(1, 2),
        "b_d_n": sizes(b, 8, 4),
        "b_1_d": sizes(b, 1, 8),
        "b_n_h_e": sizes(b, 5, 2, 4),
        "b_n_d": sizes(b, 5, 8),
        "n_bh_e": sizes(4, b * 2, 4),
        "b_h_n_e": sizes(b, 2, 4, 4),
        "nb_d": sizes(4 * b, 8),
        "n_b_d": sizes(4, b, 8),
        "b_2_2_2_2_d": sizes(b, 2, 2, 2, 2, 8),
        "bw_4_d": sizes(b * 4, 4, 8),
        "b_w_4_4": sizes(b, 4, 4, 4),
        "bw_4_4": sizes(b * 4, 4, 4),
        "b_4_4_d": sizes(b, 4, 4, 8),
        "larger": sizes(b, 3, 11, 23),
        "smaller": sizes(b, 8, 3, 7),
        "b_d": sizes(b, 8),
        "one_b_d": sizes(1, b, 8),
        "b_8": sizes(b, 8),
    }


GRAPHS = {
    "class token": CLASS_TOKEN,
    "tokens first": TOKENS_FIRST,
    "windows": WINDOWS,
    "resized": RESIZED,
    "recurrent": RECURRENT,
    "constants": CONSTANTS,
}


def assert_freed(model: onnx.ModelProto, batch: int) -> None:
    prepared = prepare(model)
    assert (prepared.batch, prepared.warnings) == (None, ())
    images = random_images(5 * batch)
    parts = [run(model, images[at : at + batch]) for at in range(0, len(images), batch)]
    for given in (images, images[:1]):
        expected = np.concatenate(parts)[: len(given)]
        np.testing.assert_allclose(run(prepared.model, given), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", GRAPHS)
def test_the_shapes_of_one_example_are_freed(name: str, batch: int) -> None:
    assert_freed(exported(GRAPHS[name], batch, **constants(batch)), batch)


@pytest.mark.parametrize(
    ("body", "batch"),
    [(CLASS_TOKEN, 1), (CLASS_TOKEN, 2), (CLASS_TOKEN, 8), (MIXED, 1), (MIXED, 4)],
)
def test_a_batch_that_is_only_declared_is_freed(body: str, batch: int) -> None:
    """torch writes N for the input even where constants inside hold the example's batch."""
    assert_freed(exported(body, batch, "N", **constants(batch)), batch)


def test_values_that_are_picked_from_one_row_are_picked_image_by_image() -> None:
    assert_freed(exported(STRIDED, 1, **constants(1)), 1)


def test_an_output_that_lost_its_batch_is_named() -> None:
    body = "p = GlobalAveragePool(image) f = Squeeze(p) logits = MatMul(f, three)"
    with pytest.raises(NotAClassifierError, match=r"no batch dimension .*flatten\(1\)"):
        prepare(net(body, "float[1,3,8,8] image", "float[5] logits", three=floats(3, 5)))


def test_an_output_whose_dimensions_depend_on_the_batch_is_named() -> None:
    body = "p = GlobalAveragePool(image) f = Flatten(p) z = MatMul(f, three) logits = Squeeze(z)"
    model = net(body, "float[N,3,8,8] image", "float[N,5] logits", three=floats(3, 5))
    with pytest.raises(NotAClassifierError, match=r"shape \[5\] for a batch of 1.*flatten\(1\)"):
        prepare(model)


@pytest.mark.parametrize("apart", [True, False])
def test_answers_that_are_nearly_the_same_prove_nothing(apart: bool) -> None:
    """Noise is black to a model of 0..255: a mean over all images would pass unseen."""
    mean = "" if apart else "m = ReduceMean<keepdims=1>(r, zeroth) "
    body = (
        "i = Div(image, white) c = Conv<strides=[4,4]>(i, patch) p = GlobalAveragePool(c) "
        f"r = Reshape(p, any_d) {mean}z = Add(r, {'r' if apart else 'm'}) "
        "logits = Gemm(z, head, far)"
    )
    more = {"white": np.float32(255), "zeroth": sizes(0), "far": floats(5) + 300}
    prepared = prepare(exported(body, 1, **{**constants(1), **more}))
    assert prepared.batch == (None if apart else 1)
    assert apart or "depends on those beside it" in prepared.warnings[0]


def test_a_graph_that_never_runs_is_not_tried_with_many_large_images() -> None:
    tracemalloc.start()
    body = "p = GlobalAveragePool(image) f = Flatten(p) z = Reshape(f, seven) logits = Gemm(z, h)"
    with pytest.raises(ModelError, match="can't run the model"):
        prepare(
            net(body, "float[N,3,1024,1024] image", seven=sizes(7, 7), h=np.eye(7, 5, dtype="f"))
        )
    assert tracemalloc.get_traced_memory()[1] < 256 << 20
    tracemalloc.stop()

"""Each placement rule on the smallest network that shows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edge_fg.errors import UsageError
from edge_fg_calibration import SkipPlace, WeightPlace, place
from edge_fg_calibration.graph.onnx_graph import Graph


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


def reasons(model: onnx.ModelProto, **options) -> dict[str, str]:
    return {key: reason for key, _, reason in place(model, **options).skipped}


def one_conv(
    make_model, weight: np.ndarray, channels: int, *, behind=True, op="Conv", **attributes
):
    rows = [("Relu", "input", "x"), (op, "x w", "y", attributes)]
    if not behind:
        rows = [(op, "input w", "y", attributes)]
    return make_model(
        rows,
        {"w": weight},
        inputs={"input": [1, channels, 8, 8]},
        outputs={"y": [None, None, None, None]},
    )


def test_inputs_and_weights_of_convolutions_and_products_are_quantised(residual_net) -> None:
    found = place(residual_net, target="tensorrt")
    assert found.activations == ("input", "a", "b", "flat")
    assert found.weights == (
        WeightPlace("stem", 1, "stem.w", 0, "Conv", "input"),
        WeightPlace("dw", 1, "dw.w", 0, "Conv", "a"),
        WeightPlace("pw", 1, "pw.w", 0, "Conv", "b"),
        WeightPlace("logits", 1, "fc.w", 0, "Gemm", "flat"),
    )
    assert found.skipped == found.skips == ()


@pytest.mark.parametrize("target", ["portable", "tensorrt-rtx"])
def test_depthwise_stays_float_unless_asked(residual_net, target) -> None:
    assert reasons(residual_net, target=target) == {"dw": "depthwise convolution"}
    assert "b" in place(residual_net, target=target).activations
    assert reasons(residual_net, target=target, depthwise=True) == {}
    assert "dw" in reasons(residual_net, target="tensorrt", depthwise=False)


def test_an_unknown_target_is_refused(residual_net) -> None:
    with pytest.raises(UsageError, match="target must be one of portable, tensorrt"):
        place(residual_net, target="tpu")


@pytest.mark.parametrize(
    ("shape", "group", "behind", "quantised"),
    [
        ((32, 3, 3, 3), 1, False, True),  # the stem
        ((12, 3, 3, 3), 1, False, False),  # neither 3 nor 12 is a multiple of 8
        ((8, 4, 3, 3), 1, True, False),  # both narrow
        ((8, 4, 3, 3), 1, False, True),  # the same at the image
        ((24, 8, 3, 3), 1, True, True),
        ((24, 8, 1, 3), 1, True, False),  # not square
        ((20, 12, 3, 3), 1, True, False),  # not aligned
        ((16, 16, 1, 3), 1, True, True),  # wide enough for any kernel
        ((16, 2, 3, 3), 8, True, True),  # 16 channels over 8 groups
    ],
)
def test_small_convolutions(make_model, shape, group, behind, quantised) -> None:
    model = one_conv(make_model, ones(*shape), shape[1] * group, behind=behind, group=group)
    assert (reasons(model) == {}) is quantised
    if not quantised:
        assert reasons(model)["y"].startswith("small convolution")


def test_a_transposed_convolution_is_quantised_along_its_second_axis(make_model) -> None:
    model = one_conv(make_model, ones(16, 32, 2, 2), 16, op="ConvTranspose")
    assert place(model).weights == (WeightPlace("y", 1, "w", 1, "ConvTranspose", "x"),)


def matrix(make_model, op: str, shape: tuple[int, int], columns: int, **attributes):
    return make_model(
        [(op, "input w", "y", attributes)],
        {"w": ones(*shape)},
        inputs={"input": [1, columns]},
        outputs={"y": [None, None]},
    )


def test_axes_of_products(make_model) -> None:
    assert place(matrix(make_model, "MatMul", (16, 32), 16)).weights[0].axis == 1
    assert place(matrix(make_model, "Gemm", (16, 32), 16)).weights[0].axis == 1
    assert place(matrix(make_model, "Gemm", (32, 16), 16, transB=1)).weights[0].axis == 0


@pytest.mark.parametrize("shape", [(15, 64), (64, 15)])
def test_narrow_products_stay_float(make_model, shape) -> None:
    assert reasons(matrix(make_model, "MatMul", shape, shape[0]))["y"].startswith("narrow matrix")


def test_the_head_of_a_batch_of_one_is_quantised(make_model) -> None:
    assert place(matrix(make_model, "Gemm", (64, 1000), 64)).nodes == {"y"}


def test_products_of_two_activations_stay_float(make_model) -> None:
    model = make_model(
        [("Relu", "input", "a"), ("MatMul", "input a", "y")],
        {},
        inputs={"input": [1, 4, 16, 16]},
        outputs={"y": [1, 4, 16, 16]},
    )
    assert reasons(model) == {"y": "product of two activations"}


def test_computed_and_float64_free_weights_stay_float(make_model) -> None:
    model = make_model(
        [("Relu", "w", "w2"), ("MatMul", "input w2", "y"), ("MatMul", "w input", "z")],
        {"w": ones(16, 16)},
        inputs={"input": [16, 16]},
        outputs={"y": [16, 16], "z": [16, 16]},
    )
    assert reasons(model) == {
        "y": "the weight is not a stored float32 tensor",
        "z": "the left operand is constant",
    }


def squeeze_net(make_model):
    return make_model(
        [
            ("Conv", "input stem.w", "x"),
            ("GlobalAveragePool", "x", "p"),
            ("Conv", "p down.w", "d"),
            ("Relu", "d", "r"),
            ("Conv", "r up.w", "u"),
            ("Sigmoid", "u", "gate"),
            ("Mul", "x gate", "scaled"),
            ("Conv", "scaled out.w", "o"),
            ("GlobalAveragePool", "o", "q"),
            ("Flatten", "q", "flat"),
            ("Gemm", "flat fc.w", "y"),
        ],
        {
            "stem.w": ones(32, 3, 3, 3),
            "down.w": ones(16, 32, 1, 1),
            "up.w": ones(32, 16, 1, 1),
            "out.w": ones(32, 32, 1, 1),
            "fc.w": ones(32, 40),
        },
        inputs={"input": [1, 3, 8, 8]},
        outputs={"y": [1, 40]},
    )


def test_squeeze_and_excitation_gates_stay_float_but_not_the_head(make_model) -> None:
    model = squeeze_net(make_model)
    assert set(reasons(model)) == {"d", "u"}
    assert place(model).nodes == {"x", "o", "y"}


def test_only_the_skip_operand_of_an_addition_is_quantised(residual_net) -> None:
    found = place(residual_net, target="tensorrt", residual_adds=True)
    assert found.skips == (SkipPlace("sum", 0, "a", "pw"),)
    assert found.activations.count("a") == 1  # it shares the depthwise convolution's pair


def test_of_two_convolutional_operands_the_shorter_path_is_the_skip(make_model) -> None:
    model = make_model(
        [
            ("Relu", "input", "x"),
            ("Conv", "x a.w", "a1"),
            ("Relu", "a1", "a2"),
            ("Conv", "a2 b.w", "main"),
            ("Conv", "x c.w", "short"),
            ("Add", "main short", "y"),
        ],
        {name: ones(16, 16, 1, 1) for name in ("a.w", "b.w", "c.w")},
        inputs={"input": [1, 16, 4, 4]},
        outputs={"y": [1, 16, 4, 4]},
    )
    assert place(model).skips == ()
    assert place(model, residual_adds=True).skips == (SkipPlace("y", 1, "short", "main"),)


def test_adding_a_constant_is_no_residual(make_model) -> None:
    model = make_model(
        [("Conv", "input w", "x"), ("Add", "x c", "y")],
        {"w": ones(16, 16, 1, 1), "c": ones(16, 1, 1)},
        inputs={"input": [1, 16, 4, 4]},
        outputs={"y": [1, 16, 4, 4]},
    )
    assert place(model, residual_adds=True).skips == ()


WHOLE = [("LayerNormalization", "input g", "n")]
DECOMPOSED = [
    ("ReduceMean", "input", "m", {"axes": [-1]}),
    ("Sub", "input m", "s"),
    ("Pow", "s two", "sq"),
    ("ReduceMean", "sq", "v", {"axes": [-1]}),
    ("Add", "v eps", "ve"),
    ("Sqrt", "ve", "sd"),
    ("Div", "s sd", "n"),
]


@pytest.mark.parametrize("norm", [WHOLE, DECOMPOSED])
def test_transformers_keep_their_residual_additions_float(make_model, norm) -> None:
    model = make_model(
        [*norm, ("MatMul", "n w", "p"), ("Add", "input p", "y")],
        {"g": ones(16), "w": ones(16, 16), "two": np.float32(2), "eps": np.float32(1e-6)},
        inputs={"input": [1, 5, 16]},
        outputs={"y": [1, 5, 16]},
    )
    found = place(model, residual_adds=True)
    assert found.skips == ()
    assert found.nodes == {"p"}
    assert found.activations == ("n",)


def test_macs_against_counts_by_hand(residual_net) -> None:
    graph = Graph(residual_net)
    costs = {node.output[0]: graph.macs(node) for node in graph.nodes}
    assert costs["stem"] == 16 * 12 * 12 * 3 * 9
    assert costs["dw"] == 16 * 12 * 12 * 9
    assert costs["pw"] == 16 * 12 * 12 * 16
    assert costs["logits"] == 16 * 20
    assert costs["probs"] == 0


def test_macs_of_a_transposed_convolution(make_model) -> None:
    model = one_conv(make_model, ones(16, 32, 2, 2), 16, op="ConvTranspose", strides=[2, 2])
    assert Graph(model).macs(model.graph.node[1]) == 8 * 8 * 16 * 32 * 4


def test_leaving_a_node_in_float_drops_what_only_it_needed(residual_net) -> None:
    whole = place(residual_net, target="tensorrt", residual_adds=True)
    part = whole.without({"pw"}, "for a reason")
    assert part.nodes == whole.nodes - {"pw"}
    assert part.activations == ("input", "a", "flat")  # "b" was read by pw alone
    assert part.skips == ()  # nothing in INT8 is left for the addition to fuse into
    assert part.skipped == (("pw", "Conv", "for a reason"),)
    assert whole.without({"dw"}).activations == ("input", "a", "b", "flat")  # a skip reads "a"
    assert whole.without(()) == whole


def test_only_int8_nodes_can_be_left_in_float(residual_net) -> None:
    with pytest.raises(UsageError, match="no INT8 node of the model is called 'dw'"):
        place(residual_net).without({"dw"})


def test_nodes_that_share_a_tensor_or_a_weight_form_a_group(make_model) -> None:
    model = make_model(
        [
            ("Conv", "input a.w", "a"),
            ("Conv", "a b.w", "b"),
            ("Conv", "a c.w", "c"),
            ("Conv", "c d.w", "d"),
            ("Conv", "b c.w", "y"),
        ],
        {name: ones(16, 16, 1, 1) for name in ("a.w", "b.w", "c.w", "d.w")},
        inputs={"input": [1, 16, 4, 4]},
        outputs={"y": [1, 16, 4, 4], "d": [1, 16, 4, 4]},
    )
    assert place(model).groups == (
        frozenset({"a"}),
        frozenset({"b", "c", "y"}),  # b and c read one tensor; c and y one weight
        frozenset({"d"}),
    )

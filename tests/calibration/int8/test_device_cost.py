"""What the libraries fuse, rule by rule, on small graphs; bytes and time that follow from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_fg_calibration import insert_qdq, place, prepared_copy, to_fp16
from edge_fg_calibration.int8.device_cost.cost import DeviceCost, device_cost
from edge_fg_calibration.int8.device_cost.devices import RATES, devices
from edge_fg_tools.fieldguide.model_files import model_path
from support.small_nets import net

IMAGE = "float[N,8,16,16] x"
MAP = "float[N,8,16,16] y"
SIZE = 8 * 16 * 16
W8 = "w8d = DequantizeLinear(w8, s, z)"
ARRAYS = {
    "s": np.float32(0.1),
    "z": np.int8(0),
    "w8": np.ones((8, 8, 3, 3), np.int8),
    "w16": np.ones((8, 16, 3, 3), np.int8),
    "wf": np.ones((8, 8, 3, 3), np.float32),
    "dw": np.ones((8, 1, 3, 3), np.float32),
    "dw8": np.ones((8, 1, 3, 3), np.int8),
    "zero": np.float32(0),
    "low": np.float32(-1),
    "six": np.float32(6),
    "b": np.ones((1, 8, 1, 1), np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "first": np.zeros(4, np.int64),
    "last": np.full(4, 99),
    "three": np.ones((8, 3, 3, 3), np.float32),
    "odd": np.ones((8, 5), np.float32),
    "even": np.ones((8, 6), np.float32),
}
PAD = "<pads=[1,1,1,1]>"
DEPTHWISE = "<pads=[1,1,1,1], group=8>"


def pair(name: str) -> str:
    """A Q/DQ pair: `name` + d is `name` in INT8."""
    quantise = f"{name}q = QuantizeLinear({name}, s, z)"
    return f"{quantise} {name}d = DequantizeLinear({name}q, s, z)"


def int8(name: str, reads: str) -> str:
    return f"{name} = Conv{PAD}({reads}d, w8d)"


def cost(body: str, library: str = "tensorrt", outputs: str = MAP, inputs: str = IMAGE):
    return device_cost(net(body, inputs, outputs, **ARRAYS), library)


def operators(found: DeviceCost, *, surely: bool = False) -> list[list[str]]:
    return [list(one.operators) for one in (found.surely if surely else found.kernels)]


class TestTensorRT:
    @pytest.mark.parametrize(
        ("behind", "taken"),
        [
            ("y = Relu(c)", ["Relu"]),
            ("y = Clip(c, zero, six)", ["Clip"]),
            ("y = Clip(c, low, six)", ["Clip"]),
            ("g = Sigmoid(c) y = Mul(c, g)", ["Sigmoid", "Mul"]),
            ("y = HardSwish(c)", ["HardSwish"]),
            ("a = Relu(c) y = Add(a, x)", ["Relu", "Add"]),
            ("a = Add(x, c) y = Relu(a)", ["Add", "Relu"]),
        ],
    )
    def test_a_convolution_takes_in(self, behind: str, taken: list[str]):
        found = cost(f"c = Conv{PAD}(x, wf) {behind}")
        assert operators(found) == [["Conv", *taken]]
        assert found.kernels[0].bytes_written == SIZE * 4

    @pytest.mark.parametrize(
        "behind",
        [
            "y = Mul(c, x)",  # as a gate of squeeze-and-excitation does
            "p = GlobalAveragePool(x) y = Add(c, p)",  # broadcasts
            "a = MaxPool<kernel_shape=[1,1]>(c) y = Add(a, c)",  # another kernel reads it, too
        ],
    )
    def test_a_convolution_leaves(self, behind: str):
        found = cost(f"c = Conv{PAD}(x, wf) {behind}")
        assert ["Conv"] in operators(found)

    def test_a_second_addition_is_a_kernel_of_its_own(self):
        found = cost(f"r = Relu(x) c = Conv{PAD}(x, wf) a = Add(c, x) y = Add(a, r)")
        assert operators(found) == [["Relu"], ["Conv", "Add"], ["Add"]]

    def test_a_sum_of_two_convolutions_belongs_to_the_later_one(self):
        found = cost(f"c = Conv{PAD}(x, wf) e = Conv{PAD}(x, wf) y = Add(c, e)")
        assert operators(found) == [["Conv"], ["Conv", "Add"]]

    @pytest.mark.parametrize(
        ("activation", "taken"),
        [("Clip(c, zero, six)", True), ("Relu(c)", True), ("Clip(c, low, six)", False)],
    )
    def test_depthwise_takes_in_only_what_cuts_at_zero(self, activation: str, taken: bool):
        found = cost(f"c = Conv{DEPTHWISE}(x, dw) y = {activation}")
        assert len(found.kernels) == (1 if taken else 2)
        assert found.kernels[0].is_depthwise

    def test_an_int8_convolution_writes_int8_where_only_a_quantise_reads_it(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} r = Relu(c) {pair('r')} {int8('y', 'r')}"
        found = cost(body)
        assert operators(found) == [
            ["QuantizeLinear"],
            ["Conv", "Relu", "QuantizeLinear"],
            ["Conv"],
        ]
        first, last = found.kernels[1:]
        assert (first.bytes_read, first.bytes_written, last.bytes_written) == (SIZE, SIZE, SIZE * 4)
        assert found.macs == {"int8": 2 * SIZE * 8 * 9}
        # The image and what it is converted to stand apart.
        assert found.activation_bytes == SIZE + SIZE + SIZE * 4
        assert first.weight_bytes == 8 * 8 * 9 + 2 * (4 + 1)  # and two scales, two zero points

    def test_an_int8_convolution_that_another_layer_reads_writes_float(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} {pair('c')} {int8('e', 'c')} y = Add(e, c)"
        found = cost(body)
        assert operators(found) == [
            ["QuantizeLinear"],
            ["Conv"],
            ["QuantizeLinear"],
            ["Conv", "Add"],
        ]
        assert found.kernels[1].bytes_written == SIZE * 4

    @pytest.mark.parametrize(("skip", "written"), [("r", SIZE * 4), ("rd", SIZE)])
    def test_a_float_skip_operand_keeps_the_sum_in_float(self, skip: str, written: int):
        body = f"{W8} r = Relu(x) {pair('r')} {int8('c', 'r')} a = Add(c, {skip}) {pair('a')}"
        found = cost(f"{body} {int8('y', 'a')}")
        summed = next(one for one in found.kernels if "Add" in one.operators)
        assert summed.bytes_written == written

    def test_a_float_convolution_may_write_int8_but_nobody_promises_it(self):
        body = f"{W8} c = Conv{DEPTHWISE}(x, dw) r = Relu(c) {pair('r')} {int8('y', 'r')}"
        found = cost(body)
        assert operators(found) == [["Conv", "Relu", "QuantizeLinear"], ["Conv"]]
        assert operators(found, surely=True) == [["Conv", "Relu"], ["QuantizeLinear"], ["Conv"]]

    def test_a_pad_before_a_quantise_is_a_kernel_and_keeps_the_convolution_in_float(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} p = Pad(c, pads, low) {pair('p')}"
        found = cost(f"{body} y = Conv(pd, w8d)")
        assert operators(found) == [
            ["QuantizeLinear"],
            ["Conv"],
            ["Pad"],
            ["QuantizeLinear"],
            ["Conv"],
        ]
        assert found.kernels[1].bytes_written == SIZE * 4

    def test_a_convolution_does_the_padding_before_it(self):
        assert operators(cost("p = Pad(x, pads, zero) y = Conv(p, wf)")) == [["Conv"]]

    def test_casts_around_int8_cost_nothing(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} r = Relu(c) {pair('r')} {int8('y', 'r')}"
        found = device_cost(to_fp16(net(body, IMAGE, MAP, **ARRAYS)), "tensorrt")
        assert [one.bytes_read for one in found.kernels] == [SIZE * 4, SIZE, SIZE]

    def test_quantise_moves_before_maximum_pooling(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} p = MaxPool<kernel_shape=[1,1]>(c) {pair('p')}"
        found = cost(f"{body} {int8('y', 'p')}")
        assert operators(found)[1:3] == [["Conv", "QuantizeLinear"], ["MaxPool"]]
        assert found.kernels[2].bytes_read == found.kernels[2].bytes_written == SIZE

    def test_average_pooling_between_int8_runs_in_int8(self):
        body = f"{W8} {pair('x')} p = AveragePool<kernel_shape=[1,1]>(xd) {pair('p')}"
        found = cost(f"{body} {int8('y', 'p')}")
        assert operators(found)[1] == ["AveragePool", "QuantizeLinear"]
        assert found.kernels[1].bytes_read == found.kernels[1].bytes_written == SIZE

    def test_quantise_is_cloned_for_the_operands_of_a_concat_which_costs_nothing(self):
        body = f"{W8} {pair('x')} {int8('a', 'x')} {int8('b2', 'x')} c = Concat<axis=1>(a, b2)"
        found = cost(f"{body} {pair('c')} w2 = DequantizeLinear(w16, s, z) y = Conv{PAD}(cd, w2)")
        both = ["Conv", "QuantizeLinear"]
        assert operators(found) == [["QuantizeLinear"], both, both, ["Conv"]]
        assert found.kernels[-1].bytes_read == 2 * SIZE

    def test_a_float_convolution_that_reads_int8_needs_a_kernel_before_it(self):
        found = cost(f"{W8} {pair('x')} {int8('c', 'x')} e = Conv{PAD}(xd, wf) y = Add(c, e)")
        kernels = [["QuantizeLinear"], ["Conv"], ["DequantizeLinear"], ["Conv", "Add"]]
        assert operators(found) == kernels

    def test_pointwise_layers_that_follow_each_other_are_one_kernel(self):
        assert operators(cost("a = Mul(x, b) e = Exp(a) y = Relu(e)")) == [["Mul", "Exp", "Relu"]]

    def test_what_only_knows_shapes_costs_nothing(self):
        body = "s0 = Shape(x) e = Exp(x) v = Reshape(e, s0) y = Relu(v)"
        assert operators(cost(body)) == [["Exp", "Relu"]]

    def test_views_cost_nothing(self):
        body = "a = Slice(x, first, last) p = GlobalAveragePool(a) f = Flatten(p) y = Gemm(f, even)"
        found = cost(body, outputs="float[N,6] y")
        assert operators(found) == [["GlobalAveragePool"], ["Gemm"]]


class TestTensorRTRTX:
    def test_an_int8_convolution_writes_float_and_a_second_kernel_does_the_rest(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} r = Relu(c) {pair('r')} {int8('y', 'r')}"
        found = cost(body, "tensorrt-rtx")
        rest = ["rescale", "Relu", "QuantizeLinear"]
        assert operators(found) == [["QuantizeLinear"], ["Conv"], rest, ["Conv"], ["rescale"]]
        assert found.kernels[1].bytes_written == SIZE * 4
        assert found.kernels[2].bytes_written == SIZE
        assert found.surely == found.kernels

    def test_a_generated_kernel_may_write_several_tensors(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} {pair('c')} {int8('e', 'c')} y = Add(e, c)"
        found = cost(body, "tensorrt-rtx")
        assert found.kernels[2].operators == ("rescale", "QuantizeLinear")
        assert found.kernels[2].bytes_written == SIZE * (4 + 1)

    def test_a_float_convolution_takes_in_activation_and_sums(self):
        body = f"r = Relu(x) c = Conv{PAD}(x, wf) a = Add(c, x) e = Add(a, r) y = Relu(e)"
        assert operators(cost(body, "tensorrt-rtx"))[1] == ["Conv", "Add", "Add", "Relu"]

    def test_kernels_that_only_one_reads_become_part_of_it(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} {int8('e', 'x')} a = Add(c, e) y = Relu(a)"
        found = operators(cost(body, "tensorrt-rtx"))
        assert found == [
            ["QuantizeLinear"],
            ["Conv"],
            ["Conv"],
            ["rescale", "rescale", "Add", "Relu"],
        ]

    def test_quantise_moves_before_maximum_pooling(self):
        body = f"{W8} {pair('x')} {int8('c', 'x')} p = MaxPool<kernel_shape=[1,1]>(c) {pair('p')}"
        found = cost(f"{body} {int8('y', 'p')}", "tensorrt-rtx")
        assert operators(found)[2:4] == [["rescale", "QuantizeLinear"], ["MaxPool"]]
        assert found.kernels[3].bytes_read == SIZE

    def test_a_float_convolution_reads_fp16(self):
        model = to_fp16(
            net(f"r = Relu(x) y = Conv{PAD}(r, wf)", IMAGE, MAP, **ARRAYS), keep_fp32=["y"]
        )
        assert [node.op_type for node in model.graph.node] == ["Cast", "Relu", "Cast", "Conv"]
        found = device_cost(model, "tensorrt-rtx")
        assert operators(found) == [["Cast", "Relu"], ["Conv"]]
        assert found.kernels[1].bytes_read == SIZE * 2

    def test_depthwise_leaves_silu_to_the_pooling_behind_it(self):
        body = f"c = Conv{DEPTHWISE}(x, dw) g = Sigmoid(c) m = Mul(c, g) p = GlobalAveragePool(m)"
        found = cost(f"{body} y = Mul(m, p)", "tensorrt-rtx")
        assert operators(found)[:2] == [["Conv"], ["Sigmoid", "Mul", "GlobalAveragePool", "Mul"]]

    def test_int8_depthwise_reads_four_channels_for_each(self):
        body = f"{pair('x')} dwd = DequantizeLinear(dw8, s, z) y = Conv{DEPTHWISE}(xd, dwd)"
        found = cost(body, "tensorrt-rtx")
        assert operators(found) == [["QuantizeLinear", "widen"], ["Conv"], ["rescale"]]
        assert found.kernels[0].bytes_written == found.kernels[1].bytes_read == 4 * SIZE
        assert found.kernels[0].weight_bytes == 3 * SIZE + 4 + 1  # zeros, a scale, a zero point

    @pytest.mark.parametrize(("half", "channels"), [(False, 3), (True, 4)])
    def test_the_image_is_copied_with_channels_last(self, half: bool, channels: int):
        model = net(f"y = Conv{PAD}(x, three)", "float[N,3,16,16] x", MAP, **ARRAYS)
        found = device_cost(to_fp16(model) if half else model, "tensorrt-rtx")
        assert found.kernels[0].operators[-1] == "layout"
        assert found.kernels[0].bytes_written == channels * 256 * (2 if half else 4)

    @pytest.mark.parametrize(("weight", "columns", "kernels"), [("odd", 5, 2), ("even", 6, 1)])
    def test_a_product_writes_an_even_number_of_columns(
        self, weight: str, columns: int, kernels: int
    ):
        outputs = f"float[N,{columns}] y"
        found = cost(f"y = Gemm(x, {weight})", "tensorrt-rtx", outputs, "float[N,8] x")
        assert len(found.kernels) == kernels
        assert found.kernels[0].bytes_written == 6 * 4

    def test_convolutions_share_the_buffer_of_a_concat_and_generated_kernels_take_it_in(self):
        body = f"a = Conv{PAD}(x, wf) r = Relu(a) e = Conv{PAD}(x, wf) c = Concat<axis=1>(r, e)"
        pooled = cost(
            f"{body} y = MaxPool<kernel_shape=[1,1]>(c)", "tensorrt-rtx", "float[N,16,16,16] y"
        )
        assert operators(pooled) == [["Conv", "Relu"], ["Conv"], ["MaxPool"]]
        taken = cost(f"{body} y = Exp(c)", "tensorrt-rtx", "float[N,16,16,16] y")
        assert operators(taken) == [["Conv", "Relu"], ["Conv"], ["Concat", "Exp"]]


class TestTime:
    def test_a_kernel_takes_the_slower_of_moving_and_computing_and_its_launch(self):
        device, rates = devices()["agx-orin"], RATES[0]
        kernel = cost(f"y = Conv{PAD}(x, wf)").kernels[0]
        moved = kernel.bytes_read + kernel.bytes_written + kernel.weight_bytes
        assert moved == 2 * SIZE * 4 + 8 * 8 * 9 * 4
        computing = 2 * kernel.macs / device.tensor_rates["fp32"]
        expected = max(moved / 204.8e9, computing) + rates.launch_s
        assert kernel.seconds(device, rates) == pytest.approx(expected)

    def test_the_range_holds_the_best_and_the_worst(self):
        for device in devices().values():
            low, high = cost(f"y = Conv{PAD}(x, wf)").latency(device)
            assert 0 < low < high

    def test_only_an_order_that_holds_for_all_rates_is_said(self):
        device = devices()["orin-nano"]
        inputs, outputs = "float[N,8,256,256] x", "float[N,8,256,256] y"
        one = cost(f"y = Conv{PAD}(x, wf)", inputs=inputs, outputs=outputs)
        two = cost(f"c = Conv{PAD}(x, wf) y = Conv{PAD}(c, wf)", inputs=inputs, outputs=outputs)
        assert one.compare(two, device) == "faster"
        assert two.compare(one, device) == "slower"
        assert one.compare(one, device) == "undecided"
        # Many small kernels cost launches, a large one bytes.
        layers = [f"x{i + 1} = Conv{PAD}(x{i}, wf)" for i in range(20)]
        small = cost(" ".join(["x0 = Relu(x)", *layers, "y = Relu(x20)"]))
        assert one.compare(small, device) == "undecided"

    def test_the_order_of_networks_with_attention_is_undecided(self):
        shape = "float[N,8,256,256]"
        small = cost("y = Relu(x)")
        attention = cost(
            "k = Transpose(x) y = MatMul(x, x)", "tensorrt", f"{shape} y", f"{shape} x"
        )
        assert small.compare(attention, devices()["thor"]) == "undecided"

    def test_the_costliest_kernels_come_first(self):
        body = f"r = Relu(x) c = Conv{PAD}(r, wf) y = MaxPool<kernel_shape=[16,16]>(c)"
        found = cost(body, outputs="float[N,8,1,1] y").costliest(devices()["thor"], 2)
        assert [kernel.layers[0] for kernel, _ in found] == ["c", "r"]
        assert 0 < found[1][1] <= found[0][1] < 1


def variants(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    """The variants of a model; ranges are invented: no fusion depends on them."""
    model = prepared_copy(model)
    found = {"fp32": model, "fp16": to_fp16(model)}
    for name, settings in (("", {}), ("whole ", {"target": "tensorrt", "residual_adds": True})):
        placement = place(model, **settings)
        quantised = insert_qdq(model, placement, dict.fromkeys(placement.activations, 1.0))
        found |= {f"{name}int8": quantised, f"{name}int8-fp16": to_fp16(quantised)}
    return found


@pytest.fixture(scope="module")
def birds(data_dir: Path) -> dict[str, onnx.ModelProto]:
    return variants(onnx.load(data_dir / "models" / "inat_birds_mnv2.onnx"))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("variant", "megabytes"),
    [("fp16", 27.6), ("int8", 39.8), ("int8-fp16", 23.1), ("whole int8-fp16", 13.7)],
)
def test_tensorrt_figures_of_the_bird_model(
    birds: dict[str, onnx.ModelProto], variant: str, megabytes: float
):
    found = device_cost(birds[variant], "tensorrt")
    assert found.activation_bytes / 1e6 == pytest.approx(megabytes, rel=0.05)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("variant", "kernels", "read", "written"),
    [("fp16", 56, 14.80, 13.77), ("int8", 107, 46.23, 45.63), ("int8-fp16", 107, 33.71, 33.11)],
)
def test_rtx_figures_of_the_bird_model(
    birds: dict[str, onnx.ModelProto], variant: str, kernels: int, read: float, written: float
):
    """As its log counts them; the image is among what is read."""
    found = device_cost(birds[variant], "tensorrt-rtx")
    assert len(found.kernels) == kernels
    assert sum(one.bytes_read for one in found.kernels) / 1e6 == pytest.approx(read, rel=0.001)
    assert sum(one.bytes_written for one in found.kernels) / 1e6 == pytest.approx(
        written, rel=0.001
    )


@pytest.mark.parametrize(
    ("variant", "kernels"), [("fp32", 37), ("fp16", 34), ("int8", 46), ("int8-fp16", 44)]
)
def test_rtx_kernels_of_the_reference_model(
    variant: str, kernels: int, repository: Path, tmp_path: Path
):
    pytest.importorskip("tensorrt_rtx")
    model = variants(onnx.load(model_path()))[variant]
    onnx.save(model, tmp_path / "variant.onnx")
    script = repository / "tools" / "benchmarks" / "rtx_kernels.py"
    command = [sys.executable, script, tmp_path / "variant.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    log = json.loads(done.stdout.splitlines()[-1])
    assert log["kernels"] == kernels
    found = device_cost(model, "tensorrt-rtx")
    assert len(found.kernels) == pytest.approx(kernels, rel=0.12)
    read = sum(one.bytes_read for one in found.kernels)
    assert read == pytest.approx(log["bytes_read"], rel=0.1)

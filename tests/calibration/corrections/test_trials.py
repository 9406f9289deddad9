"""Corrections are kept where they pay on images that they were not fitted to, and only there."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edge_fg_calibration import compare, quantize_int8, validate_qdq
from edge_fg_calibration.corrections.scoring import Score
from edge_fg_calibration.data.validation_split import CalibrationImages
from support.inference import predict

ASK = {"input_name": "input", "output_name": "logits", "kind": "logits", "target": "tensorrt"}


def _net(make_model, unevenness: float) -> onnx.ModelProto:
    """Pointwise, depthwise, pointwise, head; channels differ by e**unevenness."""
    random = np.random.default_rng(1)
    gains = np.exp(unevenness * random.normal(size=32)).astype(np.float32)
    wide = random.normal(size=(32, 16, 1, 1)).astype(np.float32) / 4
    deep = random.normal(size=(32, 1, 3, 3)).astype(np.float32) / 3
    back = random.normal(size=(16, 32, 1, 1)).astype(np.float32) / 6
    pads = {"pads": [1, 1, 1, 1]}
    return make_model(
        [
            ("Conv", "input stem.w", "stem", dict(pads)),
            ("Relu", "stem", "a"),
            ("Conv", "a wide.w", "wide"),
            ("Relu", "wide", "b"),
            ("Conv", "b deep.w", "deep", {**pads, "group": 32}),
            ("Relu", "deep", "c"),
            ("Conv", "c back.w", "back"),
            ("Relu", "back", "d"),
            ("GlobalAveragePool", "d", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w", "logits", {"transB": 1}),
        ],
        {
            "stem.w": random.normal(size=(16, 3, 3, 3)).astype(np.float32) / 3,
            "wide.w": wide * gains[:, None, None, None],
            "deep.w": deep / gains[:, None, None, None],
            "back.w": back,
            "fc.w": random.normal(size=(20, 16)).astype(np.float32) * 4,
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )


@pytest.fixture(scope="module")
def many() -> np.ndarray:
    coarse = np.random.default_rng(8).uniform(-1, 1, (160, 3, 4, 4)).astype(np.float32)
    return np.ascontiguousarray(coarse.repeat(3, axis=2).repeat(3, axis=3))


def _by_name(result, start: str):
    return [one for one in result.corrections if one.name.startswith(start)]


def test_equalisation_is_kept_where_channels_differ(make_model, many) -> None:
    model = _net(make_model, 2.0)
    found = quantize_int8(model, lambda: [many[:96]], **ASK)
    validate_qdq(found.model)
    kept = [one for one in _by_name(found, "cross-layer equalisation of b") if one.kept]
    # Each group has one setting at most, and is judged by what it alone costs.
    assert len(kept) == 1
    assert kept[0].mean_kl < 0.5 * kept[0].mean_kl_without
    (together,) = [one for one in found.corrections if one.name.endswith("together")]
    assert together.kept
    assert together.mean_kl < 0.5 * together.mean_kl_without
    # The methods are told as compared last, after equalisation: the one taken is the best of them.
    taken = found.candidates[found.method]
    assert taken["softened"] == min(one["softened"] for one in found.candidates.values())
    assert taken["mean_kl"] == together.mean_kl
    plain = quantize_int8(model, lambda: [many[:96]], corrections=False, **ASK)
    reference = predict(model, [many[96:]], "input", "logits")
    unseen = [
        compare(
            reference,
            predict(one.model, [many[96:]], "input", "logits"),
            kind="logits",
            indices=[None] * 64,
        ).mean_kl
        for one in (found, plain)
    ]
    assert unseen[0] < 0.5 * unseen[1]


def test_equalisation_is_left_out_where_it_gains_nothing(make_model, many) -> None:
    random = np.random.default_rng(6)
    # All channels alike: each permutes the same few values.
    row = random.normal(size=27).astype(np.float32)
    stem = np.stack([np.roll(row, n) for n in range(16)]).reshape(16, 3, 3, 3)
    wide = np.eye(16, dtype=np.float32).reshape(16, 16, 1, 1)
    model = make_model(
        [
            ("Conv", "input stem.w", "stem"),
            ("Relu", "stem", "a"),
            ("Conv", "a wide.w", "b"),
            ("GlobalAveragePool", "b", "pool"),
            ("Flatten", "pool", "flat"),
            ("Gemm", "flat fc.w", "logits", {"transB": 1}),
        ],
        {
            "stem.w": stem,
            "wide.w": wide,
            "fc.w": random.normal(size=(20, 16)).astype(np.float32) * 2,
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    found = quantize_int8(model, lambda: [many[:96]], **ASK)
    for one in found.corrections:
        if not one.kept:
            assert "chance" in one.reason or "another exponent" in one.reason
        else:
            assert one.mean_kl < one.mean_kl_without
    assert not any(one.kept for one in _by_name(found, "cross-layer equalisation"))


def test_a_gain_within_chance_does_not_count() -> None:
    even = np.full(50, 0.01)
    noise = np.random.default_rng(0).normal(size=50)
    noise -= noise.mean()
    before = Score(kl=even, softened=even, agreement=1.0)
    little, much = (Score(even, even - gain + 1e-3 * noise, 1.0) for gain in (1e-5, 1e-3))
    assert little.loss < before.loss
    assert not little.beats(before)
    assert much.beats(before)
    assert not before.beats(before)


def test_a_gain_on_a_few_images_at_the_cost_of_most_does_not_count() -> None:
    usual = np.full(60, 0.01)
    before = usual.copy()
    before[:3] = 1.0
    other = Score(usual, before, 1.0)
    found = Score(usual, usual * 1.2, 1.0)
    assert found.loss < other.loss
    assert not found.beats(other)


def test_too_few_images_judge_no_correction(make_model, many) -> None:
    found = quantize_int8(_net(make_model, 2.0), lambda: [many[:63]], **ASK)
    assert found.corrections == ()
    assert found.validation_images == 63
    assert set(found.methods.values()) == {found.method}


def test_in_the_end_ranges_come_from_all_images(make_model, many) -> None:
    loud = many[:96].copy()
    loud[5] *= 3  # every third image is a validation image, this one among them
    for correction in (False, True):
        found = quantize_int8(_net(make_model, 1.0), lambda: [loud], corrections=correction, **ASK)
        seen = found.histograms["input"]
        assert seen.count == loud.size
        assert seen.amax == np.abs(loud).max()
        assert found.ranges["input"]["minmax"] == pytest.approx(np.abs(loud).max())


def test_layers_can_be_left_in_float_afterwards(make_model, many) -> None:
    model = _net(make_model, 2.0)
    found = quantize_int8(model, lambda: [many[:96]], **ASK)
    everything = frozenset(found.placement.nodes)
    floats = found.recipe.make(everything - {"wide"}, "the test")
    validate_qdq(floats)
    operators = [node.op_type for node in floats.graph.node]
    assert operators.count("QuantizeLinear") == 1
    reference = predict(model, [many[96:]], "input", "logits")
    output = predict(floats, [many[96:]], "input", "logits")
    judged = compare(reference, output, kind="logits", indices=[None] * 64)
    whole = predict(found.model, [many[96:]], "input", "logits")
    all_int8 = compare(reference, whole, kind="logits", indices=[None] * 64)
    assert judged.mean_kl < all_int8.mean_kl


@pytest.mark.parametrize("total", [8, 63, 64, 114, 512, 1000, 5000])
def test_no_validation_image_is_counted(total: int) -> None:
    numbers = np.arange(total, dtype=np.float32).reshape(-1, 1)
    batches = [numbers[n : n + 7] for n in range(0, total, 7)]
    images = CalibrationImages(lambda: batches)
    trial = np.concatenate(images.validation).ravel()
    counted = np.concatenate(list(images.statistics())).ravel()
    assert len(counted) == images.counted
    assert images.is_split == (total >= 64)
    if total < 64:
        assert set(trial) == set(counted) == set(range(total))
    else:
        assert not set(trial) & set(counted)
        assert len(trial) + len(counted) == total
        assert 20 <= len(trial) <= 128
        assert len(trial) <= total / 2


def test_products_of_more_than_matrices_get_no_bias(make_model, many) -> None:
    random = np.random.default_rng(3)
    model = make_model(
        [
            ("Conv", "input stem.w", "stem", {"pads": [1, 1, 1, 1]}),
            ("Relu", "stem", "a"),
            ("Reshape", "a tokens.shape", "channels"),
            ("Transpose", "channels", "tokens", {"perm": [0, 2, 1]}),
            ("MatMul", "tokens mix.w", "mixed"),
            ("ReduceMean", "mixed", "pool", {"axes": [1], "keepdims": 0}),
            ("Gemm", "pool fc.w", "logits", {"transB": 1}),
        ],
        {
            "stem.w": random.normal(size=(16, 3, 3, 3)).astype(np.float32) / 3,
            "tokens.shape": np.array([0, 16, 144], np.int64),
            "mix.w": random.normal(size=(16, 24)).astype(np.float32),
            "fc.w": random.normal(size=(20, 24)).astype(np.float32),
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    found = quantize_int8(model, lambda: [many[:96]], **ASK)
    validate_qdq(found.model)
    assert "mixed" in found.placement.nodes
    assert _by_name(found, "bias correction")
    assert all(len(node.input) == 2 for node in found.model.graph.node if node.op_type == "MatMul")


LAYERS = {
    "Conv over one axis": (
        [("Reshape", "a flat", "t"), ("Conv", "t w", "c", {"pads": [1, 1]})],
        {"flat": np.array([0, 16, 144], np.int64), "w": (24, 16, 3)},
        [2],
    ),
    "Conv over three axes": (
        [("Unsqueeze", "a at", "t"), ("Conv", "t w", "c", {"pads": [0, 1, 1] * 2})],
        {"at": np.array([2], np.int64), "w": (24, 16, 1, 3, 3)},
        [2, 3, 4],
    ),
    "ConvTranspose": ([("ConvTranspose", "a w", "c")], {"w": (16, 24, 3, 3)}, [2, 3]),
    "ConvTranspose with a bias and groups": (
        [("ConvTranspose", "a w b", "c", {"group": 2, "strides": [2, 2]})],
        {"w": (16, 12, 2, 2), "b": (24,)},
        [2, 3],
    ),
    "ConvTranspose over one axis": (
        [("Reshape", "a flat", "t"), ("ConvTranspose", "t w", "c")],
        {"flat": np.array([0, 16, 144], np.int64), "w": (16, 24, 3)},
        [2],
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_of_another_layout_run_in_int8_and_the_rest_is_corrected(
    make_model, many, kind: str
) -> None:
    random = np.random.default_rng(5)
    rows, arrays, axes = LAYERS[kind]
    arrays = {
        name: random.normal(size=one).astype(np.float32) / 4 if isinstance(one, tuple) else one
        for name, one in arrays.items()
    }
    model = make_model(
        [
            ("Conv", "input stem.w", "stem", {"pads": [1, 1, 1, 1]}),
            ("Relu", "stem", "a"),
            *[(*row[:3], dict(*row[3:])) for row in rows],
            ("Relu", "c", "d"),
            ("ReduceMean", "d", "pool", {"axes": axes, "keepdims": 0}),
            ("Gemm", "pool fc.w", "logits", {"transB": 1}),
        ],
        {
            **arrays,
            "stem.w": random.normal(size=(16, 3, 3, 3)).astype(np.float32) / 3,
            "fc.w": random.normal(size=(20, 24)).astype(np.float32) * 4,
        },
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"logits": ["N", 20]},
    )
    found = quantize_int8(model, lambda: [many[:96]], **ASK)
    validate_qdq(found.model)
    assert {"c", "logits"} <= found.placement.nodes
    assert found.warnings == ()
    for name in ("bias correction", "least-error weight scales", "GPTQ-style rounding"):
        assert _by_name(found, name)
    assert "c" not in found.recipe.windows
    assert "logits" in found.recipe.windows
    reference = predict(model, [many[96:]], "input", "logits")
    output = predict(found.model, [many[96:]], "input", "logits")
    judged = compare(reference, output, kind="logits", indices=[None] * 64)
    assert judged.agreement > 0.8


@pytest.mark.parametrize(
    ("step", "left_out", "others"),
    [
        ("collect_windows", "statistics of what layers read", "cross-layer equalisation"),
        ("collect_channel_ranges", "cross-layer equalisation", "bias correction"),
        ("find_shift_places", "zero-point shift of ReLU outputs", "GPTQ-style rounding"),
        ("changes_by_tensor", "other range methods", "GPTQ-style rounding"),
        ("calibrated_weights", "GPTQ-style rounding", "bias correction"),
    ],
)
def test_a_correction_that_fails_is_left_out_and_the_others_are_tried(
    make_model, many, monkeypatch, caplog, step: str, left_out: str, others: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise IndexError("an axis that\nis not there")

    monkeypatch.setattr(f"edge_fg_calibration.corrections.trials.{step}", fail)
    with caplog.at_level("DEBUG", logger="edge_fg"):
        found = quantize_int8(_net(make_model, 2.0), lambda: [many[:96]], **ASK)
    validate_qdq(found.model)
    (said,) = [one for one in found.warnings if one.startswith(left_out)]
    assert said.endswith("is left out: IndexError: an axis that is not there")
    assert not _by_name(found, left_out)
    assert _by_name(found, others)
    assert any(one.exc_info and left_out in one.getMessage() for one in caplog.records)

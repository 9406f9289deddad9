"""Statistics from one pass, and the whole way from images to an INT8 graph."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_fg.errors import CalibrationError, ModelError, UnsupportedNodeError, UsageError
from edge_fg_calibration import (
    Histogram,
    collect_histograms,
    compare,
    quantize_int8,
    to_fp16,
    validate_qdq,
)
from edge_fg_calibration.graph.session import open_session
from support.inference import predict

TENSORS = ["input", "a", "pw", "flat"]
ASK = {"input_name": "input", "output_name": "probs", "kind": "probabilities"}


def test_statistics_do_not_depend_on_batches_or_order(residual_net, images) -> None:
    whole = collect_histograms(residual_net, [images], TENSORS, input_name="input")
    mixed = images[::-1]
    parts = [mixed[:1], mixed[1:8], mixed[8:]]
    again = collect_histograms(residual_net, parts, TENSORS, input_name="input")
    assert {k: v.to_dict() for k, v in again.items()} == {k: v.to_dict() for k, v in whole.items()}


def test_statistics_are_those_of_the_tensors(residual_net, images) -> None:
    found = collect_histograms(residual_net, [images], ["input", "stem"], input_name="input")
    by_hand = Histogram()
    by_hand.add(images)
    assert found["input"].to_dict() == by_hand.to_dict()
    weight, bias = (
        numpy_helper.to_array(next(t for t in residual_net.graph.initializer if t.name == name))
        for name in ("stem.w", "stem.b")
    )
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    stem = np.einsum("nchwij,ocij->nohw", windows, weight) + bias[:, None, None]
    assert found["stem"].count == stem.size
    assert found["stem"].minimum == pytest.approx(stem.min(), rel=1e-5)
    assert found["stem"].maximum == pytest.approx(stem.max(), rel=1e-5)


def test_progress_counts_the_images(residual_net, images) -> None:
    told = []
    collect_histograms(
        residual_net,
        [images[:6], images[6:]],
        ["a"],
        input_name="input",
        total=20,
        progress=lambda *step: told.append(step),
    )
    assert told[0] == ("calibrate", 1, 20)
    assert told[-1] == ("calibrate", 20, 20)


def test_images_of_one_flat_colour_are_refused(residual_net) -> None:
    colours = np.random.default_rng(0).uniform(-1, 1, (8, 3, 1, 1)).astype(np.float32)
    flat = np.ascontiguousarray(np.broadcast_to(colours, (8, 3, 12, 12)))
    with pytest.raises(CalibrationError, match="one flat colour"):
        collect_histograms(residual_net, [flat], ["a"], input_name="input")
    black = np.full((8, 3, 12, 12), -1, np.float32)
    with pytest.raises(CalibrationError, match="one flat colour"):
        quantize_int8(residual_net, lambda: [black], **ASK)


def test_a_tensor_that_turns_nan_is_named(make_model, images) -> None:
    model = make_model(
        [("Log", "input", "logs"), ("Relu", "logs", "y")],
        {},
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"y": ["N", 3, 12, 12]},
    )
    with pytest.raises(CalibrationError, match="tensor 'logs': values are NaN"):
        collect_histograms(model, [images], ["logs"], input_name="input")


def test_nothing_to_calibrate_on_or_observe_is_refused(residual_net, images) -> None:
    with pytest.raises(CalibrationError, match="no calibration images"):
        collect_histograms(residual_net, [], ["a"], input_name="input")
    with pytest.raises(UsageError, match="no tensor called 'nope'"):
        collect_histograms(residual_net, [images], ["nope"], input_name="input")
    with pytest.raises(ModelError, match="can't run the model"):
        collect_histograms(residual_net, [images[:, :2]], ["a"], input_name="input")
    with pytest.raises(ModelError, match="can't load the model"):
        open_session(b"not a model")


def test_the_best_method_is_kept_and_all_are_told(residual_net, images) -> None:
    batches = [images[:10], images[10:]]
    found = quantize_int8(residual_net, lambda: batches, corrections=False, **ASK)
    validate_qdq(found.model)
    assert set(found.candidates) >= {"minmax", "percentile", "mse", "entropy"}
    assert found.corrections == ()
    least = min(one["mean_kl"] for one in found.candidates.values())
    assert found.candidates[found.method]["mean_kl"] == least
    assert found.validation_images == 20
    assert set(found.ranges) == set(found.placement.activations)
    for tensor, one in found.ranges.items():
        assert found.methods[tensor] == found.method
        assert one["amax"] == one[found.method]
        assert 0 < one["amax"] <= one["minmax"]
        assert 0 <= one["clipped_share"] <= 1
    scale = next(t for t in found.model.graph.initializer if t.name == "input_scale")
    assert numpy_helper.to_array(scale) == np.float32(found.ranges["input"]["amax"] / 127)
    reference = predict(residual_net, [images], "input", "probs")
    output = predict(found.model, [images], "input", "probs")
    judged = compare(reference, output, kind="probabilities", indices=[None] * 20)
    assert judged.mean_kl == pytest.approx(least, rel=1e-6)
    stem, dw, pw, head = 16 * 144 * 27, 16 * 144 * 9, 16 * 144 * 16, 320
    share = (stem + pw + head) / (stem + dw + pw + head)
    assert found.int8_macs == pytest.approx(share)


def test_the_result_does_not_depend_on_batch_size(residual_net, images) -> None:
    one = quantize_int8(residual_net, lambda: [images], **ASK)
    two = quantize_int8(residual_net, lambda: [images[n : n + 3] for n in range(0, 20, 3)], **ASK)
    assert one.ranges == two.ranges
    assert one.method == two.method
    assert one.model.SerializeToString() == two.model.SerializeToString()


def test_a_model_without_anything_to_quantise_is_refused(make_model, images) -> None:
    model = make_model(
        [("Conv", "input w", "y")],
        {"w": np.ones((5, 3, 3, 3), np.float32)},
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"y": ["N", 5, 10, 10]},
    )
    with pytest.raises(UnsupportedNodeError, match="Conv 'y': small convolution"):
        quantize_int8(model, lambda: [images], input_name="input", output_name="y", kind="logits")


def test_images_and_figures_need_no_onnx() -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import edge_fg_calibration as c\n"
        "c.Budget.parse(['agreement=0.9'])\n"
        "try:\n    c.place\n"
        "except ImportError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("MissingDependencyError onnx is needed to quantise a model")


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_classifier_keeps_its_answers(data_dir: Path) -> None:
    from PIL import Image

    model = onnx.load(data_dir / "models" / "inat_insects_mnv2.onnx")
    paths = sorted((data_dir / "images" / "insects").iterdir())

    def load(chosen: list[Path]) -> np.ndarray:
        rows = [
            np.asarray(Image.open(one).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
            for one in chosen
        ]
        return ((np.stack(rows).astype(np.float32) - 128) / 128).transpose(0, 3, 1, 2).copy()

    calibration, unseen = load(paths[::12]), load(paths[3::8])
    found = quantize_int8(model, lambda: [calibration], **ASK)
    reference = predict(model, [unseen], "input", "probs")
    known = [None] * len(unseen)
    output = predict(found.model, [unseen], "input", "probs")
    judged = compare(reference, output, kind="probabilities", indices=known)
    assert judged.agreement >= 0.85
    assert judged.mean_kl <= 0.03
    assert found.int8_macs > 0.9
    half = predict(to_fp16(model), [unseen], "input", "probs")
    assert compare(reference, half, kind="probabilities", indices=known).agreement >= 0.97

"""Models that came with a quantisation of their own, and images of another kind."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_fg.errors import UnsupportedNodeError
from edge_fg_calibration import insert_qdq, place, validate_qdq
from edge_fg_calibration.data.out_of_domain import domain_warnings
from edge_fg_calibration.int8.qat import int8_share, is_quantised, without_rounding


def run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {"input": images})[0])


@pytest.fixture(scope="module")
def quantised(residual_net: onnx.ModelProto) -> onnx.ModelProto:
    placement = place(residual_net, target="tensorrt")
    return insert_qdq(residual_net, placement, dict.fromkeys(placement.activations, 4.0))


def test_the_float_form_has_no_rounding_but_the_ranges(residual_net, quantised, images) -> None:
    smooth = without_rounding(quantised)
    assert is_quantised(quantised)
    assert not is_quantised(residual_net)
    assert not is_quantised(smooth)
    operators = [node.op_type for node in smooth.graph.node]
    assert "Clip" in operators
    onnx.checker.check_model(smooth, full_check=True)
    expected = run(quantised, images)
    np.testing.assert_allclose(run(smooth, images), expected, atol=0.05)
    # Loud images are clipped by both, not by the float model that they came from.
    loud = run(smooth, images * 20)
    np.testing.assert_allclose(loud, run(quantised, images * 20), atol=0.05)
    assert np.abs(loud - run(residual_net, images * 20)).max() > 0.05


def test_without_rounding_is_exact_where_nothing_was_rounded(make_model) -> None:
    model = make_model(
        [
            ("QuantizeLinear", "input s z", "q"),
            ("DequantizeLinear", "q s z", "d"),
            ("DequantizeLinear", "w ws wz", "dw", {"axis": 0}),
            ("Conv", "d dw", "y"),
        ],
        {
            "s": np.float32(0.5),
            "z": np.int8(0),
            "w": np.arange(-4, 4, dtype=np.int8).reshape(2, 4, 1, 1),
            "ws": np.array([0.5, 0.25], np.float32),
            "wz": np.zeros(2, np.int8),
        },
        inputs={"input": [1, 4, 2, 2]},
        outputs={"y": [1, 2, 2, 2]},
    )
    validate_qdq(model)
    assert int8_share(model) == 1.0
    image = np.arange(16, dtype=np.float32).reshape(1, 4, 2, 2) * 0.5 - 3
    np.testing.assert_array_equal(run(without_rounding(model), image), run(model, image))


def test_a_share_of_the_work_is_in_int8(residual_net, quantised) -> None:
    assert int8_share(residual_net) == 0.0
    assert 0.5 < int8_share(quantised) <= 1.0


def test_integers_used_directly_are_refused(make_model) -> None:
    model = make_model(
        [("QuantizeLinear", "input s z", "q"), ("Cast", "q", "y", {"to": 1})],
        {"s": np.float32(0.5), "z": np.int8(0)},
        inputs={"input": [1, 3, 2, 2]},
        outputs={"y": [1, 3, 2, 2]},
    )
    with pytest.raises(UnsupportedNodeError, match="'q'"):
        without_rounding(model)


LABELS = [f"bird {number}" for number in range(50)]


def test_usual_images_raise_no_doubts() -> None:
    answers = [number % 50 for number in range(100)]
    known = [one if one % 5 else (one + 1) % 50 for one in answers]
    assert domain_warnings(answers, [0.8] * 100, known, LABELS) == ()
    assert domain_warnings(answers, [0.6] * 100, [None] * 100, LABELS) == ()
    assert domain_warnings([3] * 10, [0.1] * 10, [None] * 10, LABELS) == ()


def test_another_domain_is_told_by_what_the_model_says() -> None:
    answers = [number % 50 for number in range(100)]
    nothing: list[int | None] = [None] * 100
    (unsure,) = domain_warnings(answers, [0.2] * 100, nothing, LABELS)
    assert "unsure of most images (mean confidence 0.20)" in unsure
    (one_sided,) = domain_warnings([7] * 80 + answers[:20], [0.9] * 100, nothing, LABELS)
    assert "81 of 100" in one_sided or "80 of 100" in one_sided
    assert "'bird 7'" in one_sided
    wrong = [(one + 1) % 50 for one in answers]
    (mistaken,) = domain_warnings(answers, [0.9] * 100, wrong, LABELS)
    assert "only 0% of the 100 images of known class" in mistaken


def test_one_class_is_no_sign_where_that_is_its_label() -> None:
    assert domain_warnings([7] * 40, [0.9] * 40, [7] * 40, LABELS) == ()
    assert domain_warnings([0] * 40, [0.9] * 40, [None] * 40, ["owl", "other"]) == ()


def test_real_sets_of_another_kind(data_dir) -> None:
    from edge_fg.images import read_image
    from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize

    spec = PreprocessSpec(Resize("squash", (224, 224)), mean=(128,) * 3, std=(128,) * 3)
    preprocess = CpuPreprocessor(spec)
    session = onnxruntime.InferenceSession(data_dir / "models" / "inat_birds_mnv2.onnx")

    def doubts(folder: str, step: int) -> tuple[str, ...]:
        paths = sorted((data_dir / "images" / folder).glob("*.jpg"))[::step][:32]
        rows = np.concatenate(
            [session.run(None, {"input": preprocess([read_image(one)])})[0] for one in paths]
        )
        labels = [str(number) for number in range(rows.shape[1])]
        top = rows.argmax(1).tolist()
        return domain_warnings(top, rows.max(1).tolist(), [None] * len(top), labels)

    assert doubts("birds", 45) == ()
    assert any("from another domain" in one for one in doubts("insects", 3))

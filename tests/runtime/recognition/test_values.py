"""What people print, compare, copy and store: predictions, classifiers and what is near them."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.errors import UsageError
from edge_fg.labels import Label, Labels

pytest.importorskip("onnxruntime")
COPIES = pytest.mark.parametrize(
    "copied", [lambda one: pickle.loads(pickle.dumps(one)), copy.copy, copy.deepcopy]
)


@pytest.fixture
def classifier(tiny_bundle: Path):
    with edge_fg.load(tiny_bundle) as opened:
        yield opened


def test_what_is_printed(classifier, tiny_bundle: Path, frame: np.ndarray):
    prediction = classifier(frame)
    sure = f"confidence={prediction.confidence:.3f}"
    assert repr(prediction).startswith(f"Prediction(label={prediction.label!r}, {sure}, class_id=")
    assert repr(classifier) == (
        f"Classifier(bundle='{tiny_bundle}', backend='onnxruntime', precision='fp32', classes=4)"
    )
    assert repr(edge_fg.Bundle(tiny_bundle)) == f"Bundle('{tiny_bundle}')"
    assert repr(classifier.labels).startswith("Labels(4: 'Burrowing Owl', ")
    with edge_fg.open_source([frame]) as source:
        assert repr(source) == "IterableSource('frames', state='live')"
    (result,) = edge_fg.stream([frame], classifier)
    assert repr(prediction.label) in repr(result)
    assert len(repr(result)) < 400, "no array"


@COPIES
def test_a_copy_of_a_prediction_is_equal_and_read_only(classifier, frame: np.ndarray, copied):
    prediction = classifier(frame)
    twin = copied(prediction)
    assert twin == prediction
    assert hash(twin) == hash(prediction)
    assert (twin.label, twin.latency) == (prediction.label, prediction.latency)
    assert not twin.probabilities.flags.writeable


def test_what_makes_predictions_differ(classifier, frame: np.ndarray):
    prediction = classifier(frame)
    assert prediction == classifier(frame)
    assert prediction != classifier(frame // 2)
    renamed = Labels([Label(i, f"bird {i}") for i in range(4)])
    assert prediction != edge_fg.Prediction(prediction.probabilities, renamed, prediction.latency)
    assert prediction != prediction.label
    assert len({Labels(classifier.labels), classifier.labels, renamed}) == 2


@COPIES
def test_what_belongs_to_a_process_says_what_to_do_instead(classifier, frame: np.ndarray, copied):
    with pytest.raises(UsageError, match=r"this Classifier .* path, and call edge_fg\.load there"):
        copied(classifier)
    with (
        edge_fg.open_source([frame]) as source,
        pytest.raises(UsageError, match=r"call edge_fg\.open_source there"),
    ):
        copied(source)
    with edge_fg.stream([frame], classifier) as stream, pytest.raises(UsageError, match="Stream"):
        copied(stream)


def test_a_prediction_as_plain_data(classifier, frame: np.ndarray):
    prediction = classifier(frame)
    data = json.loads(json.dumps(prediction.to_dict(top_k=2)))
    assert list(data) == ["index", "label", "confidence", "top", "latency_ms"]
    assert (data["index"], data["label"]) == (prediction.class_id, prediction.label)
    assert [one["label"] for one in data["top"]] == [one.label for one in prediction.top(2)]
    assert list(data["latency_ms"]) == ["preprocess", "inference", "total"]
    assert prediction.to_dict(top_k=0)["top"] == []


def test_the_latency_of_a_batch_says_so(classifier, frame: np.ndarray):
    one = classifier(frame).latency
    assert (one.frames, one.per_frame_ms) == (1, one.total_ms)
    assert str(one) == f"{one.total_ms:.1f} ms"
    four = classifier.batch([frame] * 4)[3].latency
    assert (four.frames, four.per_frame_ms) == (4, four.total_ms / 4)
    assert str(four) == f"{four.total_ms:.1f} ms for 4 frames, {four.per_frame_ms:.1f} ms each"
    assert four.to_dict()["frames"] == 4
    assert four.to_dict()["per_frame"] == pytest.approx(four.total_ms / 4, abs=1e-3)

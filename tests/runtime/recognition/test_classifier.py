"""The classifier that programs embed."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import PIL.Image
import pytest

import edge_fg
from edge_fg.backends.selection import choose, survey
from edge_fg.bundle.manifest import FileEntry, LabelsEntry, Manifest, OutputSpec
from edge_fg.bundle.writer import write_bundle
from edge_fg.errors import (
    BackendError,
    BackendUnavailableError,
    ImageError,
    UsageError,
)
from edge_fg.labels import Label, Labels

ort = pytest.importorskip("onnxruntime")


def reference(tiny_model: bytes, frame: np.ndarray) -> np.ndarray:
    """The probabilities by Pillow, NumPy and ONNX Runtime, without our code."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(frame[..., ::-1]))
    pixels = np.asarray(
        image.resize((16, image.height), Image.Resampling.BILINEAR).resize(
            (16, 16), Image.Resampling.BILINEAR
        )
    )
    tensor = ((pixels.astype(np.float32) - 128) / 64).transpose(2, 0, 1)[None]
    logits = ort.InferenceSession(tiny_model).run(None, {"image": tensor})[0][0].astype(float)
    exponents = np.exp(logits - logits.max())
    return exponents / exponents.sum()


def test_the_answer_is_the_models(tiny_bundle: Path, tiny_model: bytes, frame: np.ndarray):
    with edge_fg.load(tiny_bundle) as classifier:
        prediction = classifier(frame)
    expected = reference(tiny_model, frame)
    np.testing.assert_allclose(prediction.probabilities, expected, atol=1e-6)
    assert prediction.class_id == int(expected.argmax())
    assert prediction.label == classifier.labels[prediction.class_id].label
    assert prediction.confidence == pytest.approx(expected.max(), abs=1e-6)
    assert [a.class_id for a in prediction.top(4)] == list(np.argsort(-expected))
    assert len(prediction.top(2)) == 2
    assert len(prediction.top(99)) == 4
    assert prediction.latency.total_ms >= prediction.latency.inference_ms > 0


def test_a_batch_is_each_alone(tiny_bundle: Path, frame: np.ndarray):
    classifier = edge_fg.load(tiny_bundle)
    frames = [frame, frame[::-1], frame[:20], frame[:, :11]]
    together = classifier.batch(frames)
    for alone, prediction in zip(map(classifier, frames), together, strict=True):
        np.testing.assert_allclose(prediction.probabilities, alone.probabilities, atol=1e-6)
    assert classifier.batch([]) == []


def test_a_region_is_the_cut(tiny_bundle: Path, frame: np.ndarray):
    classifier = edge_fg.load(tiny_bundle)
    by_region = classifier(frame, region_xywh=(10, 5, 30, 20)).probabilities
    by_cut = classifier(frame[5:25, 10:40].copy()).probabilities
    np.testing.assert_array_equal(by_region, by_cut)
    regions = [(0, 0, 60, 40), None, (59, 39, 1, 1)]
    assert len(classifier.batch([frame] * 3, regions)) == 3


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, 0, 0, 5), (55, 0, 6, 5), (0, 36, 5, 5), (0, 0, 5, -1)]
)
def test_regions_outside_are_refused(tiny_bundle: Path, frame: np.ndarray, region):
    with pytest.raises(ImageError, match="region"):
        edge_fg.load(tiny_bundle)(frame, region_xywh=region)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        None,
        "owl.jpg",
    ],
)
def test_what_is_no_frame_is_refused(tiny_bundle: Path, wrong):
    with pytest.raises(ImageError):
        edge_fg.load(tiny_bundle)(wrong)


def test_paths_and_pillow_images_are_answered_like_their_frames(
    tiny_bundle: Path, frame: np.ndarray, tmp_path: Path
):
    path = tmp_path / "owl.png"
    image = PIL.Image.fromarray(frame[:, :, ::-1].copy())
    image.save(path)
    turned = image.transpose(PIL.Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    with edge_fg.load(tiny_bundle) as classifier:
        expected = classifier(frame).probabilities
        for given in (path, str(path), image, turned):
            np.testing.assert_array_equal(classifier(given).probabilities, expected)
        together = classifier.batch([path, frame, image], [(0, 0, 9, 9)] * 3)
        assert len({prediction.probabilities.tobytes() for prediction in together}) == 1
        answer = classifier.submit(path).result()
        np.testing.assert_array_equal(answer.probabilities, expected)
        for one in (path, str(path), image):
            with pytest.raises(ImageError, match="give a list"):
                classifier.batch(one)
        with pytest.raises(ImageError, match="there is no image"):
            classifier(tmp_path / "nobody.png")


def test_old_names_work_with_a_warning(tiny_bundle: Path, frame: np.ndarray):
    with edge_fg.load(tiny_bundle) as classifier:
        region = (10, 5, 30, 20)
        new = classifier(frame, region_xywh=region)
        calls = (
            lambda: classifier(frame, region=region),
            lambda: classifier.batch([frame], regions=[region])[0],
            lambda: classifier.submit(frame, region=region).result(),
        )
        for call in calls:
            with pytest.warns(DeprecationWarning, match="_xywh"):
                old = call()
            np.testing.assert_array_equal(old.probabilities, new.probabilities)
    for thing in (new, new.top(1)[0], classifier.labels[new.class_id]):
        with pytest.warns(DeprecationWarning, match="class_id"):
            assert thing.index == new.class_id


def test_threads_share_one_classifier(tiny_bundle: Path, frame: np.ndarray):
    classifier = edge_fg.load(tiny_bundle, threads=1)
    expected = classifier(frame).probabilities
    wrong = []

    def work() -> None:
        for _ in range(50):
            if not np.array_equal(classifier(frame).probabilities, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_choice_says_why(tiny_bundle: Path):
    choice = edge_fg.load(tiny_bundle).choice
    assert (choice.backend, choice.precision) == ("onnxruntime", "fp32")
    assert "not tensorrt (" in choice.reason
    assert "fp32" in choice.reason
    assert [candidate.name for candidate in survey()] == ["tensorrt", "tensorrt-rtx", "onnxruntime"]


def test_what_can_not_be_chosen(tiny_bundle: Path):
    bundle = edge_fg.Bundle(tiny_bundle)
    with pytest.raises(UsageError, match="choose from"):
        choose(bundle, backend="openvino")
    with pytest.raises(UsageError, match="choose from"):
        choose(bundle, precision="int4")
    with pytest.raises(BackendError, match="--precision int8"):
        choose(bundle, precision="int8")
    unusable = [c for c in survey() if not c.usable]
    for candidate in unusable:
        with pytest.raises(BackendUnavailableError, match="can't run here"):
            choose(bundle, backend=candidate.name)
    assert unusable


def test_ties_are_answered_by_index(tiny_bundle: Path):
    from edge_fg.recognition.prediction import Latency, Prediction

    labels = edge_fg.Bundle(tiny_bundle).labels()
    prediction = Prediction(np.full(4, 0.25, np.float32), labels, Latency(0, 0, 0))
    assert [answer.class_id for answer in prediction.top(4)] == [0, 1, 2, 3]


def test_an_array_of_frames_is_a_batch(tiny_bundle: Path, frame: np.ndarray):
    classifier = edge_fg.load(tiny_bundle)
    stacked = np.stack([frame, frame[::-1]])
    for one, other in zip(classifier.batch(stacked), classifier.batch(list(stacked)), strict=True):
        np.testing.assert_array_equal(one.probabilities, other.probabilities)
    assert classifier.batch(stacked[:0]) == []
    with pytest.raises(ImageError, match="1 frames came with 2 regions"):
        classifier.batch(stacked[:1], [None, None])


@pytest.mark.parametrize(
    "region", [(1, 2, 3), (1.0, 2.0, 3.0, 4.0), (1, 2, 3, "4"), 5, "abcd", np.ones(4)]
)
def test_what_is_no_region_is_refused(tiny_bundle: Path, frame: np.ndarray, region):
    with pytest.raises(ImageError, match="whole pixels"):
        edge_fg.load(tiny_bundle)(frame, region_xywh=region)


def test_a_detectors_whole_numbers_are_a_region(tiny_bundle: Path, frame: np.ndarray):
    classifier = edge_fg.load(tiny_bundle)
    expected = classifier(frame, region_xywh=(10, 5, 30, 20)).probabilities
    for kind in (np.int32, np.uint8):
        region = np.array([10, 5, 30, 20], kind)
        for given in (region, list(region)):
            np.testing.assert_array_equal(classifier(frame, given).probabilities, expected)


def test_closing_twice_is_harmless_and_use_afterwards_says_so(tiny_bundle: Path, frame: np.ndarray):
    with edge_fg.load(tiny_bundle) as classifier:
        classifier.close()
    classifier.close()
    with pytest.raises(BackendError, match="is closed"):
        classifier(frame)


def test_predictions_are_told_apart_and_hashed(tiny_bundle: Path, frame: np.ndarray):
    first, second, other = edge_fg.load(tiny_bundle).batch([frame, frame, frame // 2])
    assert first == first
    assert first == second, "they answer the same, whatever they took"
    assert first != other
    assert len({first, second, other}) == 2


@pytest.mark.parametrize("threads", [-1, 10**10])
def test_a_number_of_threads_that_makes_no_sense(tiny_bundle: Path, threads: int):
    with pytest.raises(UsageError, match="threads must be 0"):
        edge_fg.load(tiny_bundle, threads=threads)


@pytest.mark.parametrize("count", [3, 5])
def test_a_graph_with_other_classes_than_labels(tiny_bundle: Path, frame: np.ndarray, count: int):
    bundle = edge_fg.Bundle(tiny_bundle)
    files = {name: bundle.read(name) for name in bundle.manifest.files}
    files["labels.csv"] = Labels([Label(i, f"bird {i}") for i in range(count)]).to_csv().encode()
    write_bundle(
        tiny_bundle,
        files,
        lambda entries: msgspec.structs.replace(
            bundle.manifest,
            files=entries,
            labels=LabelsEntry("labels.csv", count),
            outputs=(OutputSpec("logits", "logits", ("N", count)),),
        ),
    )
    with pytest.raises(BackendError, match=rf"shape \(1, 4\) for 1 frames and {count} labels"):
        edge_fg.load(tiny_bundle)(frame)


def test_a_bundle_that_is_replaced_again_and_again_always_loads(tiny_bundle: Path):
    """Each load gets the one build or the other, never none and never parts of both."""
    manifest, done = edge_fg.Bundle(tiny_bundle).manifest, threading.Event()
    # Behind the second one there is an empty field that nobody knows.
    graph = (tiny_bundle / "model.fp32.onnx").read_bytes()
    graphs = [graph, graph + b"\xa2\x06\x00"]

    def manifest_of(entries: dict[str, FileEntry]) -> Manifest:
        sha256 = entries["model.fp32.onnx"].sha256
        variant = msgspec.structs.replace(manifest.variants["fp32"], sha256=sha256)
        return msgspec.structs.replace(manifest, files=entries, variants={"fp32": variant})

    def build() -> None:
        for number in itertools.count():
            labels = Labels([Label(i, f"{i} of build {number % 2}") for i in range(4)])
            files = {"model.fp32.onnx": graphs[number % 2], "labels.csv": labels.to_csv().encode()}
            write_bundle(tiny_bundle, files, manifest_of)
            if done.is_set():
                return

    thread = threading.Thread(target=build)
    thread.start()
    try:
        for _ in range(60):
            with edge_fg.load(tiny_bundle, threads=1) as classifier:
                builds = {label.label.partition(" of ")[2] for label in classifier.labels}
                assert len(builds) == 1
    finally:
        done.set()
        thread.join()


def test_classifying_writes_nothing_into_the_home(tiny_bundle: Path, tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import os, sys, numpy, edge_fg\n"
        "with edge_fg.load(sys.argv[1], backend='onnxruntime') as classify:\n"
        "    classify(numpy.zeros((48, 64, 3), numpy.uint8))\n"
        "print('ORT_DISABLE_TELEMETRY' in os.environ)\n"
    )
    unset = ("XDG_", "ORT_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(unset)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tiny_bundle)],
        env=environment | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert list(home.iterdir()) == []

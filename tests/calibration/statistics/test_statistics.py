"""One pass over the images: exact, resumable, and the same in any order and batch."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import CalibrationError
from edge_fg_calibration import (
    Histogram,
    IdentifiedBatches,
    Statistics,
    StatisticsCache,
    StatisticsKey,
    collect_histograms,
    collect_statistics,
)
from edge_fg_calibration.int8.model_warnings import model_warnings
from edge_fg_calibration.int8.ranges import METHODS
from edge_fg_calibration.statistics.channel_statistics import collect_channel_ranges
from support.properties import examples

KEY = StatisticsKey("g", "p", "i", "t", "s")
TENSORS = ["input", "a", "dw", "c", "pool", "logits"]


def collected(model: onnx.ModelProto, images: np.ndarray, size: int = 4) -> Statistics:
    return collect_statistics(
        model,
        [images[start : start + size] for start in range(0, len(images), size)],
        TENSORS,
        input_name="input",
    )


@examples(15)
@given(st.permutations(range(20)), st.integers(1, 20), st.floats(0.1, 40))
def test_order_and_batches_change_nothing(residual_net, images, order, size, loud) -> None:
    # One loud image makes the histograms widen at another moment each time.
    changed = images.copy()
    changed[5] *= np.float32(loud)
    whole = collected(residual_net, changed)
    mixed = collected(residual_net, changed[list(order)], size)
    assert mixed.to_dict() == whole.to_dict()
    for name in TENSORS:
        for choose in METHODS.values():
            assert choose(mixed.histograms[name]) == choose(whole.histograms[name])


@examples(10)
@given(st.lists(st.integers(0, 2), min_size=20, max_size=20))
def test_workers_merge_exactly(residual_net, images, workers) -> None:
    parts = [images[[one == worker for one in workers]] for worker in range(3)]
    merged = Statistics.of(TENSORS)
    for part in parts:
        if len(part):
            merged.merge(collected(residual_net, part))
    assert merged.to_dict() == collected(residual_net, images).to_dict()


def test_only_what_is_needed_runs_and_gives_the_same(residual_net, images) -> None:
    alone = collect_histograms(residual_net, [images], ["a"], input_name="input")
    among = collected(residual_net, images)
    assert alone["a"].to_dict() == among.histograms["a"].to_dict()


def test_channel_maxima_are_those_of_numpy(residual_net, images) -> None:
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(residual_net)
    model.graph.output.extend([onnx.ValueInfoProto(name="a"), onnx.ValueInfoProto(name="logits")])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    found = collect_channel_ranges(residual_net, [images], ["a", "logits"], input_name="input")
    per_image = [session.run(["a", "logits"], {"input": one[None]}) for one in images]
    for place, name in enumerate(("a", "logits")):
        values = np.concatenate([one[place] for one in per_image])
        axes = tuple(axis for axis in range(values.ndim) if axis != 1)
        np.testing.assert_array_equal(found[name].magnitude, np.abs(values).max(axis=axes))


def test_saved_and_loaded_is_the_same(residual_net, images, tmp_path: Path) -> None:
    found = collected(residual_net, images)
    found.save(tmp_path / "s.json", KEY)
    assert Statistics.load(tmp_path / "s.json", KEY).to_dict() == found.to_dict()
    other = StatisticsKey("g", "p", "other", "t", "s")
    with pytest.raises(CalibrationError, match="other images"):
        Statistics.load(tmp_path / "s.json", other)


def spoilt(document: dict, how: str) -> object:
    content = document["statistics"]
    if how == "a count":
        content["histograms"]["a"]["counts"][0] += 1
    elif how == "many bins":
        content["histograms"]["a"]["bins"] = 1 << 60
    elif how == "a version":
        document["version"] = 0
    elif how == "a list":
        return [document]
    elif how == "no key":
        document["key"] = "graph"
    elif how == "no histogram":
        del content["histograms"]["a"]["counts"]
    elif how == "images":
        content["images"] = -1
    return document


@pytest.mark.parametrize(
    "how", ["a count", "many bins", "a version", "a list", "no key", "no histogram", "images"]
)
@pytest.mark.parametrize("signed", [False, True])
def test_what_is_spoilt_is_refused(residual_net, images, tmp_path: Path, how, signed) -> None:
    import hashlib

    path = tmp_path / "s.json"
    collected(residual_net, images).save(path, KEY)
    document = spoilt(json.loads(path.read_text()), how)
    if signed and isinstance(document, dict):
        text = json.dumps(document["statistics"], sort_keys=True)
        document["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(CalibrationError):
        Statistics.load(path, KEY)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_politely(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "s.json"
    path.write_bytes(data)
    with pytest.raises(CalibrationError):
        Statistics.load(path, KEY)


def test_links_and_files_open_to_all_are_refused(residual_net, images, tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    collected(residual_net, images).save(path, KEY)
    (tmp_path / "link.json").symlink_to(path)
    with pytest.raises(CalibrationError):
        Statistics.load(tmp_path / "link.json", KEY)
    path.chmod(0o666)
    with pytest.raises(CalibrationError, match="alone"):
        Statistics.load(path, KEY)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(CalibrationError):
        Statistics.load(tmp_path / "pipe.json", KEY)


class Known:
    """Twenty images behind a cache, that count how often they are read."""

    def __init__(self, images: np.ndarray, folder: Path, content: str = "i") -> None:
        self.read = 0
        self.stop_before = len(images)
        self._images = images
        self.known = IdentifiedBatches(
            self._start, content, "in order", "p", "twenty", StatisticsCache(folder)
        )

    def _start(self):
        for number, one in enumerate(self._images):
            if number == self.stop_before:
                raise KeyboardInterrupt
            self.read += 1
            yield one[None]

    def collect(self, model: onnx.ModelProto) -> Statistics:
        return collect_statistics(model, self.known, TENSORS, input_name="input")


def test_a_second_pass_over_the_same_is_spared(
    residual_net, images, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO", logger="edge_fg")
    first, second = Known(images, tmp_path), Known(images, tmp_path)
    counted, kept = first.collect(residual_net), second.collect(residual_net)
    assert (first.read, second.read) == (20, 0)
    assert kept.to_dict() == counted.to_dict()
    assert "statistics of 20 images reused" in caplog.text


@pytest.mark.parametrize("what", ["the images", "the graph", "the preprocessing", "tensors"])
def test_one_difference_and_it_is_counted_anew(
    residual_net, images, tmp_path: Path, caplog, monkeypatch, what
) -> None:
    caplog.set_level("INFO", logger="edge_fg")
    Known(images, tmp_path).collect(residual_net)
    again = Known(images, tmp_path, content="j" if what == "the images" else "i")
    model, tensors = residual_net, TENSORS
    if what == "the graph":
        model = onnx.ModelProto()
        model.CopyFrom(residual_net)
        weight = model.graph.initializer[0]
        array = onnx.numpy_helper.to_array(weight) * np.float32(1.5)
        weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    known = again.known
    if what == "the preprocessing":
        known = IdentifiedBatches(
            again._start, "i", "in order", "q", "twenty", StatisticsCache(tmp_path)
        )
    if what == "tensors":
        tensors = [*TENSORS[1:], "pw"]
    collect_statistics(model, known, tensors, input_name="input")
    assert again.read == 20
    assert f"{what} changed" in caplog.text


def test_a_spoilt_entry_is_said_and_counted_anew(
    residual_net, images, tmp_path: Path, caplog
) -> None:
    Known(images, tmp_path).collect(residual_net)
    (entry,) = tmp_path.glob("*.json")
    entry.write_text(entry.read_text().replace('"images": 20', '"images": 21'))
    again = Known(images, tmp_path)
    assert again.collect(residual_net).images == again.read == 20
    assert "its digest is wrong" in caplog.text


def test_an_interrupted_pass_goes_on_where_it_stopped(
    residual_net, images, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO", logger="edge_fg")
    stopped = Known(images, tmp_path)
    stopped.stop_before = 13
    with pytest.raises(KeyboardInterrupt):
        stopped.collect(residual_net)
    again = Known(images, tmp_path)
    found = again.collect(residual_net)
    assert "going on after 13 images" in caplog.text
    plain = collect_statistics(residual_net, [images], TENSORS, input_name="input")
    assert found.to_dict() == plain.to_dict()
    assert [one.suffix for one in tmp_path.iterdir()] == [".json"]


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    residual_net, images, tmp_path: Path, caplog
) -> None:
    (tmp_path / "file").write_text("in the way")
    found = Known(images, tmp_path / "file" / "folder").collect(residual_net)
    assert found.images == 20
    assert "not kept" in caplog.text


def test_old_entries_make_room(tmp_path: Path) -> None:
    cache = StatisticsCache(tmp_path, entries=3)
    one = Statistics.of(["x"])
    one.histograms["x"].add(np.ones(4, np.float32))
    for number in range(6):
        cache.keep(StatisticsKey(str(number), "p", "i", "t", "s"), one)
    assert len(list(tmp_path.iterdir())) == 3
    assert cache.find(StatisticsKey("5", "p", "i", "t", "s")) is not None
    assert cache.find(StatisticsKey("0", "p", "i", "t", "s")) is None


def test_a_nan_names_the_tensor_and_the_image(make_model, images) -> None:
    model = make_model(
        [
            ("Conv", "input w", "c"),
            ("Log", "c", "logarithm"),
            ("GlobalAveragePool", "logarithm", "y"),
        ],
        {"w": np.ones((4, 3, 1, 1), np.float32)},
        inputs={"input": ["N", 3, 12, 12]},
        outputs={"y": ["N", 4, 1, 1]},
    )
    good = np.abs(images) + 1
    good[7, :, 2, 2] = -1
    with pytest.raises(CalibrationError, match=r"'logarithm'.*NaN or infinite.*number 8") as caught:
        collect_histograms(model, [good], ["c", "logarithm"], input_name="input")
    assert "\n" not in str(caught.value)
    known = IdentifiedBatches(
        lambda: iter([good]), "i", "in order", "p", "twenty", at=lambda number: f"owl{number}.png"
    )
    with pytest.raises(CalibrationError, match=r"'logarithm'.*owl7\.png"):
        collect_histograms(model, known, ["c", "logarithm"], input_name="input")


def test_a_constant_and_a_dead_tensor_have_ranges_and_are_remarked_on() -> None:
    constant, dead = Histogram(), Histogram()
    constant.add(np.full(100, -2.5, np.float32))
    dead.add(np.zeros(100, np.float32))
    for choose in METHODS.values():
        assert choose(constant) == 2.5
        assert choose(dead) == 1.0
    said = model_warnings(onnx.helper.make_model(_empty()), {"k": constant, "z": dead})
    assert said == (
        "tensor 'k' is constant, -2.5 on every calibration image",
        "tensor 'z' is zero on every calibration image",
    )


def _empty() -> onnx.GraphProto:
    return onnx.helper.make_graph([], "empty", [], [])


def test_dead_channels_are_counted(make_model) -> None:
    weights = np.ones((4, 3, 1, 1), np.float32)
    weights[1:3] = 0
    model = make_model(
        [("Conv", "input w", "c")],
        {"w": weights},
        inputs={"input": ["N", 3, 4, 4]},
        outputs={"c": ["N", 4, 4, 4]},
    )
    (said,) = model_warnings(model, {})
    assert "2 in 1 layers" in said
    assert "2 of 4 of Conv 'c'" in said

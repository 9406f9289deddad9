"""What a build calibrates on, what it keeps, and the models and images it must survive."""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_fg
from support.waiting import until

onnx = pytest.importorskip("onnx")


def report_of(workshop, name: str = "b.edgefg") -> dict:
    return json.loads((workshop.folder / name / "report.json").read_text())


def cached(cache_home: Path) -> list[Path]:
    return sorted(one for one in (cache_home / "edge-fg").rglob("*") if one.is_file())


def test_a_second_build_reuses_the_statistics_and_says_so(
    workshop, edge_fg_command, cache_home
) -> None:
    first = edge_fg_command("-v", *workshop.arguments("--precision", "int8"))
    assert first.code == 0, first.err
    assert "no calibration statistics reused" in first.err
    assert cached(cache_home)
    again = ("--precision", "int8", "--overwrite")
    second = edge_fg_command("-v", *workshop.arguments(*again))
    assert "statistics of 20 images reused" in second.err
    assert "calibrate (kept statistics): 20 of 20" in second.err
    workshop.preprocess.write_text(workshop.preprocess.read_text().replace("64, 64", "60, 60"))
    third = edge_fg_command("-v", *workshop.arguments(*again))
    assert "the preprocessing changed" in third.err
    assert "calibrate: 20 of 20" in third.err


def test_reused_statistics_give_the_same_bundle(workshop, edge_fg_command, cache_home) -> None:
    calibrations = []
    for name, extra in (("one", []), ("two", []), ("three", ["--no-cache"])):
        output = workshop.folder / f"{name}.edgefg"
        arguments = workshop.arguments("--precision", "int8", *extra, output=output)
        assert edge_fg_command(*arguments).code == 0
        calibrations.append((output / "calibration.json").read_bytes())
    assert calibrations[0] == calibrations[1] == calibrations[2]


def test_no_cache_keeps_nothing(workshop, edge_fg_command, cache_home) -> None:
    done = edge_fg_command(*workshop.arguments("--precision", "int8", "--no-cache"))
    assert done.code == 0
    assert cached(cache_home) == []


def test_a_hostile_cache_entry_is_not_believed(workshop, edge_fg_command, cache_home) -> None:
    edge_fg_command(*workshop.arguments("--precision", "int8"))
    good = (workshop.folder / "b.edgefg" / "calibration.json").read_bytes()
    for entry in cached(cache_home):
        entry.write_text(entry.read_text().replace('"maximum": ', '"maximum": 9'))
    done = edge_fg_command(*workshop.arguments("--precision", "int8", "--overwrite"))
    assert done.code == 0
    assert "refused" in done.err
    assert (workshop.folder / "b.edgefg" / "calibration.json").read_bytes() == good


def test_near_duplicates_are_left_out_and_reported(workshop, edge_fg_command) -> None:
    for number in range(12):
        image = Image.open(workshop.images / f"{number:02}.png")
        image.resize((75, 60)).save(workshop.images / f"copy{number:02}.jpg", quality=95)
    done = edge_fg_command(*workshop.arguments("--precision", "int8"))
    assert done.code == 0, done.err
    assert "left out 12 images that show the same as another" in done.err
    skipped = dict(report_of(workshop)["calibration"]["skipped"])
    assert len(skipped) == 12
    assert all(reason.startswith("shows the same as") for reason in skipped.values())


def test_a_video_is_a_calibration_set(workshop, edge_fg_command, tmp_path, monkeypatch) -> None:
    cv2 = pytest.importorskip("cv2")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = workshop.folder / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(80):
        small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        writer.write(cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC))
    writer.release()
    done = edge_fg_command(*workshop.arguments("--precision", "int8", calibration=path))
    assert done.code == 0, done.err
    report = report_of(workshop)
    assert report["calibration"]["images"] >= 20
    assert report["proof"]["images"] >= 20
    assert list(temporary.glob("edge-fg*")) == []


@pytest.mark.parametrize("source", ["rtsp://127.0.0.1:9/none", "csi://x", "nowhere.mp4"])
def test_a_source_that_cannot_be_opened(workshop, edge_fg_command, source) -> None:
    pytest.importorskip("cv2")
    done = edge_fg_command(*workshop.arguments(calibration=source))
    assert done.code == 1
    assert source.split("//")[-1].split("/")[0] in done.complaint


@pytest.mark.parametrize("source", ["/dev/v4l/by-id/none-index0", "v4l2:///dev/nestbox"])
def test_a_camera_that_is_unplugged(workshop, edge_fg_command, source) -> None:
    pytest.importorskip("cv2")
    done = edge_fg_command(*workshop.arguments(calibration=source))
    assert done.code == 1
    assert "is it plugged in" in done.complaint


@pytest.mark.parametrize("option", ["--calibration ", "--calibration="])
def test_no_bundle_keeps_the_password_of_a_camera(
    workshop, edge_fg_command, monkeypatch, option
) -> None:
    from edge_fg_tools import building

    commands: list[str] = []

    def build(options: building.BuildOptions, progress: object) -> None:
        commands.append(options.command)
        raise edge_fg.SourceError("no camera here")

    monkeypatch.setattr(building, "build", build)
    words = f"edge-fg build x=y:z {option}rtsp://user:geheim@cam/live?channel=1#timeout=5"
    monkeypatch.setattr(sys, "argv", words.split())
    assert edge_fg_command(*workshop.arguments()).code == 1
    (command,) = commands
    assert command.replace("'", "") == f"edge-fg build x=y:z {option}rtsp://cam/live?channel=1"


def quantised_model(workshop, edge_fg_command) -> Path:
    """A model with Q/DQ of its own, as quantisation-aware training leaves one."""
    output = workshop.folder / "first.edgefg"
    assert edge_fg_command(*workshop.arguments("--precision", "int8", output=output)).code == 0
    path = workshop.folder / "qat.onnx"
    path.write_bytes((output / "model.int8.onnx").read_bytes())
    return path


def test_a_quantised_model_keeps_its_quantisation(workshop, edge_fg_command) -> None:
    model = quantised_model(workshop, edge_fg_command)
    done = edge_fg_command(
        *workshop.arguments("--precision", "fp32,fp16,int8,int8-fp16", model=model)
    )
    assert done.code == 0, done.err
    folder = workshop.folder / "b.edgefg"
    given, kept = onnx.load(model), onnx.load(folder / "model.int8.onnx")

    def scales(graph: onnx.ModelProto) -> list[float]:
        stored = {one.name: onnx.numpy_helper.to_array(one) for one in graph.graph.initializer}
        pairs = [one for one in graph.graph.node if one.op_type == "QuantizeLinear"]
        return sorted(float(stored[one.input[1]]) for one in pairs)

    assert scales(kept) == scales(given) != []
    variants = edge_fg.Bundle(folder).manifest.variants
    assert variants["int8"].fidelity.agreement == 1.0
    assert variants["int8"].fidelity.mean_kl == pytest.approx(0, abs=1e-9)
    for precision in ("fp32", "fp16"):
        plain = onnx.load(folder / f"model.{precision}.onnx")
        assert not any("Linear" in node.op_type for node in plain.graph.node)
    assert variants["fp32"].fidelity.agreement >= 0.8
    assert any(
        "own quantisation is kept" in one for one in report_of(workshop)["model"]["warnings"]
    )
    assert not (folder / "calibration.json").exists()
    first = edge_fg.Bundle(workshop.folder / "first.edgefg").manifest.variants["int8"].int8_macs
    assert first is not None
    assert first > 0.5
    shares = {name: one.int8_macs for name, one in variants.items()}
    assert shares == {"fp32": None, "fp16": None, "int8": first, "int8-fp16": first}
    told = {one["name"]: one["int8_macs"] for one in report_of(workshop)["variants"]}
    assert told == shares
    assert report_of(workshop)["repairs"] is None


def test_the_report_lists_the_corrections_that_the_build_tried(workshop, edge_fg_command) -> None:
    rng = np.random.default_rng(1)
    for number in range(110):
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        path = workshop.images / f"more-{number:02}.png"
        Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC).save(path)
    arguments = workshop.arguments("--precision", "int8", "--calibration-images", "80")
    assert edge_fg_command(*arguments).code == 0
    corrections = report_of(workshop)["repairs"]
    assert "bias correction" in [one["name"] for one in corrections]
    page = (workshop.folder / "b.edgefg" / "report.html").read_text(encoding="utf-8")
    for one in corrections:
        assert html.escape(one["name"], quote=False) in page
        assert one["kept"] in {True, False}
        assert one["mean_kl"] >= 0
        assert 0 <= one["agreement"] <= 1


def test_a_quantisation_that_backends_refuse_is_refused(workshop, edge_fg_command) -> None:
    model = quantised_model(workshop, edge_fg_command)
    graph = onnx.load(model)
    pair = next(one for one in graph.graph.node if one.op_type == "QuantizeLinear")
    for stored in graph.graph.initializer:
        if stored.name == pair.input[2]:
            shifted = onnx.numpy_helper.to_array(stored) + np.int8(3)
            stored.CopyFrom(onnx.numpy_helper.from_array(shifted, stored.name))
    onnx.save(graph, model)
    done = edge_fg_command(*workshop.arguments("--precision", "int8", model=model))
    assert done.code == 1
    assert "zero point is not 0" in done.complaint


def changed(workshop, edit) -> Path:
    graph = onnx.load(workshop.model)
    edit(graph.graph)
    path = workshop.folder / "changed.onnx"
    onnx.save(graph, path)
    return path


def test_a_custom_operator_is_named(workshop, edge_fg_command) -> None:
    def edit(graph) -> None:
        graph.node[1].domain = "my.house"
        graph.node[1].op_type = "Sharpen"

    done = edge_fg_command(*workshop.arguments(model=changed(workshop, edit)))
    assert done.code == 1
    assert "Sharpen" in done.complaint


def test_what_is_not_finite_is_named(workshop, edge_fg_command) -> None:
    def edit(graph) -> None:
        weights = next(one for one in graph.initializer if one.name == "w2")
        array = onnx.numpy_helper.to_array(weights).copy()
        array[:] = np.float32(3e38)
        weights.CopyFrom(onnx.numpy_helper.from_array(array, "w2"))

    arguments = workshop.arguments("--precision", "int8", model=changed(workshop, edit))
    done = edge_fg_command(*arguments)
    assert done.code == 1
    assert "NaN or infinite" in done.complaint
    assert "'logits'" in done.complaint
    assert not (workshop.folder / "b.edgefg").exists()


def test_dead_channels_and_constant_tensors_build_and_are_reported(
    workshop, edge_fg_command
) -> None:
    def edit(graph) -> None:
        for name in ("w1", "b1"):
            stored = next(one for one in graph.initializer if one.name == name)
            array = onnx.numpy_helper.to_array(stored).copy()
            array[:5] = 0
            if name == "b1":
                array[:] = -1000  # behind the ReLU nothing is left
            stored.CopyFrom(onnx.numpy_helper.from_array(array, name))

    arguments = workshop.arguments("--precision", "int8,fp32", model=changed(workshop, edit))
    done = edge_fg_command(*arguments)
    assert done.code == 0, done.err
    said = " ".join(report_of(workshop)["model"]["warnings"])
    assert "is zero on every calibration image" in said
    assert "dead output channels" in said
    ranges = json.loads((workshop.folder / "b.edgefg" / "calibration.json").read_text())["ranges"]
    assert all(one["amax"] > 0 for one in ranges.values())


def test_wrong_labels_or_images_are_warned_of(workshop, edge_fg_command, tiny_model) -> None:
    """Every image is said to be of a class that the model doesn't give it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    wide = onnx.load_from_string(tiny_model)
    random = np.random.default_rng(0)
    for name, shape in (("w3", (32, 24)), ("b3", (24,))):
        stored = next(one for one in wide.graph.initializer if one.name == name)
        array = random.normal(0, 0.5, shape).astype(np.float32)
        stored.CopyFrom(onnx.numpy_helper.from_array(array, name))
    wide.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 24
    path = workshop.folder / "wide.onnx"
    onnx.save(wide, path)
    assert onnxruntime.InferenceSession(path)
    labels = workshop.folder / "wide.txt"
    labels.write_text("".join(f"class {number}\n" for number in range(24)))
    done = edge_fg_command(*workshop.arguments("--precision", "fp32", model=path, labels=labels))
    assert done.code == 0, done.err
    assert "from another domain" in done.err
    warned = report_of(workshop)["model"]["warnings"]
    assert any("from another domain" in one for one in warned)
    assert "another domain" in (workshop.folder / "b.edgefg" / "report.html").read_text()


@pytest.mark.parametrize("moment", ["choose images", "calibrate", "prove"])
def test_interrupted_at_any_moment(workshop, cache_home, tmp_path, moment) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "edge_fg_tools"]
    command += workshop.arguments("--calibration-images", "10", "--precision", "int8")
    environment = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    for line in process.stderr:
        if line.startswith(moment):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert "Traceback" not in rest
    assert process.returncode in (0, 130)  # 0 where it was done before it heard
    if process.returncode:
        assert rest.strip().endswith("interrupted")
        assert not (workshop.folder / "b.edgefg").exists()
    assert [one.name for one in workshop.folder.iterdir() if one.name.startswith(".")] == []
    assert list(temporary.glob("edge-fg*")) == []
    assert {one.suffix for one in cached(cache_home)} <= {".json", ".part"}


def test_killed_while_it_keeps_statistics(workshop, edge_fg_command, cache_home) -> None:
    """Whatever a kill leaves behind, the next build is right."""
    command = [sys.executable, "-m", "edge_fg_tools", *workshop.arguments("--precision", "int8")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("calibrate"):
            break
    until(lambda: cached(cache_home) or process.poll() is not None)
    process.kill()
    process.communicate(timeout=60)
    done = edge_fg_command(*workshop.arguments("--precision", "int8"))
    assert done.code == 0, done.err
    fresh = workshop.folder / "fresh.edgefg"
    edge_fg_command(*workshop.arguments("--precision", "int8", "--no-cache", output=fresh))
    kept = (workshop.folder / "b.edgefg" / "calibration.json").read_bytes()
    assert kept == (fresh / "calibration.json").read_bytes()


def test_a_correction_that_fails_is_in_the_report_and_other_layers_build(
    workshop, edge_fg_command, monkeypatch
) -> None:
    rng = np.random.default_rng(1)
    for number in range(40, 140):
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC).save(
            workshop.images / f"{number:03}.png"
        )
    make, stored = onnx.helper.make_node, onnx.numpy_helper.from_array
    values = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["x", "w1"], ["c1"], name="stem", pads=[1] * 4),
            make("Relu", ["c1"], ["r1"]),
            make("Reshape", ["r1", "rows"], ["flat"]),
            make("Conv", ["flat", "w2"], ["c2"], name="along", pads=[1, 1]),
            make("Relu", ["c2"], ["r2"]),
            make("ReduceMean", ["r2"], ["mean"], axes=[2], keepdims=0),
            make("Gemm", ["mean", "w3"], ["logits"], transB=1),
        ],
        "one axis",
        [values("x", onnx.TensorProto.FLOAT, ["N", 3, 16, 16])],
        [values("logits", onnx.TensorProto.FLOAT, ["N", 4])],
        [
            stored(rng.normal(0, 0.4, (16, 3, 3, 3)).astype(np.float32), "w1"),
            stored(np.array([0, 16, -1]), "rows"),
            stored(rng.normal(0, 0.2, (24, 16, 3)).astype(np.float32), "w2"),
            stored(rng.normal(0, 4, (4, 24)).astype(np.float32), "w3"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, workshop.folder / "axis.onnx")
    arguments = workshop.arguments("--precision", "int8", model=workshop.folder / "axis.onnx")
    done = edge_fg_command(*arguments)
    assert done.code == 0, done.err
    assert "left out: " not in str(report_of(workshop)["model"]["warnings"])

    def fail(*_: object, **__: object) -> None:
        raise ValueError("shapes differ")

    name = "edge_fg_calibration.corrections.trials.calibrated_weights"
    monkeypatch.setattr(name, fail)
    done = edge_fg_command(
        *workshop.arguments(
            "--precision", "int8", model=arguments[1], output=workshop.folder / "c.edgefg"
        )
    )
    assert done.code == 0, done.err
    assert "GPTQ-style rounding can't be applied to this model" in done.err
    warnings = report_of(workshop, "c.edgefg")["model"]["warnings"]
    assert any("GPTQ-style rounding" in one and "shapes differ" in one for one in warnings)


def test_padding_with_minus_infinity_builds_and_is_in_the_report(workshop, edge_fg_command) -> None:
    def edit(graph) -> None:
        first = next(one for one in graph.node if one.op_type == "Relu")
        behind, pooled = f"{first.output[0]}_padded", f"{first.output[0]}_pooled"
        for node in graph.node:
            node.input[:] = [pooled if one == first.output[0] else one for one in node.input]
        place = list(graph.node).index(first) + 1
        pool = onnx.helper.make_node("MaxPool", [behind], [pooled], kernel_shape=[2, 2])
        names = [first.output[0], "pads", "lowest"]
        graph.node.insert(place, onnx.helper.make_node("Pad", names, [behind], name="same"))
        graph.node.insert(place + 1, pool)
        pads = np.array([0, 0, 0, 0, 0, 0, 1, 1])
        lowest = np.float32(-np.inf)
        graph.initializer.append(onnx.numpy_helper.from_array(pads, "pads"))
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(lowest), "lowest"))

    done = edge_fg_command(*workshop.arguments(model=changed(workshop, edit)))
    assert done.code == 0, done.err
    report = report_of(workshop)
    assert any("Pad 'same' gives infinite values" in one for one in report["model"]["warnings"])
    bundle = workshop.folder / "b.edgefg"
    image = np.asarray(Image.open(next(workshop.images.iterdir())).convert("RGB"))
    for precision in ("fp16", "int8"):
        with edge_fg.load(bundle, precision=precision) as classifier:
            assert 0 < classifier(image).confidence <= 1

"""`edge-fg build` from the outside: bundles, budgets, and what can go wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_fg

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(".") or ".edgefg" in p.name)


def test_a_build_makes_a_whole_bundle(workshop, edge_fg_command):
    done = edge_fg_command(*workshop.arguments("--precision", "fp32,fp16,int8,int8-fp16"))
    assert done.code == 0, done.err
    assert "agreement" in done.out
    folder = workshop.folder / "b.edgefg"
    bundle = edge_fg.Bundle(folder)
    bundle.verify()
    assert list(bundle.manifest.variants) == ["fp32", "fp16", "int8", "int8-fp16"]
    for precision, variant in bundle.manifest.variants.items():
        assert variant.sha256 == hashlib.sha256((folder / variant.file).read_bytes()).hexdigest()
        assert variant.fidelity.images == 20
        assert variant.fidelity.agreement >= 0.75, precision
    assert bundle.manifest.variants["int8"].int8_macs > 0.5
    calibration = json.loads((folder / "calibration.json").read_text())
    assert calibration["images"] == 20
    assert all(values["amax"] > 0 for values in calibration["ranges"].values())
    assert bundle.labels()[0].genus == "Athene"
    report = json.loads((folder / "report.json").read_text())
    assert {variant["name"] for variant in report["variants"]} == set(bundle.manifest.variants)
    for variant in report["variants"]:
        assert [cost["library"] for cost in variant["costs"]] == ["tensorrt", "tensorrt-rtx"]
        for cost in variant["costs"]:
            assert cost["kernels"] >= len(cost["costliest"]) > 0
            assert sum(cost["macs"].values()) > 0
            for latency in cost["latencies"]:
                assert 0 < latency["least_s"] < latency["most_s"]
                assert (latency["beside_fp16"] is None) == (variant["name"] == "fp16")
    assert "<html" in (folder / "report.html").read_text()
    assert left_behind(workshop.folder) == ["b.edgefg"]


def test_every_variant_runs_in_plain_onnxruntime(workshop, edge_fg_command, tiny_model):
    edge_fg_command(*workshop.arguments("--precision", "fp32,fp16,int8,int8-fp16"))
    x = np.random.default_rng(1).normal(size=(3, 3, 16, 16)).astype(np.float32)
    expected = ort.InferenceSession(tiny_model).run(["logits"], {"image": x})[0]
    for name, tolerance in {"fp32": 1e-5, "fp16": 0.02, "int8": 0.4, "int8-fp16": 0.4}.items():
        session = ort.InferenceSession(workshop.folder / "b.edgefg" / f"model.{name}.onnx")
        assert [i.name for i in session.get_inputs()] == ["image"]
        got = session.run(["logits"], {"image": x})[0]
        assert got.dtype == np.float32
        assert np.abs(got - expected).max() < tolerance, name


def test_the_same_build_twice_is_the_same(workshop, edge_fg_command):
    digests = []
    for name in ("one.edgefg", "two.edgefg"):
        edge_fg_command(*workshop.arguments(output=workshop.folder / name))
        manifest = edge_fg.Bundle(workshop.folder / name).manifest
        digests.append(
            {file: e.sha256 for file, e in manifest.files.items() if "report" not in file}
        )
    assert digests[0] == digests[1]


def test_json_is_one_document_on_stdout(workshop, edge_fg_command):
    done = edge_fg_command(*workshop.arguments("--format", "json", "--precision", "int8"))
    document = json.loads(done.out)
    assert document["bundle"].endswith("b.edgefg")
    assert document["variants"][0]["name"] == "int8"


def test_a_zip_bundle(workshop, edge_fg_command):
    path = workshop.folder / "b.zip"
    assert edge_fg_command(*workshop.arguments("--precision", "fp32", output=path)).code == 0
    assert zipfile.is_zipfile(path)
    edge_fg.Bundle(path).verify()


def test_a_missed_budget_writes_nothing(workshop, edge_fg_command):
    done = edge_fg_command(*workshop.arguments("--budget", "mean_kl=0"))
    assert done.code == 3
    assert "budget" in done.complaint
    assert "int8" in done.complaint
    assert left_behind(workshop.folder) == []


def test_a_kept_budget_is_in_the_report(workshop, edge_fg_command):
    budget = ("--budget", "agreement=0.1", "--budget", "mean_kl=5")
    assert edge_fg_command(*workshop.arguments(*budget)).code == 0
    report = json.loads((workshop.folder / "b.edgefg" / "report.json").read_text())
    int8 = next(variant for variant in report["variants"] if variant["name"] == "int8")
    assert {check["key"]: check["met"] for check in int8["budget"]} == {
        "agreement": True,
        "mean_kl": True,
    }


def test_a_failed_build_keeps_the_old_bundle(workshop, edge_fg_command):
    assert edge_fg_command(*workshop.arguments("--precision", "fp32")).code == 0
    before = (workshop.folder / "b.edgefg" / "bundle.json").read_bytes()
    again = ("--budget", "mean_kl=0", "--overwrite")
    assert edge_fg_command(*workshop.arguments(*again)).code == 3
    assert (workshop.folder / "b.edgefg" / "bundle.json").read_bytes() == before


@pytest.mark.parametrize("name", ["b.edgefg", "b.zip"])
def test_an_existing_bundle_is_replaced_only_if_asked(workshop, edge_fg_command, name: str):
    output = workshop.folder / name
    build = workshop.arguments("--precision", "fp32", output=output)
    assert edge_fg_command(*build).code == 0
    seal = (output if output.is_file() else output / "bundle.json").stat().st_ino
    done = edge_fg_command(*build)
    assert done.code == 1
    assert f"{name} is a bundle already: give --overwrite" in done.complaint
    assert done.out == ""
    assert (output if output.is_file() else output / "bundle.json").stat().st_ino == seal
    assert edge_fg_command(*build, "--overwrite", "--name", "newer").code == 0
    assert edge_fg.Bundle(output).manifest.name == "newer"
    assert not [one for one in left_behind(workshop.folder) if one.startswith(".")]


def test_an_empty_folder_needs_no_leave(workshop, edge_fg_command):
    (workshop.folder / "b.edgefg").mkdir()
    assert edge_fg_command(*workshop.arguments("--precision", "fp32")).code == 0
    (workshop.folder / "b.edgefg" / "notes.txt").write_text("precious")
    done = edge_fg_command(*workshop.arguments("--precision", "fp32", "--overwrite"))
    assert done.code == 1
    assert "notes.txt" in done.complaint


def test_progress_without_a_terminal_is_a_few_lines(workshop, edge_fg_command):
    done = edge_fg_command(*workshop.arguments("--precision", "fp32,fp16,int8"))
    assert done.code == 0
    stages = [line.partition(":")[0] for line in done.err.splitlines()]
    assert len(stages) == len(set(stages)) <= 12, done.err
    assert "prove" in stages


def change_model(workshop, content: bytes) -> dict[str, Path]:
    path = workshop.folder / "other.onnx"
    path.write_bytes(content)
    return {"model": path}


def change_labels(workshop, text: str) -> dict[str, Path]:
    path = workshop.folder / "other.txt"
    path.write_text(text)
    return {"labels": path}


def change_images(workshop, count: int, pixel: tuple[int, int, int] | None) -> dict[str, Path]:
    folder = workshop.folder / "other"
    folder.mkdir()
    for i in range(count):
        if pixel is None:
            Image.effect_noise((32, 32), 50 + i).convert("RGB").save(folder / f"{i}.png")
        else:
            Image.new("RGB", (32 + i, 32), pixel).save(folder / f"{i}.png")
    return {"calibration": folder}


def detector() -> bytes:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        d (float[1,3,16,16] image) => (float[1,6,256] boxes)
        <int64[3] shape = {1, 6, 256}, float[6,3,1,1] w =
          {1,1,1, 1,1,1, 1,1,1, 1,1,1, 1,1,1, 1,1,1}>
        { c = Conv(image, w)
          boxes = Reshape(c, shape) }
        """
    )
    return model.SerializeToString()


WRONG = {
    "not ONNX": (lambda w: change_model(w, b"\xff\xd8\xff\xe0 a JPEG"), 1, "other.onnx"),
    "empty": (lambda w: change_model(w, b""), 1, "other.onnx"),
    "truncated": (lambda w: change_model(w, w.model.read_bytes()[:-200]), 1, "other.onnx"),
    "a detector": (lambda w: change_model(w, detector()), 1, "boxes"),
    "no model": (lambda w: {"model": w.folder / "none.onnx"}, 1, "none.onnx"),
    "too few labels": (lambda w: change_labels(w, "a\nb\n"), 1, "2 labels but the model has 4"),
    "no labels": (lambda w: {"labels": w.folder / "none.txt"}, 1, "none.txt"),
    "no images": (lambda w: change_images(w, 0, None), 1, "other"),
    "three images": (lambda w: change_images(w, 3, None), 1, "at least 8"),
    "all black": (lambda w: change_images(w, 20, (0, 0, 0)), 1, "one flat colour"),
    "missing folder": (lambda w: {"calibration": w.folder / "none"}, 1, "none"),
    "unknown preset": (lambda w: {"preprocess": "imagenet"}, 2, "torchvision"),
    "wrong size": (lambda w: {"preprocess": _other_size(w)}, 2, "the model takes"),
    "unknown precision": (lambda w: {"precision": "int4"}, 2, "fp32, fp16, int8"),
    "wrong budget": (lambda w: {"budget": "agrement=0.9"}, 2, "agreement"),
    "no folder for the output": (lambda w: {"output": w.folder / "none" / "b"}, 1, "no folder"),
    "output is something else": (lambda w: {"output": w.images}, 1, "not a bundle"),
}


def _other_size(workshop) -> Path:
    path = workshop.folder / "other.toml"
    path.write_text(workshop.preprocess.read_text().replace("[16, 16]", "[24, 16]"))
    return path


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line(what, workshop, edge_fg_command):
    change, code, said = WRONG[what]
    done = edge_fg_command(*workshop.arguments(**change(workshop)))
    assert done.code == code, done.err
    assert said in done.complaint
    assert done.out == ""
    assert left_behind(workshop.folder) == []


def test_no_preprocessing_is_not_guessed(workshop, edge_fg_command):
    words = workshop.arguments()
    at = words.index("--preprocess")
    done = edge_fg_command(*words[:at], *words[at + 2 :])
    assert done.code == 2
    assert "torchvision" in done.complaint


def test_broken_images_are_left_out_and_reported(workshop, edge_fg_command):
    broken = workshop.images / "00.png"
    broken.write_bytes(broken.read_bytes()[:60])
    (workshop.images / "empty.jpg").write_bytes(b"")
    done = edge_fg_command(*workshop.arguments("--precision", "int8"))
    assert done.code == 0
    assert "00.png" in done.err
    assert "empty.jpg" in done.err
    report = json.loads((workshop.folder / "b.edgefg" / "report.json").read_text())
    assert {name for name, _ in report["calibration"]["skipped"]} == {"00.png", "empty.jpg"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_folder(workshop, edge_fg_command):
    locked = workshop.folder / "locked"
    locked.mkdir(mode=0o500)
    done = edge_fg_command(*workshop.arguments(output=locked / "b.edgefg"))
    assert (done.code, "can't write" in done.complaint) == (1, True)


def test_a_full_disk_loses_nothing(workshop, edge_fg_command, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = edge_fg_command(*workshop.arguments("--precision", "fp32"))
    assert done.code == 1
    assert "No space left on device" in done.complaint
    assert left_behind(workshop.folder) == []


def test_an_interrupted_build_leaves_nothing(workshop):
    command = [sys.executable, "-m", "edge_fg_tools", *workshop.arguments()]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = process.stderr.readline()  # the first progress: the build is under way
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, first + rest
    assert "Traceback" not in rest
    assert rest.strip().endswith("interrupted")
    assert left_behind(workshop.folder) == []


FRAGILE_BUDGET = "mean_kl=0.002"


def weight_types(graph: Path) -> dict[str, int]:
    """The element type that each Conv and Gemm computes in."""
    model = onnx.shape_inference.infer_shapes(onnx.load(graph))
    stored = {one.name: one.data_type for one in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            name = node.input[1]
            while name not in stored:
                name = made[name].input[0]
            found[node.op_type + node.output[0].removesuffix("_fp16")] = stored[name]
    return found


def test_a_budget_that_int8_misses_leaves_the_fragile_layer_in_float(
    fragile_workshop, edge_fg_command
):
    shop = fragile_workshop
    plain = shop.arguments("--precision", "int8", output=shop.folder / "plain.edgefg")
    assert edge_fg_command(*plain).code == 0
    report = json.loads((shop.folder / "plain.edgefg" / "report.json").read_text())
    assert report["search"] is None
    assert report["variants"][0]["fidelity"]["mean_kl"] > 0.003

    done = edge_fg_command(
        *shop.arguments("--precision", "int8,int8-fp16", "--budget", FRAGILE_BUDGET)
    )
    assert done.code == 0, done.err
    assert "1 layer left in float" in done.out
    folder = shop.folder / "b.edgefg"
    report = json.loads((folder / "report.json").read_text())
    for variant in report["variants"]:
        assert variant["fidelity"]["mean_kl"] <= 0.002
        assert 0 < variant["int8_macs"] < 1
    assert ["c2", "Conv", "left in float: the budget"] in report["placement_skipped"]
    search = report["search"]
    assert (search["met"], search["stopped"], search["trial_images"]) == (True, False, 20)
    assert [one["nodes"] for one in search["layers"] if one["kept_float"]] == [["c2"]]
    assert sum(one["taken"] for one in search["tried"]) == 1
    assert search["tried"][0]["kept"] == 0
    assert "r1" not in {one["tensor"] for one in report["ranges"]}

    kinds = onnx.TensorProto
    int8 = weight_types(folder / "model.int8.onnx")
    assert int8 == {"Convc1": kinds.INT8, "Convc2": kinds.FLOAT, "Gemmlogits": kinds.FLOAT}
    mixed = weight_types(folder / "model.int8-fp16.onnx")
    assert mixed["Convc2"] == kinds.FLOAT16

    page = (folder / "report.html").read_text()
    assert "What the budget left in float" in page
    assert "left in float: the budget" in page


def test_the_search_never_uses_the_hold_out_set(fragile_workshop, edge_fg_command, monkeypatch):
    from edge_fg_tools.building import budgeting

    shown = []
    trial_of = budgeting.make_validation_split

    def spy(model, batches, **options):
        shown.extend(batches)
        return trial_of(model, batches, **options)

    monkeypatch.setattr(budgeting, "make_validation_split", spy)
    shop = fragile_workshop
    done = edge_fg_command(*shop.arguments("--precision", "int8", "--budget", FRAGILE_BUDGET))
    assert done.code == 0, done.err
    bundle = edge_fg.Bundle(shop.folder / "b.edgefg")
    assert sum(map(len, shown)) == bundle.manifest.calibration.images == 20


def test_an_interrupted_search_goes_on_with_what_it_has(
    fragile_workshop, edge_fg_command, monkeypatch
):
    from edge_fg_tools.building import budgeting

    search = budgeting.search_budget
    steps = []

    def interrupted(*arguments, progress, **options):
        def told(stage: str, done: int, total: int) -> None:
            if stage == "budget search":
                steps.append(done)
                if len(steps) == after:
                    raise KeyboardInterrupt

        return search(*arguments, progress=told, **options)

    monkeypatch.setattr(budgeting, "search_budget", interrupted)
    shop = fragile_workshop
    words = shop.arguments("--precision", "int8", "--budget", FRAGILE_BUDGET)
    after = 1  # plain INT8 is known, and misses: the build ends
    done = edge_fg_command(*words)
    assert done.code == 130
    assert left_behind(shop.folder) == []
    after, steps[:] = 2, []  # now something is known that keeps it
    done = edge_fg_command(*words)
    assert done.code == 0, done.err
    assert "the search was stopped" in done.err
    assert json.loads((shop.folder / "b.edgefg" / "report.json").read_text())["search"]["stopped"]

"""Names with control characters never reach a terminal raw, whatever prints them."""

from __future__ import annotations

import json
import os
import shutil

import pytest

onnx = pytest.importorskip("onnx")

EVIL = "\x1b[31mred\u202e"


def assert_clean(text: str) -> None:
    assert [letter for letter in text if not letter.isprintable() and letter != "\n"] == []


def rename(model, what: str, name: str) -> None:
    graph = model.graph
    if what == "node":
        graph.node[0].name = name
    elif what == "input":
        old = graph.input[0].name
        graph.input[0].name = name
        for node in graph.node:
            node.input[:] = [name if one == old else one for one in node.input]
    elif what == "weight":
        old = graph.initializer[0].name
        graph.initializer[0].name = name
        for node in graph.node:
            node.input[:] = [name if one == old else one for one in node.input]
    elif what == "dimension":
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    elif what == "graph":
        graph.name = name
    elif what == "metadata key":
        model.metadata_props.add(key=name, value="1")


@pytest.mark.parametrize("what", ["node", "input", "weight", "dimension", "graph", "metadata key"])
@pytest.mark.parametrize("evil", [EVIL, "two\nlines", "\x9b2J"])
def test_a_model_with_such_a_name_is_refused_at_once(workshop, edge_fg_command, what, evil) -> None:
    model = onnx.load(workshop.model)
    rename(model, what, f"c{evil}")
    onnx.save(model, workshop.model)
    # Neither labels nor images are looked at before.
    arguments = workshop.arguments(labels=workshop.folder / "none", calibration="none")
    for command in (arguments, ["inspect", workshop.model]):
        done = edge_fg_command(*command)
        assert done.code == 1
        assert "holds a control character" in done.complaint
        assert_clean(done.err)


def test_what_a_model_says_of_itself_is_shown_escaped(workshop, edge_fg_command) -> None:
    model = onnx.load(workshop.model)
    model.producer_name = EVIL
    model.metadata_props.add(key="mean", value=f"{EVIL}\nfaked line")
    model.graph.node[0].doc_string = "a stack\ntrace"  # as torch writes it
    onnx.save(model, workshop.model)
    done = edge_fg_command("inspect", workshop.model)
    assert done.code == 0, done.err
    assert_clean(done.out)
    assert "\\nfaked line" in done.out


def test_names_of_folders_images_and_bundles(workshop, edge_fg_command) -> None:
    folder = workshop.images / f"class {EVIL}\nfaked"
    folder.mkdir()
    for path in sorted(workshop.images.glob("*.png"))[:12]:
        shutil.move(path, folder / f"{EVIL}{path.name}")
    (folder / f"broken\n{EVIL}.png").write_bytes(b"no image")
    (workshop.images / os.fsdecode(b"\xff\xfe.png")).write_bytes(b"no image")
    workshop.labels.write_text("".join(f"\u202e{name}\u2066\n" for name in "abcd"))
    model = workshop.model.rename(workshop.folder / f"m{EVIL}\n.onnx")
    output = workshop.folder / "b.edgefg"
    done = edge_fg_command(*workshop.arguments("--precision", "fp32", model=model))
    assert done.code == 0, done.err
    assert_clean(done.out + done.err)
    assert "broken\\n" in done.err
    page = (output / "report.html").read_text()
    assert "\x1b" not in page
    assert "\u202e" not in page
    report = json.loads((output / "report.json").read_text())
    assert "\x1b" not in json.dumps(report, ensure_ascii=False)
    for command in (
        ["evaluate", output, workshop.images],
        ["evaluate", output, workshop.folder / EVIL],
        ["run", output, folder],
        ["run", output, folder, "--events", "visits"],
        ["inspect", output],
        ["run", output, f"none{EVIL}\n.mp4"],
        ["run", output, folder, f"--{EVIL}\n"],
        ["build", EVIL, "--precision", EVIL],
        ["compile", workshop.folder / f"none\n{EVIL}"],
    ):
        done = edge_fg_command(*command)
        assert_clean(done.out + done.err)
        assert max(map(len, done.err.splitlines()), default=0) < 2000


def test_a_long_name_makes_no_long_message(workshop, edge_fg_command) -> None:
    for long in ("x" * 90_000, f"{EVIL}" * 9000):
        done = edge_fg_command("run", workshop.folder / "none", long)
        assert len(done.complaint) < 2000
        done = edge_fg_command("build", workshop.model, f"--{long}")
        assert len(done.complaint) < 2000
        assert_clean(done.err)

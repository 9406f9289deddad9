"""`edge-fg run`, `evaluate`, `inspect` and `doctor` from the outside."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_fg
from edge_fg_tools.cli.command import GROUP
from edge_fg_tools.cli.progress import PlainLines, shown_progress

pytest.importorskip("onnxruntime")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.jpg", "c.webp"):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_jsonl_keeps_its_contract(tiny_bundle, images, edge_fg_command):
    done = edge_fg_command("run", tiny_bundle, images, "--format", "jsonl", "--top-k", "2")
    assert done.code == 0
    assert done.err == ""
    found = lines(done.out)
    assert [Path(line["source"]).name for line in found] == ["a.jpg", "b.png", "c.webp"]
    for number, line in enumerate(found):
        assert list(line) == ["frame", "time", "source", "top", "latency_ms"]
        assert line["frame"] == number
        assert line["time"] is None
        assert len(line["top"]) == 2
        assert set(line["top"][0]) == {"index", "label", "confidence"}
        assert line["top"][0]["confidence"] >= line["top"][1]["confidence"]
        assert set(line["latency_ms"]) == {"preprocess", "inference", "total"}


def test_the_command_line_answers_as_the_library(tiny_bundle, images, edge_fg_command):
    from edge_fg.images import read_image

    found = lines(edge_fg_command("run", tiny_bundle, images / "b.png", "--format", "jsonl").out)
    prediction = edge_fg.load(tiny_bundle)(read_image(images / "b.png"))
    assert found[0]["top"][0]["label"] == prediction.label
    assert found[0]["top"][0]["confidence"] == pytest.approx(prediction.confidence)


def test_a_broken_image_does_not_stop_a_folder(tiny_bundle, images, edge_fg_command):
    (images / "aa.jpg").write_bytes((images / "a.jpg").read_bytes()[:300])
    done = edge_fg_command("run", tiny_bundle, images, "--format", "jsonl")
    assert done.code == 0
    assert len(lines(done.out)) == 3
    assert "aa.jpg" in done.err
    alone = edge_fg_command("run", tiny_bundle, images / "aa.jpg")
    assert alone.code == 1
    assert "aa.jpg" in alone.complaint


def test_an_image_that_lost_data_is_left_out_everywhere(tiny_bundle, images, edge_fg_command):
    data = (images / "a.jpg").read_bytes()
    middle = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    (images / "aa.jpg").write_bytes(data[:middle] + b"\xff" * 60 + data[middle + 60 :])
    whole = len(list(images.glob("*"))) - 1
    done = edge_fg_command("run", tiny_bundle, images, "--format", "jsonl")
    assert (len(lines(done.out)), done.err.count("aa.jpg can't be used")) == (whole, 1)
    done = edge_fg_command("evaluate", tiny_bundle, images, "--format", "json")
    assert json.loads(done.out)["images"] == whole
    assert "aa.jpg can't be used" in done.err


def test_text_and_max_frames(tiny_bundle, images, edge_fg_command):
    done = edge_fg_command("run", tiny_bundle, images, "--max-frames", "2")
    assert len(done.out.splitlines()) == 2
    assert "%" in done.out


def write_clip(path: Path, frames: int) -> Path:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()
    return path


def test_an_annotated_video_is_saved(tiny_bundle, tmp_path, edge_fg_command):
    clip = write_clip(tmp_path / "clip.avi", 12)
    saved = tmp_path / "out.mp4"
    done = edge_fg_command("run", tiny_bundle, clip, "--format", "jsonl", "--save", saved)
    assert done.code == 0
    with edge_fg.open_source(saved) as video:
        assert sum(1 for _ in video) == len(lines(done.out)) == 12


def test_a_video_that_ends_in_the_middle_keeps_what_was_seen(
    tiny_bundle, tmp_path, edge_fg_command
):
    clip = write_clip(tmp_path / "clip.avi", 40)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    saved = tmp_path / "out.mp4"
    done = edge_fg_command("run", tiny_bundle, clip, "--format", "jsonl", "--save", saved)
    seen = len(lines(done.out))
    assert done.code == 1
    assert 10 <= seen < 40
    assert "40" in done.complaint
    with edge_fg.open_source(saved) as video:
        assert sum(1 for _ in video) == seen


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "{none}", "{images}"], 1),
        (["run", "{bundle}", "{none}"], 1),
        (["run", "{bundle}", "{images}", "--precision", "int8"], 1),
        (["run", "{bundle}", "{images}", "--backend", "tensorrt"], 1),
        (["run", "{bundle}", "{images}", "--precision", "int4"], 2),
        (["run", "{bundle}", "{images}", "--top-k", "0"], 2),
        (["run", "{bundle}", "{images}", "--save", "{none}/x.mp4"], 1),
        (["run", "{bundle}"], 2),
        (["fly"], 2),
        ([], 2),
        (["inspect", "{none}"], 2),
        (["compile", "{none}", "--target", "tensorrt-rtx"], 1),
        (["compile", "{bundle}", "--target", "tensorrt"], 1),
        (["evaluate", "{bundle}", "{none}"], 1),
    ],
)
def test_exit_codes(arguments, code, tiny_bundle, images, tmp_path, edge_fg_command):
    names = {"none": tmp_path / "none", "bundle": tiny_bundle, "images": images}
    done = edge_fg_command(*[word.format(**names) for word in arguments])
    assert done.code == code, done.err
    assert done.out == ""
    assert done.complaint


def test_damaged_bundles_are_refused(tiny_bundle, images, edge_fg_command):
    model = tiny_bundle / "model.fp32.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    done = edge_fg_command("run", tiny_bundle, images)
    assert (done.code, done.out) == (1, "")
    assert "model.fp32.onnx" in done.complaint


def test_evaluate_keeps_its_contract(tiny_bundle, images, tmp_path, edge_fg_command):
    table = tmp_path / "set.csv"
    table.write_text("file,label\nimages/a.jpg,Great Tit\nimages/b.png,\nimages/c.webp,Wren\n")
    done = edge_fg_command("evaluate", tiny_bundle, table, "--against", "fp32", "--format", "json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["images"], document["labelled"]) == (3, 1)
    assert document["top5"] == 1.0
    assert document["against"]["name"] == "fp32"
    assert document["against"]["agreement"] == 1.0
    assert document["against"]["mean_kl"] == pytest.approx(0, abs=1e-9)
    assert set(document["against"]) == {
        "name",
        "agreement",
        "agreement_labelled",
        "mean_kl",
        "worst_classes",
    }
    assert "Wren" in done.err


def test_inspect_bundle_and_model(tiny_bundle, edge_fg_command):
    assert "Burrowing Owl" in edge_fg_command("inspect", tiny_bundle).out
    facts = json.loads(
        edge_fg_command("inspect", tiny_bundle / "model.fp32.onnx", "--format", "json").out
    )
    assert "4 classes, logits" in facts["output"]


def test_doctor_says_what_is_used_and_why(edge_fg_command):
    facts = json.loads(edge_fg_command("doctor", "--format", "json").out)
    used = [backend["name"] for backend in facts["backends"] if backend["used"]]
    assert used == ["onnxruntime"]
    assert all(backend["reason"] for backend in facts["backends"])
    if not facts["gpus"]:
        assert "driver" in facts["no_gpu_because"]
    assert "backends" in edge_fg_command("doctor").out


def test_a_real_process_writes_only_json_on_stdout(tiny_bundle, images, edge_fg_process):
    done = edge_fg_process("run", tiny_bundle, images, "--format", "jsonl")
    assert done.code == 0
    assert len(lines(done.out)) == 3


def test_a_closed_pipe_ends_quietly(tiny_bundle, images):
    reader = "import sys; sys.stdin.readline()"
    command = (
        f"set -o pipefail; {sys.executable} -m edge_fg_tools run {tiny_bundle} '{images}/*' "
        f"--format jsonl | {sys.executable} -c '{reader}'"
    )
    for i in range(30):  # more than a pipe's buffer holds would be slow; more lines than one
        (images / f"x{i}.png").symlink_to(images / "b.png")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.returncode in (0, 1)


def test_a_full_device_is_reported_in_one_line(tiny_bundle, images):
    command = [sys.executable, "-m", "edge_fg_tools", "run", str(tiny_bundle), str(images)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[0]
    assert "internal error" not in done.stderr


def test_a_video_is_not_saved_over_its_source(tiny_bundle, tmp_path, edge_fg_command):
    clip = write_clip(tmp_path / "clip.avi", 3)
    before = clip.read_bytes()
    done = edge_fg_command("run", tiny_bundle, clip, "--save", tmp_path / "." / "clip.avi")
    assert done.code == 1
    assert "source" in done.complaint
    assert clip.read_bytes() == before


def test_a_folder_of_broken_images_only_fails(tiny_bundle, tmp_path, edge_fg_command):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"not an image")
    done = edge_fg_command("run", tiny_bundle, tmp_path / "broken")
    assert (done.code, done.out) == (1, "")
    assert "none of its 1 images" in done.complaint


def test_names_that_no_terminal_should_get(tiny_bundle, images, edge_fg_process):
    hostile = images / "z\x1b[2J\n.png"
    hostile.write_bytes((images / "b.png").read_bytes())
    strange = os.fsencode(str(images)) + b"/\xff.png"
    Path(os.fsdecode(strange)).write_bytes((images / "b.png").read_bytes())
    text = edge_fg_process("run", tiny_bundle, images)
    assert text.code == 0, text.err
    assert "\x1b" not in text.out
    assert len(text.out.splitlines()) == 5
    found = lines(edge_fg_process("run", tiny_bundle, images, "--format", "jsonl").out)
    assert str(hostile) in {line["source"] for line in found}


def test_sigterm_keeps_what_was_saved(tiny_bundle, tmp_path):
    clip = write_clip(tmp_path / "clip.avi", 2000)
    saved = tmp_path / "out.avi"
    command = [sys.executable, "-m", "edge_fg_tools", "run", str(tiny_bundle), str(clip)]
    process = subprocess.Popen(
        [*command, "--save", str(saved)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(20):
        process.stdout.readline()
    process.terminate()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.strip().endswith("interrupted")
    with edge_fg.open_source(saved) as video:
        assert sum(1 for _ in video) >= 19  # the last line may precede its frame
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out.avi"]


def test_doctor_names_a_broken_package(edge_fg_command, tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10 is not there')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    done = edge_fg_command("doctor")
    assert done.code == 0
    assert "broken: libnvinfer.so.10 is not there" in done.out


def test_version(edge_fg_command):
    assert edge_fg.__version__ in edge_fg_command("--version").out


SONG = """
from edge_fg_tools.cli.command import Command

def sing(arguments):
    import ornithology

SONG = Command("sing", lambda parser: None, sing, extra="song")
"""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("songs", "ornithology is needed to run edge-fg song and is not installed"),
        ("no_songs", "edge-fg song can't be loaded: No module named 'no_songs'"),
    ],
)
def test_a_command_of_another_package_says_what_it_lacks(
    module, said, tmp_path, monkeypatch, edge_fg_command
):
    (tmp_path / "songs.py").write_text(SONG)
    monkeypatch.syspath_prepend(tmp_path)
    commands = [*entry_points(group=GROUP), EntryPoint("song", f"{module}:SONG", GROUP)]
    monkeypatch.setattr(
        sys.modules["edge_fg_tools.cli.main"], "entry_points", lambda group: commands
    )
    done = edge_fg_command("song")
    assert done.code == 1
    assert said in done.complaint
    assert edge_fg_command("doctor").code == 0


def test_an_installation_without_commands_says_so(monkeypatch, capsys):
    main = sys.modules["edge_fg_tools.cli.main"]
    monkeypatch.setattr(main, "entry_points", lambda group: [])
    assert main.main(["doctor"]) == 1
    assert "lists no commands: install it again" in capsys.readouterr().err


def test_progress_of_long_work_is_a_line_every_ten_seconds():
    stream, seconds = io.StringIO(), iter(range(1000))
    show = PlainLines(stream, clock=lambda: next(seconds))
    for tactic in range(40):
        show(f"int8 plan: timing {tactic}", 0, 2)
    for step in range(1, 31):
        show("prove", step, 30)
    assert stream.getvalue().splitlines() == [
        "int8 plan: timing 9: 0 of 2, 9.0 s",
        "int8 plan: timing 19: 0 of 2, 19.0 s",
        "int8 plan: timing 29: 0 of 2, 29.0 s",
        "int8 plan: timing 39: 0 of 2, 39.0 s",
        "prove: 10 of 30, 9.0 s",
        "prove: 20 of 30, 19.0 s",
        "prove: 30 of 30, 29.0 s",
    ]


def test_progress_needs_no_working_rich(tmp_path, monkeypatch):
    """A broken package gives way to plain lines, as a missing one does."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("")
    for name in [name for name in sys.modules if name.split(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with shown_progress() as show:
        assert isinstance(show, PlainLines)

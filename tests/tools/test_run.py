"""All of `edge-fg run` beside its old contract (which test_cli keeps)."""

from __future__ import annotations

import csv
import http.client
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_fg
from edge_fg.telemetry.device import Reading
from edge_fg_tools.cli import run_session
from edge_fg_tools.cli.arguments import Address, address
from support.feed import RUN, Feed
from support.waiting import until

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    return folder


def sure_of(bundle: Path, path: Path) -> float:
    with edge_fg.load(bundle) as classifier:
        return classifier(path).confidence


def test_unsure_answers_are_left_out_everywhere(tiny_bundle, images, tmp_path, edge_fg_command):
    confidence = {path.name: sure_of(tiny_bundle, path) for path in sorted(images.iterdir())}
    limit = sorted(confidence.values())[6]
    sure = [name for name, value in confidence.items() if value >= limit]
    files = ("--jsonl", tmp_path / "a.jsonl", "--csv", tmp_path / "a.csv")
    run = ("run", tiny_bundle, images, "--min-confidence", limit, *files)
    shown = edge_fg_command(*run, "--format", "jsonl")
    for found in (lines(shown.out), lines((tmp_path / "a.jsonl").read_text())):
        assert [Path(line["source"]).name for line in found] == sure
        assert all(one["confidence"] >= limit for line in found for one in line["top"])
        assert all(line["top"] for line in found)
    table = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert [Path(row["source"]).name for row in table] == sure
    assert all(row["runner_up"] == "" for row in table), "a second cannot be over a half"
    text = edge_fg_command(*run).out.splitlines()
    assert [line.split()[0] for line in text] == sure
    assert edge_fg_command("run", tiny_bundle, images, "--min-confidence", 1.5).code == 2


def test_unsure_visits_are_left_out(guide, edge_fg_command):
    run = ("run", guide.bundle, guide.clip, "--events", "visits", "--format", "jsonl")
    every = lines(edge_fg_command(*run).out)
    limit = sorted(event["confidence"] or 0.0 for event in every)[-1]
    sure = lines(edge_fg_command(*run, "--min-confidence", limit).out)
    assert sure == [event for event in every if (event["confidence"] or 0.0) >= limit]
    assert 0 < len(sure) < len(every)


def test_a_table_of_images_is_a_source(tiny_bundle, images, edge_fg_command):
    table = images.parent / "Set.CSV"
    table.write_text("file,label\nimages/07.png,Great Tit\nimages/02.png,\n")
    found = lines(edge_fg_command("run", tiny_bundle, table, "--format", "jsonl").out)
    assert [Path(line["source"]).name for line in found] == ["07.png", "02.png"]
    text = edge_fg_command("run", tiny_bundle, table).out.splitlines()
    assert [line.split()[0] for line in text] == ["images/07.png", "images/02.png"]
    both = edge_fg_command("run", tiny_bundle, table, images / "01.png", "--format", "jsonl").out
    assert len(lines(both)) == 3
    table.write_text("file\nimages/07.png\nimages/none.png\n")
    done = edge_fg_command("run", tiny_bundle, table)
    assert done.code == 1
    assert "none.png" in done.complaint
    table.write_text("name\nimages/07.png\n")
    assert "no column `file`" in edge_fg_command("run", tiny_bundle, table).complaint
    assert edge_fg_command("run", tiny_bundle, images.parent / "absent.csv").code == 1


# ---------------------------------------------------------------- sources and policies


def test_several_sources_are_answered(tiny_bundle, images, tmp_path, edge_fg_command) -> None:
    done = edge_fg_command(
        "run", tiny_bundle, images / "00.png", images, images / "01.png", "--format", "jsonl",
        "--save", tmp_path / "out.mp4",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    found = [Path(line["source"]).name for line in lines(done.out)]
    assert len(found) == 14
    assert sorted(found) == sorted([f"{n:02}.png" for n in range(12)] + ["00.png", "01.png"])
    saved = {path.name: cv2.VideoCapture(str(path)).get(7) for path in tmp_path.glob("*.mp4")}
    assert saved == {"out-0.mp4": 1, "out-1.mp4": 12, "out-2.mp4": 1}


def test_one_broken_source_of_several(tiny_bundle, images, edge_fg_command) -> None:
    (images / "02.png").write_bytes(b"broken")
    done = edge_fg_command("run", tiny_bundle, images / "02.png", images, "--format", "jsonl")
    assert done.code == 1
    assert "02.png" in done.complaint
    assert len(lines(done.out)) == 11


def test_a_rate_thins_a_video_by_its_own_clock(guide, edge_fg_command) -> None:
    done = edge_fg_command(
        "run", guide.bundle, guide.clip, "--policy", "rate(5)", "--format", "jsonl"
    )
    numbers = [line["frame"] for line in lines(done.out)]
    assert numbers == list(range(0, guide.frames, 3))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--policy", "fastest"],
        ["--policy", "queue(0)"],
        ["--events", "birds"],
        ["--preview", "here"],
        ["--preview", "::1:80"],
        ["--metrics", "70000"],
        ["--duration", "0"],
        ["--max-power", "nan"],
    ],
)
def test_wrong_usage(tiny_bundle, images, edge_fg_command, wrong) -> None:
    done = edge_fg_command("run", tiny_bundle, images, *wrong)
    assert (done.code, done.out) == (2, "")
    assert done.complaint


def test_addresses() -> None:
    assert address("8080") == Address("127.0.0.1", 8080, remote=False)
    assert address("localhost:0") == Address("localhost", 0, remote=False)
    assert address("[::1]:80") == Address("::1", 80, remote=False)
    assert address("0.0.0.0:80") == Address("0.0.0.0", 80, remote=True)
    assert address("nest.local:80").remote


# ---------------------------------------------------------------- visits


def test_visits_instead_of_frames(guide, tmp_path, edge_fg_command) -> None:
    table, file = tmp_path / "v.csv", tmp_path / "v.jsonl"
    done = edge_fg_command(
        "run", guide.bundle, guide.clip, "--events", "visits", "--format", "jsonl",
        "--csv", table, "--jsonl", file, "--save", tmp_path / "v.mp4",
    )  # fmt: skip
    assert (done.code, done.err) == (0, "")
    events = lines(done.out)
    assert [event["event"] for event in events][:1] == ["visit_started"]
    assert set(events[0]) >= {"event", "visit", "source", "label", "confidence", "started_s", "box"}
    ended = [event for event in events if event["event"] == "visit_ended"]
    assert [event["label"] for event in ended] == [guide.species[0]]
    assert file.read_text() == done.out
    assert [row["event"] for row in csv.DictReader(table.open())] == [e["event"] for e in events]
    with edge_fg.open_source(tmp_path / "v.mp4") as video:
        assert sum(1 for _ in video) == guide.frames


def test_visits_as_text_and_in_the_summary(guide, edge_fg_command) -> None:
    done = edge_fg_command("run", guide.bundle, guide.clip, "--events", "visits", "--status")
    assert re.search(rf"clip\.mp4 [\d.]+ s  visit \S+ ended  {guide.species[0]}  \d", done.out)
    assert f"visits: 1 {guide.species[0]}" in done.err
    assert "answers" not in done.out


# ---------------------------------------------------------------- files


def test_files_hold_what_is_printed_and_are_added_to(
    tiny_bundle, images, tmp_path, edge_fg_command
) -> None:
    table, file, frames = tmp_path / "a.csv", tmp_path / "a.jsonl", tmp_path / "frames"
    words = ["--csv", table, "--jsonl", file, "--format", "jsonl", "--save-frames", frames]
    first = edge_fg_command("run", tiny_bundle, images, *words)
    second = edge_fg_command("run", tiny_bundle, images, *words, "--top-k", "1")
    assert (first.code, second.code) == (0, 0)
    written = file.read_text()
    assert written.startswith(first.out)
    marked = [{**line, "run": 2} for line in lines(second.out)]
    assert lines(written.removeprefix(first.out)) == marked
    assert len(marked[0]["top"]) == 1
    rows = list(csv.DictReader(table.open()))
    assert len(rows) == 24
    assert rows[0]["label"] == lines(first.out)[0]["top"][0]["label"]
    assert sorted(path.name for path in frames.iterdir()) == [
        f"{n:02}-{n:06}.jpg" for n in range(12)
    ]


def test_a_sink_that_fails_is_reported_at_the_end(
    tiny_bundle, images, tmp_path, edge_fg_command
) -> None:
    done = edge_fg_command(
        "run", tiny_bundle, images, "--jsonl", "/dev/full", "--csv", tmp_path / "a.csv",
        "--format", "jsonl",
    )  # fmt: skip
    assert done.code == 1
    assert "JSON lines to full" in done.complaint
    assert "No space left on device" in done.complaint
    # Recognition went on, and so did everything else.
    assert len(lines(done.out)) == 12
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 12


def test_outputs_that_can_not_be_are_refused_before_the_first_answer(
    tiny_bundle, images, tmp_path, edge_fg_command
) -> None:
    (tmp_path / "notes.txt").write_text("mine\n")
    for words in (
        ["--jsonl", tmp_path / "notes.txt"],
        ["--csv", tmp_path / "notes.txt"],
        ["--csv", tmp_path / "none" / "a.csv"],
        ["--save", tmp_path / "a.gif"],
        ["--save-frames", tmp_path / "notes.txt" / "x"],
        ["--preview", "192.0.2.1:0"],
    ):
        done = edge_fg_command("run", tiny_bundle, images, *words)
        assert (done.code, done.out) == (1, ""), words
    assert (tmp_path / "notes.txt").read_text() == "mine\n"


def test_a_closed_standard_output_ends_the_run(tiny_bundle, images) -> None:
    words = " ".join(map(shlex.quote, [*RUN, str(tiny_bundle), str(images)]))
    done = subprocess.run(
        ["sh", "-c", f"{words} >&-"], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    (complaint,) = done.stderr.splitlines()
    assert "standard output is closed" in complaint


def test_no_video_of_several_replaces_a_source(
    tiny_bundle, images, tmp_path, edge_fg_command
) -> None:
    clip = tmp_path / "out-1.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    before = clip.read_bytes()
    done = edge_fg_command("run", tiny_bundle, clip, images, "--save", tmp_path / "out.avi")
    assert done.code == 1
    assert "would replace a source" in done.complaint
    assert clip.read_bytes() == before


def test_a_table_of_a_name_that_no_file_can_have_is_not_there(tiny_bundle, edge_fg_command) -> None:
    done = edge_fg_command("run", tiny_bundle, "x" * 5000 + ".csv")
    assert done.code == 1
    assert "can't look at xxx" in done.complaint
    assert len(done.complaint.encode()) < 2100


@pytest.mark.parametrize("option", ["--save", "--save-frames"])
def test_what_an_earlier_run_wrote_is_not_read(
    tiny_bundle, images, edge_fg_command, option
) -> None:
    out = images / "out.avi"
    out.mkdir() if option == "--save-frames" else out.touch()
    done = edge_fg_command("run", tiny_bundle, images, option, out)
    assert done.code == 1
    assert "out.avi lies in" in done.complaint


@pytest.mark.parametrize(
    ("pattern", "words", "complaint"),
    [
        ("*.avi", ["--save", "out.avi"], "out.avi would replace a source"),
        ("**/*.avi", ["--save", "sub/out.avi"], "out.avi would replace a source"),
        ("*.png", ["--save-frames", "."], "which is written"),
        ("*", ["--save-frames", "sub"], "which is written"),
        ("out.avi?flip=vertical", ["--save", "out.avi"], "out.avi would replace a source"),
    ],
)
def test_no_glob_or_address_reads_what_is_written(
    tiny_bundle, images, edge_fg_command, pattern, words, complaint
) -> None:
    (images / "sub").mkdir()
    for made in ("out.avi", "sub/out.avi"):
        (images / made).touch()
    option, out = words
    done = edge_fg_command("run", tiny_bundle, f"{images}/{pattern}", option, images / out)
    assert done.code == 1
    assert complaint in done.complaint
    assert (images / "out.avi").stat().st_size == 0


@pytest.mark.parametrize("pattern", ["", "**/*.png", "1*"])
def test_text_tells_equal_names_in_different_folders_apart(
    tiny_bundle, images, tmp_path, edge_fg_command, pattern
) -> None:
    one = next(images.glob("*.png"))
    wanted = [f"{folder}/IMG_0001.PNG" for folder in ("100MEDIA", "101MEDIA")]
    for name in wanted:
        (tmp_path / "DCIM" / name).parent.mkdir(parents=True)
        shutil.copy(one, tmp_path / "DCIM" / name)
    done = edge_fg_command("run", tiny_bundle, f"{tmp_path}/DCIM/{pattern}", "--format", "text")
    assert [line.split()[0] for line in done.out.splitlines()] == wanted


# ---------------------------------------------------------------- watching, and the end


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_a_camera_is_watched_until_ctrl_c(tiny_bundle, tmp_path) -> None:
    pytest.importorskip("prometheus_client")
    feed = Feed(
        tiny_bundle, "-", "--format", "jsonl", "--preview", 0, "--metrics", 0,
        "--save", tmp_path / "a.avi", "--jsonl", tmp_path / "a.jsonl",
    )  # fmt: skip
    ports = {}
    for _ in range(2):
        found = re.search(r"(preview|metrics) at http://127\.0\.0\.1:(\d+)", feed.told())
        ports[found[1]] = int(found[2])
    for _ in range(5):
        assert json.loads(feed.line())["top"]
    status, image = ask(ports["preview"], "/snapshot.jpg")
    assert status == 200
    assert Image.open(io.BytesIO(image)).size == (64, 48)
    assert ask(ports["preview"], "/healthz")[0] == 200
    stats = json.loads(ask(ports["preview"], "/stats.json")[1])
    assert stats["pipeline"]["answered"] >= 5
    assert stats["sources"][0]["state"] == "live"
    assert "temperatures_c" in stats["pipeline"]["device"]
    assert b'edge_fg_answers_total{source="0"}' in ask(ports["metrics"], "/metrics")[1]
    code, _, errors = feed.end(signal.SIGINT)
    assert code == 130
    told = errors.splitlines()
    assert told[-1] == "edge-fg: interrupted"
    answers = int(re.match(r"(\d+) answers in ", told[0])[1])
    assert answers >= 5
    assert "frame age at the answer: p50" in errors
    assert "Traceback" not in errors
    kept = lines((tmp_path / "a.jsonl").read_text())
    assert 5 <= len(kept) <= answers
    with edge_fg.open_source(tmp_path / "a.avi") as video:
        assert sum(1 for _ in video) > 3
    assert sorted(
        path.name for path in tmp_path.iterdir() if path.name.startswith((".", "a."))
    ) == [
        "a.avi",
        "a.jsonl",
    ]


def test_sigterm_ends_it_the_same_way(tiny_bundle, tmp_path) -> None:
    feed = Feed(tiny_bundle, "-", "--csv", tmp_path / "a.csv")
    for _ in range(3):
        assert "%" in feed.line()
    code, _, errors = feed.end(signal.SIGTERM)
    assert code == 130
    assert errors.splitlines()[-1] == "edge-fg: interrupted"
    content = (tmp_path / "a.csv").read_bytes()
    assert content.endswith(b"\n")
    assert content.count(b"\n") >= 3


SLOW_TO_FINISH = """
import sys, time
from pathlib import Path
from edge_fg.sinks.video_file import VideoSaver
from edge_fg_tools.cli.main import main

check = VideoSaver._is_whole

def slow(self):
    print("finishing", file=sys.stderr, flush=True)
    while not Path(".go").exists():
        time.sleep(0.01)
    return check(self)

VideoSaver._is_whole = slow
sys.exit(main())
"""


def test_a_second_interrupt_loses_no_file(tiny_bundle, tmp_path) -> None:
    go = tmp_path / "go"
    command = [sys.executable, "-c", SLOW_TO_FINISH.replace(".go", str(go)), "run"]
    feed = Feed(tiny_bundle, "-", "--save", tmp_path / "a.avi", command=command)
    for _ in range(5):
        feed.line()
    feed.process.send_signal(signal.SIGTERM)
    assert feed.told() == "finishing\n"
    feed.process.send_signal(signal.SIGINT)
    assert "interrupt once more" in feed.told()
    go.touch()
    code, _, _ = feed.end()
    assert code == 130
    with edge_fg.open_source(tmp_path / "a.avi") as video:
        assert sum(1 for _ in video) > 0
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_kill_9_leaves_whole_lines_and_no_half_video(tiny_bundle, tmp_path) -> None:
    feed = Feed(
        tiny_bundle, "-", "--save", tmp_path / "a.mp4", "--jsonl", tmp_path / "a.jsonl"
    )  # fmt: skip
    written = tmp_path / "a.jsonl"
    until(lambda: written.exists() and written.read_bytes().count(b"\n") >= 5)
    code, _, _ = feed.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not (tmp_path / "a.mp4").exists()
    content = (tmp_path / "a.jsonl").read_text()
    assert content.endswith("\n")
    assert [line["frame"] >= 0 for line in lines(content)].count(True) >= 5


def test_a_duration_ends_a_camera_well(tiny_bundle, tmp_path) -> None:
    feed = Feed(tiny_bundle, "-", "--duration", 2, "--save", tmp_path / "a.avi")
    code, out, errors = feed.end()
    assert code == 0
    assert len(out.splitlines()) > 5
    assert re.search(r"^\d+ answers in ", errors, re.MULTILINE)
    with edge_fg.open_source(tmp_path / "a.avi") as video:
        assert sum(1 for _ in video) > 5


def test_status_lines_where_there_is_no_terminal(tiny_bundle) -> None:
    feed = Feed(tiny_bundle, "-", "--status", "--duration", 1)
    code, out, errors = feed.end()
    assert code == 0
    status = errors.splitlines()[0]
    assert re.search(r"answers, [\d.]+/s", status)
    assert "\x1b" not in errors + out


def test_a_display_that_is_not_there(tiny_bundle, images, edge_fg_command) -> None:
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    done = edge_fg_command("run", tiny_bundle, images, "--display")
    assert (done.code, done.out) == (1, "")
    assert "edge-fg[display]" in done.complaint


class Window:
    """Stands for the window; the user closes it after some looks."""

    name = "window"
    lossless = False

    def __init__(self, title: str, *, annotate) -> None:
        self.looks = 0
        self.destroyed = False
        Window.made = self

    def open(self, sources) -> None:
        pass

    def __call__(self, result) -> None:
        pass

    def close(self) -> None:
        pass

    def refresh(self) -> bool:
        self.looks += 1
        return self.looks < 5

    def destroy(self) -> None:
        self.destroyed = True


def test_closing_the_window_ends_the_run_well(
    tiny_bundle, images, tmp_path, edge_fg_command, monkeypatch
) -> None:
    monkeypatch.setattr(run_session, "WindowSink", Window)
    words = ["--display", "--policy", "rate(5)", "--save", tmp_path / "a.avi"]
    done = edge_fg_command("run", tiny_bundle, images, *words)
    assert done.code == 0
    assert Window.made.destroyed
    assert 0 < len(done.out.splitlines()) < 12
    with edge_fg.open_source(tmp_path / "a.avi") as video:
        assert sum(1 for _ in video) == len(done.out.splitlines())


class Sensors:
    """A device that is too hot, without a power monitor."""

    found = True

    def reading(self) -> Reading:
        return Reading(temperature_c=91.25)

    def read(self):
        raise AssertionError("nobody asked")


def test_a_hot_device_is_throttled_and_reported(
    tiny_bundle, images, edge_fg_command, monkeypatch
) -> None:
    monkeypatch.setattr(run_session, "JetsonSensors", Sensors)
    words = ["--policy", "rate(5)", "--max-temperature", "85"]
    done = edge_fg_command("run", tiny_bundle, images, *words)
    assert done.code == 0
    assert len(done.out.splitlines()) == 12
    assert "throttle: 91.2 °C is over 85 °C, lowered to" in done.err


def test_a_budget_that_can_not_be_measured_is_refused(
    tiny_bundle, images, edge_fg_command, monkeypatch
) -> None:
    monkeypatch.setattr(run_session, "JetsonSensors", Sensors)
    done = edge_fg_command("run", tiny_bundle, images, "--max-power", "15")
    assert (done.code, done.out) == (2, "")
    assert "power monitor" in done.complaint


@pytest.mark.slow
def test_real_clips_and_images_run_through(tiny_bundle, data_dir, tmp_path, edge_fg_command):
    clips = sorted((data_dir / "videos").iterdir())
    scenes = data_dir / "images" / "scenes"
    done = edge_fg_command(
        "run", tiny_bundle, *clips, scenes, "--format", "jsonl", "--max-frames", "300",
        "--save", tmp_path / "a.mp4", "--csv", tmp_path / "a.csv",
    )  # fmt: skip
    assert done.code == 0, done.err
    found = [line["source"] for line in lines(done.out)]
    assert len(found) == 300
    assert {str(clip) for clip in clips} <= set(found)
    assert len(list(csv.DictReader((tmp_path / "a.csv").open()))) == 300
    saved = sorted(tmp_path.glob("a-*.mp4"))
    assert len(saved) == len(clips) + 1
    assert sum(cv2.VideoCapture(str(path)).get(7) for path in saved) == 300

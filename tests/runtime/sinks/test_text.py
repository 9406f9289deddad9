"""JSON lines and tables: whole lines, whatever happens."""

from __future__ import annotations

import csv
import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.errors import OutputError, UsageError
from edge_fg.pipeline import Pipeline
from edge_fg.recognition.prediction import Latency
from edge_fg.sinks import CallbackSink, CsvSink, JsonLinesSink
from edge_fg.sinks.line_file import LineFile
from support import pipeline_fakes as fakes
from support import sink_results as results
from support.waiting import until


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(sink, *given_results) -> None:
    sink.open([])
    for result in given_results:
        sink(result)
    sink.close()


def test_frames_have_the_keys_of_the_command_line(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    written(JsonLinesSink(path, top_k=2), results.result(7, time=results.NOON))
    (line,) = lines(path)
    assert list(line) == ["frame", "time", "source", "position_s", "top", "latency_ms"]
    assert (line["frame"], line["source"], line["position_s"]) == (7, "clip.mp4", 0.7)
    assert line["time"] == "2026-05-01T12:00:00.250000+02:00"
    assert [(top["index"], top["label"]) for top in line["top"]] == [
        (0, "Burrowing Owl"),
        (1, "Little Owl"),
    ]
    assert line["latency_ms"] == {"preprocess": 1.25, "inference": 2.5, "total": 3.75}


def test_the_latency_of_a_batch_is_told_with_the_share_of_one(tmp_path) -> None:
    batch = dataclasses.replace(results.prediction(), latency=Latency(2.0, 10.0, 14.0, frames=4))
    result = results.result(prediction=batch)
    written(JsonLinesSink(tmp_path / "a.jsonl"), result)
    written(CsvSink(tmp_path / "a.csv"), result)
    (line,) = lines(tmp_path / "a.jsonl")
    times = {"preprocess": 2.0, "inference": 10.0, "total": 14.0}
    assert line["latency_ms"] == {**times, "frames": 4, "per_frame": 3.5}
    (row,) = csv.DictReader((tmp_path / "a.csv").open())
    assert (row["latency_ms"], row["latency_frames"]) == ("14.0", "4")


@pytest.mark.parametrize("make", [JsonLinesSink, CsvSink])
def test_only_what_is_sure_enough_is_written(tmp_path, make) -> None:
    path = tmp_path / "answers"
    unsure, sure = results.prediction(0.4, 0.3, 0.3), results.prediction(0.1, 0.7, 0.2)
    sink = make(path, min_confidence=0.5)
    written(sink, results.result(0, prediction=unsure), results.result(1, prediction=sure))
    assert path.read_text().count("Little Owl") == 1
    assert "Burrowing Owl" not in path.read_text()
    events = (results.event(label=None), results.event("visit_started"))
    path.unlink()
    written(make(path, content="visits", min_confidence=0.9), results.result(events=events))
    assert "visit_" not in path.read_text()
    with pytest.raises(UsageError, match="min_confidence must be from 0 to 1, not 50"):
        make(path, min_confidence=50)


def test_frames_with_individuals_tell_of_them(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    seen = (results.sighting(3, (1, 2, 3, 4), "Great, Tit"),)
    written(JsonLinesSink(path), results.result(prediction=None, sightings=seen))
    (line,) = lines(path)
    assert (line["top"], line["latency_ms"]) == ([], None)
    assert line["sightings"] == [
        {"track": 3, "box": [1, 2, 3, 4], "label": "Great, Tit", "index": 0, "confidence": 0.9}
    ]


def test_an_individual_that_is_sure_enough_keeps_its_frame(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    sure = results.sighting(3, (1, 2, 3, 4), "Great, Tit")
    unsure = dataclasses.replace(sure, track=4, confidence=0.4)
    undecided = dataclasses.replace(sure, track=5, label=None, class_id=None, confidence=None)
    written(
        JsonLinesSink(path, min_confidence=0.5),
        results.result(0, prediction=None, sightings=(unsure, sure, undecided)),
        results.result(1, prediction=None, sightings=(unsure,)),
        results.result(2, prediction=None),
    )
    (line,) = lines(path)
    assert (line["frame"], [one["track"] for one in line["sightings"]]) == (0, [3])


def test_visits_have_a_line_an_event(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    first, last = results.event("visit_started"), results.event("visit_ended", label=None)
    written(
        JsonLinesSink(path, content="visits"),
        results.result(0),
        results.result(1, events=(first,)),
        results.result(1, events=(last,), closing=True),
    )
    assert lines(path) == [first.to_dict(), last.to_dict()]


def test_a_closing_result_gives_no_second_line_of_its_frame(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    written(JsonLinesSink(path), results.result(1), results.result(1, closing=True))
    assert len(lines(path)) == 1


@pytest.mark.parametrize("content", ["frames", "visits"])
def test_a_later_run_marks_what_it_adds(tmp_path, content) -> None:
    events = (results.event(),) if content == "visits" else ()
    for _ in range(3):
        for sink in (JsonLinesSink, CsvSink):
            path = tmp_path / f"{sink.__name__}.{content}"
            two = [results.result(number, events=events) for number in (0, 1)]
            written(sink(path, content=content), *two)
    runs = [line.get("run", 1) for line in lines(tmp_path / f"JsonLinesSink.{content}")]
    rows = list(csv.DictReader((tmp_path / f"CsvSink.{content}").open()))
    assert runs == [int(row["run"]) for row in rows] == [1, 1, 2, 2, 3, 3]


def test_the_run_is_counted_past_what_says_nothing_of_it(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"frame": 0}\n{"frame": 1, "ru')  # and torn by a power cut
    written(JsonLinesSink(path), results.result())
    path.write_text(path.read_text() + '{"run": "what"}\n')
    written(JsonLinesSink(path), results.result())
    assert [line.get("run") for line in lines(path)] == [None, 2, "what", 2]
    table = tmp_path / "a.csv"
    for count in (0, 1, 0, 1):
        written(CsvSink(table), *[results.result()] * count)
    assert [row["run"] for row in csv.DictReader(table.open())] == ["1", "2"]


def test_standard_output(capsys) -> None:
    written(JsonLinesSink("-"), results.result(), results.result(1))
    assert [json.loads(line)["frame"] for line in capsys.readouterr().out.splitlines()] == [0, 1]


def test_a_table_of_frames(tmp_path) -> None:
    path = tmp_path / "a.csv"
    nasty = "line\nbreak,\x1b[2J\udcff.jpg"
    written(CsvSink(path), results.result(5, prediction=results.prediction(0.1, 0.2, 0.7)))
    written(CsvSink(path), results.result(6, path=nasty, prediction=None))
    first, second = csv.DictReader(path.open())
    assert (first["label"], first["index"], first["frame"]) == ("Great, Tit", "2", "5")
    assert float(first["confidence"]) == pytest.approx(0.7)
    assert (first["runner_up"], first["position_s"], first["latency_ms"]) == (
        "Little Owl",
        "0.5",
        "3.75",
    )
    assert second["source"] == r"line\nbreak,\x1b[2J\udcff.jpg"
    assert (second["label"], second["confidence"], second["latency_ms"]) == ("", "", "")
    assert path.read_bytes().count(b"\n") == 3


def test_a_table_of_visits(tmp_path) -> None:
    path = tmp_path / "a.csv"
    written(CsvSink(path, content="visits"), results.result(events=(results.event(),)))
    (row,) = csv.DictReader(path.open())
    assert (row["event"], row["label"], row["frames"]) == ("visit_ended", "Little Owl", "12")
    assert (row["x"], row["y"], row["width"], row["height"]) == ("1", "2", "30", "40")
    assert row["ended"] == "2026-05-01T12:00:03.750000+02:00"
    assert (row["time_s"], row["time"]) == ("6.5", "2026-05-01T12:00:05.750000+02:00")


def test_a_file_is_added_to(tmp_path) -> None:
    for path, make in ((tmp_path / "a.jsonl", JsonLinesSink), (tmp_path / "a.csv", CsvSink)):
        for number in range(2):
            written(make(path), results.result(number))
        assert len(path.read_text().splitlines()) == (2 if make is JsonLinesSink else 3)


@pytest.mark.parametrize(
    ("torn", "kept"),
    [
        (b'{"frame": 1}\n{"frame": 2, "ti', b'{"frame": 1}\n'),
        (b'{"frame": 1}\n' + b"\0" * 5000, b'{"frame": 1}\n'),
        (b'{"fra', b""),
        (b"\0\0\0", b""),
        (b"", b""),
    ],
)
def test_a_torn_last_line_is_cut_off(tmp_path, caplog, torn, kept) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(torn)
    written(JsonLinesSink(path), results.result(3))
    assert path.read_bytes().startswith(kept)
    assert path.read_bytes()[len(kept) :].startswith(b'{"frame": 3')
    assert ("were cut off" in caplog.text) == (torn != kept)


def test_a_torn_header_of_a_table_is_written_anew(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"time,sour")
    written(CsvSink(path), results.result(3))
    (row,) = csv.DictReader(path.open())
    assert row["frame"] == "3"


@pytest.mark.parametrize(
    "content", [b"# Notes\nprecious\n", b"precious", b"x" * (3 << 20), b"\n", b"name,age\n"]
)
def test_what_is_not_ours_is_left_alone(tmp_path, content) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for sink in (JsonLinesSink(path), CsvSink(path)):
        with pytest.raises(OutputError, match=r"notes\.txt holds something else"):
            sink.open([])
    assert path.read_bytes() == content


def test_a_table_of_other_columns_is_left_alone(tmp_path) -> None:
    written(CsvSink(tmp_path / "a.csv"), results.result())
    with pytest.raises(OutputError, match="something else"):
        CsvSink(tmp_path / "a.csv", content="visits").open([])


def test_two_programs_do_not_write_to_one_file(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another program"):
            JsonLinesSink(path).open([])
    sink = JsonLinesSink(path)
    sink.open([])
    sink.close()


def test_a_file_that_was_moved_away_is_made_anew(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    sink = JsonLinesSink(path)
    sink.open([])
    sink(results.result(0))
    path.rename(tmp_path / "a.jsonl.1")
    sink(results.result(1))
    path.unlink()
    sink(results.result(2))
    sink.close()
    assert [line["frame"] for line in lines(tmp_path / "a.jsonl.1")] == [0]
    assert [line["frame"] for line in lines(path)] == [2]


def test_places_that_can_not_be_written(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "none" / "a.jsonl"):
        with pytest.raises(OutputError, match="can't write"):
            JsonLinesSink(path).open([])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="pipe: No such device"):
        JsonLinesSink(tmp_path / "pipe").open([])  # nobody reads it; it must not wait for ever


def test_arguments_that_make_no_sense(tmp_path) -> None:
    with pytest.raises(UsageError, match="frames or visits"):
        JsonLinesSink(tmp_path / "a", content="birds")
    with pytest.raises(UsageError, match="top_k"):
        JsonLinesSink(tmp_path / "a", top_k=0)


def test_a_pipe_gets_the_lines(tmp_path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    written(JsonLinesSink(path), results.result(4))
    assert json.loads(os.read(reader, 10_000))["frame"] == 4
    os.close(reader)


def test_a_full_device_is_said_and_recognition_goes_on(caplog) -> None:
    """/dev/full takes nothing: the sink fails, the other one gets every result."""
    seen = []
    pipeline = Pipeline(
        fakes.Numbers(30),
        lambda image: results.prediction(),
        sinks=[JsonLinesSink("/dev/full"), CallbackSink(seen.append)],
    )
    stats = pipeline.run()
    assert len(seen) == stats.answered == 30
    assert stats.sinks[0].failures >= 5
    said = [r.message for r in caplog.records if "No space left" in r.message]
    assert len(said) == 1
    assert "can't write /dev/full" in said[0]


LIMITED = """
import json, resource, sys
from pathlib import Path
from edge_fg.errors import OutputError
from edge_fg.sinks.line_file import LineFile
path = Path(sys.argv[1])
# A limit on the size of files makes writes fail in the middle, as a full disk does.
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
lines = LineFile(path, prefix='{"')
lines.open()
def limit(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
limit(1000)
errors = 0
for number in range(40):
    try:
        lines.write(json.dumps({"frame": number, "padding": "x" * 60}))
    except OutputError as error:
        errors, said = errors + 1, error
print(errors, said)
content = path.read_bytes()
assert content.endswith(b"\\n") and len(content) <= 1000, content[-100:]
limit(most)
lines.write(json.dumps({"frame": "after"}))
lines.close()
"""


def test_a_full_disk_leaves_whole_lines_and_the_file_goes_on(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, _, message = done.stdout.partition(" ")
    assert "can't write" in message
    found = [line["frame"] for line in lines(path)]
    assert found == [*range(40 - int(count)), "after"]


KILLED = """
import sys
from pathlib import Path
from edge_fg.sinks.line_file import LineFile
lines = LineFile(Path(sys.argv[1]), prefix='{"', sync_seconds=1e9)
lines.open()
print("ready", flush=True)
number = 0
while True:
    lines.write('{"frame": %d, "padding": "%s"}' % (number, "x" * (number % 5000)))
    number += 1
"""


def test_a_killed_process_leaves_whole_lines(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    until(lambda: path.stat().st_size > 100_000)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written(JsonLinesSink(path), results.result(-1))  # repairs what the kernel was at
    found = [line["frame"] for line in lines(path)]
    assert found == [*range(len(found) - 1), -1]
    assert len(found) > 10


@given(st.lists(st.text(st.characters(blacklist_characters="\n\r")), max_size=10))
def test_any_line_is_written_as_one(tmp_path_factory, texts) -> None:
    path = tmp_path_factory.mktemp("lines") / "a"
    file = LineFile(path, sync_seconds=1e9)
    file.open()
    for text in texts:
        file.write(text)
    file.close()
    whole = "".join(text + "\n" for text in texts)
    assert path.read_bytes() == whole.encode(errors="backslashreplace")


def test_a_callback_sink_calls() -> None:
    seen = []

    def remember(result):
        seen.append(result.frame.number)

    sink = CallbackSink(remember)
    assert sink.name == "remember"
    written(sink, results.result(1), results.result(2))
    assert seen == [1, 2]


def test_importing_the_sinks_loads_nothing_heavy() -> None:
    program = "import edge_fg.sinks, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"cv2", "onnxruntime", "prometheus_client"} & set(done.stdout.split())


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch) -> None:
    def refuse(descriptor, how):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    written(JsonLinesSink(tmp_path / "a.jsonl"), results.result())
    assert len(lines(tmp_path / "a.jsonl")) == 1

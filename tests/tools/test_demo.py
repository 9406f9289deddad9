"""The demo as a newcomer meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

av = pytest.importorskip("av")
for needed in ("onnx", "onnxruntime", "cv2"):
    pytest.importorskip(needed)


@pytest.mark.slow
def test_the_demo_says_what_it_did_and_leaves_what_it_names(
    tmp_path, edge_fg_command, monkeypatch
) -> None:
    from edge_fg_tools.fieldguide import demonstration

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "_PHOTOGRAPHS_PER_CLASS", 2)  # minutes less
    monkeypatch.setattr(demonstration, "available", lambda name: (False, "not here"))
    done = edge_fg_command("demo", "--output", "out")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[-1] == "open out/report.html"
    begin = lines.index("{")
    figures = json.loads("\n".join(lines[begin:-1]))
    assert figures == json.loads(Path("out/summary.json").read_text())
    words = "\n".join(lines[:begin])
    assert f"INT8 is right on {figures['accuracy_int8']:.1%}" in words
    assert f"right on {figures['clip_frames_right']} of the " in words
    named = [line.split()[0] for line in lines[lines.index("In out:") + 1 : begin]]
    assert {"report.html", "annotated.mp4", "predictions.jsonl", "clip.mp4"} <= set(named)
    answers = [json.loads(line) for line in Path("out/predictions.jsonl").read_text().splitlines()]
    assert len(answers) == 300
    assert {answer["source"] for answer in answers} == {"out/clip.mp4"}
    assert all((tmp_path / "out" / name).exists() for name in named)
    with av.open("out/annotated.mp4") as video:
        assert video.streams.video[0].codec_context.name == "h264"
        assert video.streams.video[0].frames == 300

"""The examples, as a user starts them, on the built-in model and clip."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.children import environment

pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")

# A stand-in for the parts of ROS 2 that the node uses; its camera gives three images.
RCLPY = """
import threading, time
import numpy as np
from types import SimpleNamespace

class Logger:
    def warning(self, text): print("warning:", text, flush=True)
    def info(self, text): print("info:", text, flush=True)

nodes = []

class Node:
    def __init__(self, name):
        self.parameters = {}
        self.topics = {}
        nodes.append(self)
    def declare_parameter(self, name, value):
        import sys
        given = dict(word.split(":=") for word in sys.argv if ":=" in word)
        self.parameters[name] = type(value)(given.get(name, value))
    def get_parameter(self, name): return SimpleNamespace(value=self.parameters[name])
    def get_logger(self): return Logger()
    def create_publisher(self, kind, topic, depth): return SimpleNamespace(publish=self.published)
    def published(self, message):
        best = message.results[0]
        print("published", message.header, best.class_id, round(best.score, 3), flush=True)
    def create_subscription(self, kind, topic, callback, qos): self.topics[topic] = callback
    def destroy_node(self): print("destroyed")

def init(): pass
def shutdown(): pass
def try_shutdown(): pass

def spin(node):
    def message(header, encoding, data, step):
        return SimpleNamespace(header=header, height=48, width=64, encoding=encoding,
                               is_bigendian=0, step=step, data=data)
    grey = bytes([128]) * (64 * 48 * 3)
    for number, one in enumerate([
        message("h0", "bgr8", grey, 192),
        message("h1", "bayer_rggb8", grey, 64),
        message("h2", "yuv422_yuy2", bytes([128]) * (128 * 48), 128),
    ]):
        node.topics["image"](one)
        counters = node.messages.counters
        while counters.answered + counters.failed <= number:
            time.sleep(0.01)
"""
MESSAGES = """
class Classification:
    def __init__(self, header): self.header, self.results = header, []
class ObjectHypothesis:
    def __init__(self, class_id, score):
        assert isinstance(class_id, str) and isinstance(score, float)
        self.class_id, self.score = class_id, score
"""


@pytest.fixture
def example(repository: Path):
    """Runs an example in a process of its own and returns what it printed."""

    def run(name: str, *arguments: object, path: Path | None = None, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, repository / "tools" / "examples" / name, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env=environment(*([path] if path else [])),
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + (done.stderr if code else "")

    return run


def test_the_simple_one(example, guide) -> None:
    lines = example("simple.py", guide.bundle, guide.clip).splitlines()
    assert len(lines) == guide.frames
    assert lines[0].startswith("0 background ")
    assert any(guide.species[0] in line for line in lines)


@pytest.mark.parametrize(
    "name", ["simple.py", "robot_loop.py", "multithreaded_host.py", "asyncio_app.py"]
)
def test_one_without_arguments_says_how_it_is_used(example, name: str) -> None:
    told = example(name, code=2)
    assert told.startswith(f"usage: {name} ")
    assert "required: bundle, source" in told


def test_the_simple_one_is_short(repository) -> None:
    assert len((repository / "tools/examples/simple.py").read_text().splitlines()) <= 15


def test_the_robot_never_waits(example, guide) -> None:
    out = example("robot_loop.py", guide.bundle, guide.clip, "--seconds", 1)
    found = re.search(r"(\d+) turns, (\d+) answers, (\d+) superseded, .* ([\d.]+) ms$", out.strip())
    turns, answers, superseded, _ = map(float, found.groups())
    assert 0 < turns <= 31, "30 a second"
    assert answers + superseded <= turns


def test_the_robot_watches_what_it_knows(repository: Path, guide) -> None:
    example = repository / "tools" / "examples" / "robot_loop.py"
    command = [sys.executable, example, guide.bundle, guide.clip, "--seconds", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as robot:
        assert f"watch the {guide.species[0]}\n" in robot.stdout, "before the clip ends"
        robot.kill()


def test_the_robot_stops_when_its_camera_fails(example, guide, tmp_path) -> None:
    clip = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 30, (64, 48))
    for _ in range(40):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    out = example("robot_loop.py", guide.bundle, clip, "--seconds", 60, code=1)
    assert int(out.partition(" turns")[0].split()[-1]) < 200
    assert out.splitlines()[-1].startswith(f"robot_loop: {clip} ended after frame")


def test_threads_share_one_model(example, guide) -> None:
    out = example("multithreaded_host.py", guide.bundle, guide.clip, guide.clip).splitlines()
    assert out[0].startswith(f"{2 * guide.frames} frames of 2 sources")
    assert out[1] == "24 uploads by 3 workers"


def test_the_event_loop_stays_free(example, guide) -> None:
    out = example("asyncio_app.py", guide.bundle, guide.clip).splitlines()
    found = re.fullmatch(r"(\d+) answers, (\d+) heartbeats, longest pause (\d+) ms", out[-1])
    answers, beats, _ = map(int, found.groups())
    assert answers == guide.frames
    assert beats > 10


@pytest.fixture
def ros(tmp_path: Path) -> Path:
    """A folder with a stand-in for ROS 2."""
    files = {
        "rclpy/__init__.py": RCLPY,
        "rclpy/node.py": "from rclpy import Node\n",
        "rclpy/qos.py": "qos_profile_sensor_data = 1\n",
        "sensor_msgs/msg.py": "class Image: pass\n",
        "vision_msgs/msg.py": MESSAGES,
    }
    for name, content in files.items():
        path = tmp_path / "ros" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return tmp_path / "ros"


def test_the_ros_node_classifies_images_and_warns_of_the_others(example, guide, ros) -> None:
    given = ["-p", f"bundle:={guide.bundle}", "-p", "max_age:=1000"]
    out = example("ros2_node.py", "--ros-args", *given, path=ros)
    lines = out.splitlines()
    assert re.fullmatch(r"published h0 .+ [01]\.\d+", lines[0])
    assert lines[1].startswith("warning: bayer_rggb8 is raw sensor data")
    assert lines[2].startswith("published h2 ")
    assert "received=3, answered=2, superseded=0, failed=1" in lines[3]
    assert lines[4] == "destroyed"


def test_the_ros_node_without_a_bundle_or_ros(example, ros, tmp_path) -> None:
    told = example("ros2_node.py", f"bundle:={tmp_path}/none", path=ros, code=1)
    assert told.startswith("edge_fg: ")
    told = example("ros2_node.py", path=ros, code=1)
    assert "usage: ros2_node.py --ros-args -p bundle:=" in told
    if __import__("importlib").util.find_spec("rclpy") is None:
        assert "source its setup file" in example("ros2_node.py", code=1)

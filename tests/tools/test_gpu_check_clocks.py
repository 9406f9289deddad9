"""gpu_check: the clocks and the power mode, from nvidia-smi and from a Jetson's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_fg_tools.gpu_check import clocks


class FakeDevice:
    def attribute(self, number: int) -> int:
        return {50: 0, 33: 0x65, 34: 0}[number]


def program(folder: Path, text: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_nvidia_smi_is_asked_of_the_gpu_that_is_checked(tmp_path: Path, monkeypatch):
    values = "1980 MHz, 1980 MHz, 2619 MHz, 2619 MHz, 78.1 W, [N/A], P0, 0x4, Enabled, 31"
    said = f'case "$*" in *--id=00000000:65:00.0*) echo "{values}";; *) exit 9;; esac'
    program(tmp_path, said)
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = clocks.read(FakeDevice(), tmp_path)
    assert facts["GPU clock"] == "1980 MHz"
    assert facts["power"] == "78.1 W"
    assert facts["power limit"] == "unknown ([N/A])"
    assert facts["GPU temperature"] == "31"
    assert facts["CPU governor"] == "unknown (No such file or directory: scaling_governor)"


@pytest.mark.parametrize("text", ["echo 'no devices were found' >&2; exit 6", "echo one, two"])
def test_an_nvidia_smi_that_fails_is_quoted(tmp_path: Path, monkeypatch, text: str):
    program(tmp_path, text)
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = clocks.read(FakeDevice(), tmp_path)
    assert facts["GPU clock"].startswith("unknown (nvidia-smi said ")
    assert "no devices were found" in facts["GPU clock"] or "one, two" in facts["GPU clock"]


def test_without_nvidia_smi_clocks_are_unknown_with_the_reason(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    facts = clocks.read(FakeDevice(), tmp_path)
    assert facts["GPU clock"].startswith("unknown (nvidia-smi can't be asked: ")


def jetson(root: Path, files: dict[str, str]) -> dict[str, str]:
    for name, text in {"etc/nv_tegra_release": "# R36", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return clocks.read(FakeDevice(), root)


def test_a_jetson_tells_its_power_mode_and_its_clocks(tmp_path: Path):
    gpu, cpu = "sys/class/devfreq/17000000.gpu", "sys/devices/system/cpu/cpu0/cpufreq"
    facts = jetson(
        tmp_path,
        {
            "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >",
            f"{gpu}/min_freq": "612000000",
            f"{gpu}/max_freq": "612000000\n",
            f"{gpu}/cur_freq": "612000000",
            f"{cpu}/scaling_governor": "schedutil\n",
            f"{cpu}/scaling_max_freq": "1510400",
        },
    )
    assert facts["power mode (nvpmodel)"] == "2 15W"
    assert facts["GPU clock fixed (jetson_clocks)"] == "yes, 612 MHz to 612 MHz"
    assert facts["GPU clock"] == "612 MHz"
    assert facts["power"] == "unknown (no sensor tells it)"
    assert facts["CPU governor"] == "schedutil"
    assert facts["CPU clock, highest"] == "1510.4 MHz"


def test_a_jetson_that_tells_nothing_is_unknown(tmp_path: Path):
    facts = jetson(tmp_path, {"sys/class/devfreq/other/min_freq": "1"})
    assert facts["power mode (nvpmodel)"] == "unknown (No such file or directory: status)"
    assert facts["GPU clock fixed (jetson_clocks)"].startswith("unknown (the kernel lists no")
    free = tmp_path / "free"
    gpu = "sys/class/devfreq/gpu"
    facts = jetson(free, {f"{gpu}/min_freq": "306000000", f"{gpu}/max_freq": "1020000000"})
    assert facts["GPU clock fixed (jetson_clocks)"] == "no, 306 MHz to 1020 MHz"

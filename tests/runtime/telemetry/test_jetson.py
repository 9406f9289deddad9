"""Heat, power and clocks, from folders and lines like those that real devices give."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fg.telemetry.device import DeviceState
from edge_fg.telemetry.jetson import JetsonSensors
from edge_fg.telemetry.tegrastats import parse_tegrastats

# Values as devices print them; one line a release of NVIDIA's tegrastats.
TX2_JETPACK4 = (
    "RAM 3276/7859MB (lfb 5x4MB) SWAP 1626/12122MB (cached 181MB) "
    "CPU [44%@1421,49%@2031,off,17%@1420] EMC_FREQ 1%@1866 GR3D_FREQ 7%@114 APE 150 "
    "MTS fg 1% bg 1% PLL@42.5C MCPU@42.5C PMIC@100C GPU@39.5C thermal@41.3C "
    "VDD_SYS_GPU 182/190 VDD_4V0_WIFI 0/0 VDD_IN 5297/5290 VDD_SYS_CPU 1917/1917"
)
XAVIER_NX_JETPACK5 = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) "
    "CPU [23%@1397,17%@1192,off,off] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] VIC_FREQ 115 APE 150 "
    "AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C "
    "VDD_IN 2763mW/2846mW VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
AGX_ORIN_JETPACK5 = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) "
    "CPU [0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C "
    "CPU@44.562C Tboard@32C SOC2@40.093C GPU@-256C tj@44.343C "
    "VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
ORIN_NANO_JETPACK6 = (
    "10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) "
    "CPU [38%@1497,2%@729,1%@729,0%@729,1%@729,0%@729] EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] "
    "NVDEC off NVJPG off VIC off OFA off APE 200 cpu@57.125C soc2@55.093C gpu@58.5C tj@58.75C "
    "VDD_IN 11251mW/8535mW VDD_CPU_GPU_CV 5120mW/1944mW VDD_SOC 2720mW/3659mW"
)
THOR_JETPACK7_0 = (
    "04-21-2026 15:50:52 RAM 105265/125772MB (lfb 34x4MB) CPU [0%@972,8%@972] EMC_FREQ 0%@2750 "
    "GR3D_FREQ @[314,315,314] NVENC0_FREQ @314 VIC off OFA_FREQ @315 PVA0_FREQ off APE 300 "
    "cpu@37.343C tj@38.875C soc012@37.468C gpu@38.875C/109C VDD_GPU -392mW/1962mW "
    "VDD_CPU_SOC_MSS 5887mW/5887mW VIN_SYS_5V0 5635mW/5635mW VIN 19780mW/19780mW"
)
THOR_JETPACK7_2 = (
    "07-02-2026 13:45:44 RAM 36529/125749MB (lfb 12x4MB) SWAP 11/4096MB (cached 9MB) "
    "CPU [2%@972,1%@972] cpu@60.406C tj@63.281C soc012@58.468C gpu@62.906C "
    "VDD_GPU 37528mW/37528mW/37528mW VDD_CPU_SOC_MSS 18961mW/18961mW/18961mW "
    "VIN_SYS_5V0 18331mW/18331mW/18331mW VIN 87426mW/43713mW/87426mW"
)
EVERY_LINE = (
    TX2_JETPACK4,
    XAVIER_NX_JETPACK5,
    AGX_ORIN_JETPACK5,
    ORIN_NANO_JETPACK6,
    THOR_JETPACK7_0,
    THOR_JETPACK7_2,
)


def test_a_line_of_jetpack_6() -> None:
    assert parse_tegrastats(ORIN_NANO_JETPACK6) == DeviceState(
        temperatures_c={"cpu": 57.125, "soc2": 55.093, "gpu": 58.5, "tj": 58.75},
        power_w={"VDD_IN": 11.251, "VDD_CPU_GPU_CV": 5.12, "VDD_SOC": 2.72},
        gpu_load=0.99,
        gpu_hz=612e6,
        cpu_hz=(1497e6, 729e6, 729e6, 729e6, 729e6, 729e6),
        cpu_load=(0.38, 0.02, 0.01, 0.0, 0.01, 0.0),
        memory_hz=2133e6,
        memory_load=0.61,
        memory_used_bytes=6712 << 20,
        memory_bytes=7620 << 20,
    )


@pytest.mark.parametrize(
    ("line", "hottest", "watts", "load", "clock", "cores"),
    [
        # PMIC says 100 degrees all its life; the GPU of JetPack 7 tells no load.
        (TX2_JETPACK4, 42.5, 5.297, 0.07, 114e6, 3),
        (XAVIER_NX_JETPACK5, 46.5, 2.763, 0.0, 114e6, 2),
        (AGX_ORIN_JETPACK5, 44.562, 2.34 + 0.39 + 4.025, 0.0, 0.0, 2),
        (ORIN_NANO_JETPACK6, 58.75, 11.251, 0.99, 612e6, 6),
        (THOR_JETPACK7_0, 38.875, 19.78, None, 315e6, 2),
        (THOR_JETPACK7_2, 63.281, 87.426, None, None, 2),
    ],
)
def test_every_release_tells_heat_power_and_clocks(line, hottest, watts, load, clock, cores):
    state = parse_tegrastats(line)
    assert state.hottest_c == hottest
    assert state.total_power_w == pytest.approx(watts)
    assert (state.gpu_load, state.gpu_hz, len(state.cpu_load)) == (load, clock, cores)


def test_what_is_off_or_not_connected_is_left_out() -> None:
    state = parse_tegrastats(AGX_ORIN_JETPACK5)
    assert set(state.temperatures_c) == {"CPU", "Tboard", "SOC2", "tj"}
    assert "NC" not in state.power_w
    assert parse_tegrastats(THOR_JETPACK7_0).power_w["VDD_GPU"] == -0.392


def test_rails_that_do_not_add_up_give_no_total() -> None:
    assert DeviceState(power_w={"VDD_SOC": 1.0}).total_power_w is None


@pytest.mark.parametrize("line", EVERY_LINE)
def test_a_torn_line_tells_less_but_nothing_else(line: str) -> None:
    whole = parse_tegrastats(line)
    for length in range(len(line)):
        torn = parse_tegrastats(line[:length])
        if torn is None:
            continue
        assert torn.temperatures_c.items() <= whole.temperatures_c.items()
        assert torn.power_w.items() <= whole.power_w.items()
        assert torn.cpu_load in ((), whole.cpu_load)
        assert torn.memory_bytes == whole.memory_bytes


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    state = parse_tegrastats(f"RAM 1/2MB {text}")
    assert state is None or state.memory_bytes == 2 << 20
    assert parse_tegrastats(text.replace("RAM", "")) is None


def test_other_lines_are_no_tegrastats() -> None:
    for line in ("", "tegrastats: not found", "x" * 100_000, "RAM 1/2MB " * 10_000):
        assert parse_tegrastats(line) is None


# ---------------------------------------------------------------- the kernel's files


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def zones(**temperatures: str) -> dict[str, str]:
    files = {}
    for number, (kind, temperature) in enumerate(temperatures.items()):
        zone = f"sys/class/thermal/thermal_zone{number}"
        files[f"{zone}/type"] = kind.replace("_", "-") + "\n"
        files[f"{zone}/temp"] = temperature + "\n"
    return files


MONITOR = "sys/class/hwmon/hwmon3"
ORIN_NANO = {
    **zones(cpu_thermal="48562", gpu_thermal="49625", tj_thermal="49625", cv0_thermal="-256000"),
    f"{MONITOR}/name": "ina3221\n",
    f"{MONITOR}/in1_label": "VDD_IN\n",
    f"{MONITOR}/in1_input": "5016\n",
    f"{MONITOR}/curr1_input": "1048\n",
    f"{MONITOR}/in2_label": "VDD_CPU_GPU_CV\n",
    f"{MONITOR}/in2_input": "5008\n",
    f"{MONITOR}/curr2_input": "104\n",
    # A channel of the driver that is no rail.
    f"{MONITOR}/in7_label": "sum of shunt voltages\n",
    f"{MONITOR}/in7_input": "3\n",
    "sys/class/hwmon/hwmon0/name": "nvme\n",
    "sys/class/hwmon/hwmon0/in1_label": "VDD_NOT_OURS\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "305999999\n",
    "sys/class/devfreq/17000000.gpu/device/load": "437\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "1497600\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpufreq/boost": "1\n",
    "proc/meminfo": "MemTotal:  7803000 kB\nMemFree: 1 kB\nMemAvailable:  5800000 kB\n",
}


def test_the_files_of_an_orin(tmp_path: Path) -> None:
    sensors = JetsonSensors(write(tmp_path, ORIN_NANO))
    state = sensors.read()
    assert sensors.found
    assert state.temperatures_c == pytest.approx({"cpu": 48.562, "gpu": 49.625, "tj": 49.625})
    assert state.power_w == pytest.approx({"VDD_IN": 5.256768, "VDD_CPU_GPU_CV": 0.520832})
    assert (state.hottest_c, state.gpu_load, state.gpu_hz) == (49.625, 0.437, 305999999)
    assert state.cpu_hz == (729_600_000, 1_497_600_000)
    assert (state.memory_used_bytes, state.memory_bytes) == (2003000 << 10, 7803000 << 10)
    reading = sensors.reading()
    assert (reading.temperature_c, reading.power_w) == pytest.approx((49.625, 5.256768))


def test_the_files_of_a_thor(tmp_path: Path) -> None:
    # Its input monitor is a chip with one channel, in millionths of a watt.
    files = {
        **zones(cpu_thermal="53700", tj_thermal="55100"),
        f"{MONITOR}/name": "ina238\n",
        f"{MONITOR}/label": "VIN\n",
        f"{MONITOR}/power1_input": "19780000\n",
        "sys/class/devfreq/gpu-gpc-0/cur_freq": "314000000\n",
        "sys/class/devfreq/gpu-nvd-0/cur_freq": "900000000\n",
    }
    state = JetsonSensors(write(tmp_path, files)).read()
    assert state.power_w == {"VIN": pytest.approx(19.78)}
    assert (state.gpu_hz, state.gpu_load) == (314e6, None)


def test_the_driver_of_jetpack_4(tmp_path: Path) -> None:
    chip = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files = {
        f"{chip}/rail_name_0": "POM_5V_IN\n",
        f"{chip}/in_power0_input": "2710\n",
        f"{chip}/rail_name_1": "POM_5V_GPU\n",
        f"{chip}/in_power1_input": "41\n",
        "sys/devices/gpu.0/load": "1000\n",
    }
    state = JetsonSensors(write(tmp_path, files)).read()
    assert state.total_power_w == pytest.approx(2.71)
    assert state.gpu_load == 1.0


def test_sensors_that_go_away_or_talk_nonsense_are_left_out(tmp_path: Path) -> None:
    sensors = JetsonSensors(write(tmp_path, ORIN_NANO))
    (tmp_path / "sys/class/thermal/thermal_zone1/temp").unlink()
    (tmp_path / "sys/class/thermal/thermal_zone2/temp").write_text("")
    (tmp_path / MONITOR / "curr1_input").write_bytes(b"\xff\x00nan")
    (tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq").write_text("nan")
    state = sensors.read()
    assert set(state.temperatures_c) == {"cpu"}
    assert set(state.power_w) == {"VDD_CPU_GPU_CV"}
    assert state.gpu_hz is None


def test_zones_of_one_name_are_told_apart(tmp_path: Path) -> None:
    files = zones(acpitz="30000", x="1000")
    files["sys/class/thermal/thermal_zone1/type"] = "acpitz"
    assert JetsonSensors(write(tmp_path, files)).read().temperatures_c == {
        "acpitz": 30.0,
        "acpitz-2": 1.0,
    }


def test_a_machine_without_sensors(tmp_path: Path) -> None:
    sensors = JetsonSensors(tmp_path)
    assert not sensors.found
    assert sensors.read() == DeviceState()
    assert sensors.reading().temperature_c is None
    assert set(sensors.read().to_dict()) >= {"hottest_c", "total_power_w", "gpu_load"}


def test_this_machine_can_be_read() -> None:
    state = JetsonSensors().read()
    assert state.memory_bytes is None or state.memory_bytes > 1 << 20

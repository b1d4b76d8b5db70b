"""Rails of an INA3221 and RAPL's counters on made trees; energies against sums by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profiling.conditions import _timeline
from edge.profiling.power import (
    Energy,
    energy_of_counter_j,
    energy_of_power_j,
    find_counters,
    find_rails,
    total_of,
    unwrapped,
)
from edge.profiling.snapshot import Snapshot


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n", encoding="utf-8")


def ina3221(folder: Path, rails: dict[str, tuple[int, int]]) -> None:
    """A chip's folder: label -> millivolts and milliamperes, channel by channel."""
    write(folder / "name", "ina3221")
    for channel, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        write(folder / f"in{channel}_label", label)
        write(folder / f"in{channel}_input", millivolts)
        write(folder / f"curr{channel}_input", milliamperes)
    write(folder / "in7_label", "sum of shunt voltages")
    write(folder / "in7_input", 12)


ORIN_NANO = {"VDD_IN": (5000, 1140), "VDD_CPU_GPU_CV": (5000, 166), "VDD_SOC": (5000, 325)}


@pytest.mark.parametrize(
    "where", ["sys/class/hwmon/hwmon1", "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"]
)
def test_rails_of_an_orin_nano(tmp_path: Path, where: str) -> None:
    ina3221(tmp_path / where, ORIN_NANO)
    rails = {rail.name: rail.read_w() for rail in find_rails(tmp_path)}
    assert rails == pytest.approx({"VDD_IN": 5.7, "VDD_CPU_GPU_CV": 0.83, "VDD_SOC": 1.625})


def test_a_chip_that_is_reached_by_two_ways_counts_once(tmp_path: Path) -> None:
    ina3221(tmp_path / "sys/devices/i2c/hwmon/hwmon1", ORIN_NANO)
    for way in ("sys/class/hwmon/hwmon1", "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"):
        (tmp_path / way).parent.mkdir(parents=True)
        (tmp_path / way).symlink_to(tmp_path / "sys/devices/i2c/hwmon/hwmon1")
    assert [rail.name for rail in find_rails(tmp_path)] == list(ORIN_NANO)


def test_channels_that_are_not_connected_and_other_chips_are_left_out(tmp_path: Path) -> None:
    ina3221(tmp_path / "sys/class/hwmon/hwmon0", {"VDD_GPU_SOC": (5000, 100), "NC": (0, 0)})
    ina3221(tmp_path / "sys/class/hwmon/hwmon1", {"VIN_SYS_5V0": (5000, 200)})
    write(tmp_path / "sys/class/hwmon/hwmon2/name", "k10temp")
    write(tmp_path / "sys/class/hwmon/hwmon2/in1_label", "Vcore")
    assert [rail.name for rail in find_rails(tmp_path)] == ["VDD_GPU_SOC", "VIN_SYS_5V0"]


def test_a_rail_that_vanishes_reads_as_nothing(tmp_path: Path) -> None:
    ina3221(tmp_path / "sys/class/hwmon/hwmon1", ORIN_NANO)
    rails = find_rails(tmp_path)
    (tmp_path / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    write(tmp_path / "sys/class/hwmon/hwmon1/in2_input", "")
    assert [rail.read_w() for rail in rails][:2] == [None, None]


def rapl(root: Path, zone: str, name: str, microjoules: int) -> None:
    write(root / f"sys/class/powercap/{zone}/name", name)
    write(root / f"sys/class/powercap/{zone}/energy_uj", microjoules)
    write(root / f"sys/class/powercap/{zone}/max_energy_range_uj", 262_143_328_850)


def test_domains_of_rapl_bear_the_name_of_their_package(tmp_path: Path) -> None:
    rapl(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    rapl(tmp_path, "intel-rapl:0:0", "core", 3_000_000)
    rapl(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    rapl(tmp_path, "intel-rapl-mmio:0", "package-0", 5_000_000)
    counters = find_counters(tmp_path)
    assert {c.name: c.read_j() for c in counters} == {
        "package-0": 5,
        "package-0/core": 3,
        "package-0/dram": 1,
    }
    assert counters[0].range_j == pytest.approx(262_143.32885)


@pytest.mark.parametrize(
    ("names", "total"),
    [
        (("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"), ("VDD_IN",)),
        (("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU"), ("POM_5V_IN",)),
        (("VDD_GPU", "VIN"), ("VIN",)),
        (("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"), ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),
        (("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),
        (("package-0", "package-0/core", "package-0/dram"), ("package-0", "package-0/dram")),
        (("package-0", "psys"), ("psys",)),
        ((), ()),
    ],
)
def test_what_the_whole_machine_is(names: tuple[str, ...], total: tuple[str, ...]) -> None:
    assert total_of(names) == total


def test_a_counter_that_starts_again_goes_on() -> None:
    assert unwrapped([(0, 5.0), (1, 9.0), (2, 1.0), (3, 4.0)], 10) == [(0, 0), (1, 4), (2, 6), (3, 9)]
    assert unwrapped([], 10) == []


@given(st.lists(st.floats(0, 99), min_size=1, max_size=30), st.floats(0, 99))
def test_unwrapping_gives_back_any_counter(steps: list[float], start: float) -> None:
    true, series = start, [(0.0, start)]
    for second, step in enumerate(steps, start=1):
        true += step
        series.append((float(second), true % 100))
    assert unwrapped(series, 100)[-1][1] == pytest.approx(true - start, abs=1e-6)


RAMP = [(0.0, 10.0), (1.0, 10.0), (2.0, 20.0), (4.0, 20.0)]


@pytest.mark.parametrize(
    ("start_s", "end_s", "joules"),
    [(0, 1, 10), (0, 4, 65), (1, 2, 15), (1.5, 2, 8.75), (0.25, 0.75, 5), (3, 4, 20)],
)
def test_the_integral_of_power_by_hand(start_s: float, end_s: float, joules: float) -> None:
    assert energy_of_power_j(RAMP, start_s, end_s) == pytest.approx(joules)


@pytest.mark.parametrize("window", [(-1, 2), (3, 5), (2, 2), (3, 1)])
def test_no_energy_beyond_the_samples(window: tuple[float, float]) -> None:
    assert energy_of_power_j(RAMP, *window) is None
    assert energy_of_counter_j(RAMP, *window) is None
    assert energy_of_power_j(RAMP[:1], 0, 0) is None


def test_the_growth_of_a_counter() -> None:
    assert energy_of_counter_j([(0, 0.0), (1, 10.0), (2, 40.0)], 0.5, 1.5) == pytest.approx(20)


def test_energy_a_frame_names_its_rails() -> None:
    energy = Energy("INA3221", 100, 4.0, {"VDD_IN": 24.0, "VDD_SOC": 4.0}, ("VDD_IN",))
    assert energy.as_json() == {
        "source": "INA3221",
        "frames": 100,
        "seconds": 4.0,
        "total_is": ["VDD_IN"],
        "mean_w": {"VDD_IN": 6.0, "VDD_SOC": 1.0, "total": 6.0},
        "mj_a_frame": {"VDD_IN": 240.0, "VDD_SOC": 40.0, "total": 240.0},
    }


def test_without_one_of_its_rails_there_is_no_total() -> None:
    energy = Energy("INA3221", 10, 1.0, {"CPU": 1.0}, ("CPU", "GPU"))
    assert energy.total_j is None
    assert energy.as_json()["mj_a_frame"] == {"CPU": 100.0}


def test_a_sum_of_rails_is_not_told_of_a_moment_at_which_one_did_not_answer() -> None:
    shots = [Snapshot(0.0, 0.0, power_w={"CPU": 1.0, "GPU": 2.0}), Snapshot(1.0, 1.0, power_w={"CPU": 1.0})]
    rails = {name: [(0.0, 1.0)] for name in ("CPU", "GPU")}
    assert [moment["power_w"] for moment in _timeline(shots, rails)] == [3.0, None]

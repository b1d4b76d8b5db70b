"""Zones, clocks and throttling on made trees of a Jetson, a PC and a Raspberry Pi."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profiling import thermal


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n", encoding="utf-8")


def zone(root: Path, number: int, kind: str, millidegrees: int) -> Path:
    folder = root / f"sys/class/thermal/thermal_zone{number}"
    write(folder / "type", kind)
    write(folder / "temp", millidegrees)
    return folder


def test_zones_of_a_jetson(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", 46531)
    zone(tmp_path, 1, "gpu-thermal", 48218)
    zone(tmp_path, 2, "cv0-thermal", -256000)
    zone(tmp_path, 3, "PMIC-Die", 100000)
    zone(tmp_path, 10, "tj-thermal", 48843)
    zones = thermal.find_zones(tmp_path)
    assert thermal.read_temperatures_c(zones) == {"cpu": 46.531, "gpu": 48.218, "tj": 48.843}


def test_zones_of_one_type_are_numbered_and_amds_chip_is_found(tmp_path: Path) -> None:
    zone(tmp_path, 9, "acpitz", 20000)
    zone(tmp_path, 10, "acpitz", 21000)
    zone(tmp_path, 11, "", 22000)
    write(tmp_path / "sys/class/hwmon/hwmon3/name", "k10temp")
    write(tmp_path / "sys/class/hwmon/hwmon3/temp1_input", 55500)
    found = thermal.read_temperatures_c(thermal.find_zones(tmp_path))
    assert found == {"acpitz": 20, "acpitz#2": 21, "thermal_zone11": 22, "k10temp": 55.5}


def test_a_zone_that_vanishes_is_missing_from_the_next_reading(tmp_path: Path) -> None:
    zone(tmp_path, 0, "cpu-thermal", 40000)
    gone = zone(tmp_path, 1, "gpu-thermal", 41000)
    zones = thermal.find_zones(tmp_path)
    (gone / "temp").unlink()
    assert thermal.read_temperatures_c(zones) == {"cpu": 40}


def policy(root: Path, first: int, cores: str, khz: int, governor: str) -> None:
    """A cluster as cpufreq shows it: one folder, to which the cores' point."""
    folder = root / f"sys/devices/system/cpu/cpufreq/policy{first}"
    write(folder / "related_cpus", cores)
    write(folder / "scaling_cur_freq", khz)
    write(folder / "scaling_min_freq", 115200)
    write(folder / "scaling_max_freq", 1510400)
    write(folder / "scaling_governor", governor)
    for core in cores.split():
        own = root / f"sys/devices/system/cpu/cpu{core}"
        own.mkdir(parents=True)
        (own / "cpufreq").symlink_to(folder)


def test_clusters_the_gpu_and_the_memory_of_a_jetson(tmp_path: Path) -> None:
    policy(tmp_path, 0, "0 1 2 3", 1510400, "performance")
    policy(tmp_path, 4, "4 5", 729600, "schedutil")
    gpu = tmp_path / "sys/class/devfreq/17000000.gpu"
    for name, hertz in (("cur", 305_000_000), ("min", 305_000_000), ("max", 624_750_000)):
        write(gpu / f"{name}_freq", hertz)
    write(gpu / "governor", "nvhost_podgov")
    write(tmp_path / "sys/kernel/debug/bpmp/debug/clk/emc/rate", 2133000000)
    domains = thermal.find_domains(tmp_path)
    clocks = thermal.read_clocks_mhz(tmp_path, domains)
    assert clocks == {"cpu0-3": 1510.4, "cpu4-5": 729.6, "gpu": 305, "emc": 2133}
    assert {d.now.name: d.governor for d in domains if d.governor} == {
        "cpu0-3": "performance",
        "cpu4-5": "schedutil",
        "gpu": "nvhost_podgov",
    }
    assert [d.max_mhz for d in domains] == [1510.4, 1510.4, 624.75, None]


def test_gpus_are_known_by_their_node_and_thors_clusters_keep_their_names(tmp_path: Path) -> None:
    for name in ("gpu-gpc-0", "gpu-gpc-1"):
        write(tmp_path / f"sys/class/devfreq/{name}/cur_freq", 1_574_000_000)
    write(tmp_path / "sys/class/devfreq/57000000.host1x/device/of_node/name", "host1x")
    names = [domain.now.name for domain in thermal.find_domains(tmp_path)]
    assert names == ["57000000.host1x", "gpu:gpu-gpc-0", "gpu:gpu-gpc-1"]


def test_without_cpufreq_the_clocks_are_those_of_cpuinfo(tmp_path: Path) -> None:
    write(
        tmp_path / "proc/cpuinfo",
        "processor\t: 0\ncpu MHz\t\t: 2596.126\nprocessor\t: 1\ncpu MHz\t\t: 2400.0",
    )
    assert thermal.read_clocks_mhz(tmp_path, ()) == {"cpu0": 2596.1, "cpu1": 2400}


def test_counters_of_events_and_states_that_slow(tmp_path: Path) -> None:
    write(tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", 3)
    write(tmp_path / "sys/devices/system/cpu/cpu10/thermal_throttle/core_throttle_count", 0)
    write(tmp_path / "sys/class/hwmon/hwmon3/oc3_event_cnt", 27390)
    for number, (kind, state) in enumerate((("pwm-fan", 3), ("cpu-throttle-alert", 1), ("LCD", 9))):
        write(tmp_path / f"sys/class/thermal/cooling_device{number}/type", kind)
        write(tmp_path / f"sys/class/thermal/cooling_device{number}/cur_state", state)
    gauges = thermal.find_throttling(tmp_path)
    assert thermal.read_throttling(tmp_path, gauges) == {
        "count cpu0 core": 3,
        "count cpu10 core": 0,
        "count over-current oc3": 27390,
        "state cpu-throttle-alert": 1,
    }


def test_what_was_throttled_is_what_grew_or_holds() -> None:
    before = {"count cpu0 core": 3, "count over-current oc3": 7, "state gpu": 0}
    assert thermal.throttled(before, before) == ()
    later = {"count cpu0 core": 3, "count over-current oc3": 9, "state gpu": 1, "count new": 4}
    assert thermal.throttled(before, later) == ("over-current oc3: 2 events", "gpu")


def test_an_idle_power_clamp_says_minus_one() -> None:
    assert thermal.throttled({}, {"state intel_powerclamp": -1}) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("0", ()),
        ("50005\n", ("under-voltage", "throttled")),
        ("50000", ()),
        ("e000a", ("clock capped", "soft temperature limit")),
        ("8", ("soft temperature limit",)),
        ("?", ()),
    ],
)
def test_the_word_of_a_raspberry_pi(text: str, found: tuple[str, ...]) -> None:
    assert thermal.parse_pi_throttled(text) == found


def test_a_pi_that_is_throttled_says_so(tmp_path: Path) -> None:
    write(tmp_path / thermal.PI_THROTTLED, "4")
    assert thermal.read_throttling(tmp_path, ()) == {"state throttled": 1}


@given(st.text())
def test_no_text_of_the_kernel_raises(text: str) -> None:
    thermal.parse_pi_throttled(text)
    thermal.parse_cpu_mhz(text)

"""Conditions of a made Jetson and of this machine; which runs may be compared."""

from __future__ import annotations

import copy
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profiling.conditions import Sampler, _notes, comparable
from edge.profiling.snapshot import (
    Family,
    Jiffies,
    Sensors,
    Snapshot,
    parse_loadavg,
    parse_nvpmodel_query,
    parse_power_mode,
    parse_process,
    parse_stat,
)

ORIN_CONF = """\
< PM_CONFIG DEFAULT=1 >
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
"""
FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "proc/meminfo": "MemTotal: 7620300 kB\nMemAvailable: 4096000 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n",
    "proc/loadavg": "0.50 0.40 0.30 1/200 999\n",
    "proc/stat": "cpu  100 0 50 850 0 0 0 0 0 0\ncpu0 1 1 1 1\n",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "var/lib/nvpmodel/status": "pmode:0002",
    "etc/nvpmodel.conf": ORIN_CONF,
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
    "sys/class/thermal/thermal_zone0/temp": "46531",
    "sys/class/hwmon/hwmon1/name": "ina3221",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN",
    "sys/class/hwmon/hwmon1/in1_input": "5000",
    "sys/class/hwmon/hwmon1/curr1_input": "1200",
    "sys/devices/system/cpu/cpu0/cpufreq/related_cpus": "0 1 2 3 4 5",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "729600",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1728000",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return tmp_path


def wait_for(what: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 20
    while not what() and time.monotonic() < until_s:
        time.sleep(0.005)


def test_conditions_of_a_jetson(jetson: Path) -> None:
    with Sampler(0.01, jetson, tegrastats=None) as sampler:
        start_s = time.monotonic()
        time.sleep(0.05)
        end_s = time.monotonic()
    conditions = sampler.result(frames=10, steady_s=(start_s, end_s))
    found = json.loads(json.dumps(conditions.as_json()))
    assert found["machine"]["jetson"]["jetpack"] == "6.2"
    assert found["power_mode"] == "MAXN_SUPER (2)"
    assert found["governors"] == {"cpu0-5": "schedutil"}
    assert found["clock_limits_mhz"] == {"cpu0-5": [729.6, 1728.0]}
    assert found["clocks_mhz"]["cpu0-5"] == dict.fromkeys(
        ("before", "least", "mean", "most", "after"), 1728.0
    )
    assert found["temperatures_c"]["cpu"]["before"] == 46.531
    assert found["versions"]["kernel"] == "5.15.148-tegra"
    assert found["throttled"] == found["notes"] == []
    assert found["power_source"] == "INA3221"
    assert found["energy"]["total_is"] == ["VDD_IN"]
    assert found["energy"]["mean_w"]["total"] == pytest.approx(6.0)
    assert found["energy"]["mj_a_frame"]["total"] == pytest.approx(600 * (end_s - start_s), abs=1e-3)
    assert found["memory_mib"] == {
        "available_before": 4000.0,
        "available_least": 4000.0,
        "swapped_before": 1.0,
        "swapped_most": 1.0,
    }
    assert found["timeline"][-1]["power_w"] == 6.0


def test_sensors_that_vanish_in_mid_run_are_noted(jetson: Path) -> None:
    with Sampler(0.01, jetson, tegrastats=None) as sampler:
        start_s = time.monotonic()
        wait_for(lambda: len(sampler._snapshots) >= 3)
        (jetson / "sys/class/hwmon/hwmon1/curr1_input").unlink()
        (jetson / "sys/class/thermal/thermal_zone0/temp").write_text("garbage", encoding="utf-8")
        time.sleep(0.03)
        end_s = time.monotonic()
    conditions = sampler.result(frames=10, steady_s=(start_s, end_s))
    found = conditions.as_json()
    assert conditions.energy is None
    assert [note.split(" did not answer")[0] for note in found["notes"]] == ["cpu", "VDD_IN"]
    assert found["temperatures_c"]["cpu"]["after"] is None
    assert found["timeline"][-1]["power_w"] is None


def test_throttling_on_the_way_is_seen_even_if_it_is_over_at_the_end(jetson: Path) -> None:
    state = jetson / "sys/class/thermal/cooling_device0/cur_state"
    state.parent.mkdir(parents=True)
    state.write_text("0", encoding="utf-8")
    (state.parent / "type").write_text("gpu-throttle-alert", encoding="utf-8")
    with Sampler(0.01, jetson, tegrastats=None) as sampler:
        state.write_text("1", encoding="utf-8")
        wait_for(lambda: any(s.throttling.get("state gpu-throttle-alert") for s in list(sampler._snapshots)))
        state.write_text("0", encoding="utf-8")
    assert sampler.result().throttled == ("gpu-throttle-alert",)


def test_a_counter_is_reported_once_with_its_last_word(jetson: Path) -> None:
    count = jetson / "sys/class/hwmon/hwmon2/oc3_event_cnt"
    count.parent.mkdir(parents=True)
    count.write_text("100", encoding="utf-8")
    with Sampler(0.005, jetson, tegrastats=None) as sampler:
        for value in (101, 103):
            count.write_text(str(value), encoding="utf-8")
            seen = len(sampler._snapshots)
            wait_for(lambda seen=seen: len(sampler._snapshots) > seen)  # type: ignore[misc]
    assert sampler.result().throttled == ("over-current oc3: 3 events",)


def test_tegrastats_fills_in_what_sysfs_hides(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon1/name").unlink()
    script = jetson / "tegrastats.py"
    line = "EMC_FREQ 4%@2133 GR3D_FREQ 0%@[305] cpu@46.531C VDD_IN 5704mW/5704mW"
    script.write_text(f"import time\nprint({line!r}, flush=True)\ntime.sleep(60)\n", encoding="utf-8")
    with Sampler(0.01, jetson, tegrastats=(sys.executable, str(script))) as sampler:
        wait_for(lambda: any(shot.power_w for shot in list(sampler._snapshots)))
    found = sampler.result().as_json()
    assert found["power_source"] == "tegrastats"
    assert found["clocks_mhz"]["emc"]["most"] == 2133
    assert found["clocks_mhz"]["gpu"]["most"] == 305


def test_thors_total_comes_from_tegrastats_and_its_rails_from_sysfs(jetson: Path) -> None:
    (jetson / "sys/class/hwmon/hwmon1/in1_label").write_text("VDD_GPU", encoding="utf-8")
    script = jetson / "tegrastats.py"
    line = "VDD_GPU 6330mW/6330mW/6330mW VIN 28906mW/14453mW/28906mW"
    script.write_text(f"import time\nprint({line!r}, flush=True)\ntime.sleep(60)\n", encoding="utf-8")
    with Sampler(0.01, jetson, tegrastats=(sys.executable, str(script))) as sampler:
        wait_for(lambda: any("VIN" in shot.power_w for shot in list(sampler._snapshots)))
    found = sampler.result().as_json()
    assert found["power_source"] == "INA3221 and tegrastats"
    assert sampler._snapshots[-1].power_w == {"VDD_GPU": 6.0, "VIN": 28.906}
    assert found["timeline"][-1]["power_w"] == 28.906


def test_rapl_that_only_root_may_read_is_said(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0", encoding="utf-8")
    (zone / "max_energy_range_uj").write_text("262143328850", encoding="utf-8")
    with Sampler(60, tmp_path, tegrastats=None) as sampler:
        pass
    conditions = sampler.result()
    assert conditions.power_source == ""
    assert "only root may read it" in conditions.notes[0]


def test_energy_of_rapl_goes_on_past_the_end_of_its_counter(tmp_path: Path) -> None:
    zone = tmp_path / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0", encoding="utf-8")
    (zone / "max_energy_range_uj").write_text("100000000", encoding="utf-8")
    (zone / "energy_uj").write_text("99000000", encoding="utf-8")
    with Sampler(60, tmp_path, tegrastats=None) as sampler:
        (zone / "energy_uj").write_text("2000000", encoding="utf-8")
    shots = sampler._snapshots
    energy = sampler.result(frames=3, steady_s=(shots[0].t_s, shots[-1].t_s)).energy
    assert energy is not None
    assert energy.total_j == pytest.approx(3.0)
    assert energy.source == "RAPL"


def test_an_hour_on_both_clocks_is_no_step() -> None:
    shots = [Snapshot(0.0, 1e9), Snapshot(3600.0, 1e9 + 3600.5)]
    assert not any("stepped" in note for note in _notes(shots, Sensors.find(Path("/nowhere")), ""))


def test_a_stepped_clock_is_noted(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walls = iter((1000.0, 1000.0 - 3600))
    with monkeypatch.context() as patch:
        patch.setattr("edge.profiling.snapshot.time.time", lambda: next(walls))
        with Sampler(60, jetson, tegrastats=None) as sampler:
            pass
    (note,) = sampler.result().notes
    # The made clock stood still in between, for as long as the two readings took.
    assert re.fullmatch(r"the clock on the wall was stepped by -360\d\.\d s; .* monotonic", note)


def test_a_long_run_keeps_its_ends_and_a_bounded_number(
    jetson: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.profiling.conditions.SNAPSHOTS", 4)
    with Sampler(0.001, jetson, tegrastats=None) as sampler:
        first = sampler._snapshots[0]
        wait_for(lambda: sampler._interval_s >= 0.004)
    assert sampler._snapshots[0] is first
    assert len(sampler._snapshots) <= 6


def test_this_machine_can_be_sampled_and_compared_with_itself() -> None:
    with Sampler(0.02) as sampler:
        sum(range(500_000))
    found = sampler.result().as_json()
    assert found["load"]["ours"] >= 0
    assert found["seconds"] >= 0
    assert comparable(found, found) == [
        f"{run} was throttled: {', '.join(found['throttled'])}." for run in "AB" if found["throttled"]
    ]


def test_a_driver_that_raises_does_not_end_the_run(jetson: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no such sensor")

    monkeypatch.setattr("edge.profiling.snapshot.Sensors.read", fail)
    with Sampler(60, jetson, tegrastats=None) as sampler:
        pass
    assert "a reading failed: no such sensor" in sampler.result().notes


# -- comparing ------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "machine": {
        "os": "Ubuntu 22.04.5 LTS",
        "architecture": "aarch64",
        "cpu": "Cortex-A78AE",
        "cores": 6,
        "jetson": {"model": "Orin Nano", "l4t": "36.4.3", "jetpack": "6.2"},
    },
    "versions": {"kernel": "5.15.148-tegra", "sightline": "0.1.0", "numpy": "2.2.6", "tensorrt": "10.3.0"},
    "power_mode": "MAXN_SUPER (2)",
    "governors": {"cpu0-5": "performance"},
    "clock_limits_mhz": {"cpu0-5": [729.6, 1728.0]},
    "clocks_mhz": {"cpu0-5": {"mean": 1728.0}, "gpu": {"mean": 1020.0}},
    "throttled": [],
    "load": {"ours": 0.4, "others": 0.02, "stolen": 0.0},
}


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("machine", "cpu"), "Cortex-A76", "The cpu is Cortex-A78AE in A and Cortex-A76 in B."),
        (("machine", "jetson", "jetpack"), "6.1", "The JetPack is 6.2 in A and 6.1 in B."),
        (("machine", "jetson"), None, "The board is Orin Nano in A and not known in B."),
        (("power_mode",), "15W (0)", "The power mode is MAXN_SUPER (2) in A and 15W (0) in B."),
        (
            ("governors", "cpu0-5"),
            "schedutil",
            "The governor of cpu0-5 is performance in A and schedutil in B.",
        ),
        (("throttled",), ["gpu"], "B was throttled: gpu."),
        (("clocks_mhz", "gpu", "mean"), 900.0, "The mean gpu clock is 1020 MHz in A and 900 MHz in B."),
        (
            ("clock_limits_mhz", "cpu0-5"),
            [729.6, 1500.0],
            "The highest cpu clock allowed is 1728 MHz in A and 1500 MHz in B.",
        ),
        (("load", "others"), 0.5, "Load: other processes took 2% of the machine in A and 50% in B."),
        (("load", "stolen"), 0.5, "Load: the host took 0% of the machine in A and 50% in B."),
        (("versions", "numpy"), "2.3.0", "The version of numpy is 2.2.6 in A and 2.3.0 in B."),
    ],
)
def test_reasons_not_to_compare(path: tuple[str, ...], value: object, reason: str) -> None:
    other = copy.deepcopy(RUN)
    part = other
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    assert comparable(RUN, RUN) == []
    assert comparable(RUN, other)[0] == reason


def test_small_differences_and_another_sightline_may_be_compared() -> None:
    other = copy.deepcopy(RUN)
    other["versions"]["sightline"] = "0.2.0"
    other["clocks_mhz"]["gpu"]["mean"] = 990.0
    other["load"]["others"] = 0.1
    assert comparable(RUN, other) == []
    assert comparable(RUN, other, clock_tolerance=0.01) != []


def test_runs_without_conditions_are_not_compared() -> None:
    assert comparable({}, {}) == ["Neither run has conditions."]
    assert comparable(RUN, {}) == ["Conditions are known of only one of the runs."]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*RUN, "jetson", "mean", "cpu"]), inner)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from(list(RUN)), json_values),
    st.dictionaries(st.sampled_from(list(RUN)), json_values),
)
def test_no_damaged_conditions_raise(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert all(isinstance(reason, str) for reason in comparable(a, b) + comparable(RUN, b))


# -- parsers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "conf", "mode"),
    [
        ("pmode:0002", ORIN_CONF, "MAXN_SUPER (2)"),
        ("pmode:0000 fmode:fanNull\n", ORIN_CONF, "15W (0)"),
        ("", ORIN_CONF, "25W (1)"),
        ("pmode:0007", ORIN_CONF, "mode 7"),
        ("pmode:0007", "", "mode 7"),
        ("", "", ""),
    ],
)
def test_power_mode(status: str, conf: str, mode: str) -> None:
    assert parse_power_mode(status, conf) == mode


def test_what_nvpmodel_prints() -> None:
    assert parse_nvpmodel_query("NV Power Mode: MODE_15W\n0\n") == "MODE_15W (0)"
    assert parse_nvpmodel_query("NVPM ERROR: no such file") == ""


def test_ticks_of_the_machine() -> None:
    stat = "cpu  346963 201945 40811 231050 783 1 229 664 0 0\ncpu0 1 2 3 4\n"
    busy = 346963 + 201945 + 40811 + 1 + 229
    assert parse_stat(stat) == (busy + 231050 + 783 + 664, busy, 664)
    assert parse_stat("intr 1 2 3") == (0, 0, 0)


def test_ticks_of_a_process_whose_name_holds_brackets() -> None:
    stat = "42 (a) b (c) S 7 1 1 0 -1 4194304 101 0 0 0 10 20 3 4 20 0 1 0 412642 3133440 411"
    process = parse_process(stat)
    assert process is not None
    assert (process.parent, process.ticks) == (7, 37)
    assert parse_process("") is None
    assert parse_process("42 (a) S x") is None


def test_children_count_as_ours(tmp_path: Path) -> None:
    rows = {10: (1, 5), 11: (10, 7), 12: (11, 9), 13: (1, 100)}
    for pid, (parent, ticks) in rows.items():
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        line = f"{pid} (x) S {parent} 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 1 1 1\n"
        (tmp_path / f"proc/{pid}/stat").write_text(line, encoding="utf-8")
    assert Family(tmp_path, 10).ticks() == 21
    assert Family(tmp_path / "nothing", 10).ticks() == 0
    assert Family(Path("/"), os.getpid()).ticks() >= 0


def test_shares_of_the_machine() -> None:
    before, after = Jiffies(1000, 400, 0, 100), Jiffies(1200, 500, 20, 160)
    assert after.shares_since(before) == (0.3, 0.2, 0.1)
    assert before.shares_since(before) == (0, 0, 0)
    assert Jiffies(10, 3, 0, 4).shares_since(Jiffies()) == (0.4, 0, 0), (
        "a tick of ours is seen before it is in the sum"
    )


@given(st.text())
def test_no_text_of_the_kernel_raises(text: str) -> None:
    parse_stat(text)
    parse_process(text)
    parse_loadavg(text)
    parse_power_mode(text, text)
    parse_nvpmodel_query(text)

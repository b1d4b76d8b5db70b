"""The parser of tegrastats, on lines of boards from the Nano to Thor, verbatim, and on garbage."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profiling.tegrastats import Core, Stats, Tegrastats, parse

NANO_JP461 = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) "
    "CPU [5%@1224,4%@1224,3%@1224,6%@1224] EMC_FREQ 0%@1600 GR3D_FREQ 0%@76 APE 25 PLL@37C CPU@40C "
    "PMIC@50C GPU@40C AO@45C thermal@40C POM_5V_IN 1750/1628 POM_5V_GPU 0/0 POM_5V_CPU 366/406"
)
AGX_XAVIER_JP42 = (
    "RAM 14700/15692MB (lfb 3x2MB) SWAP 898/8192MB (cached 23MB) "
    "CPU [0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190,0%@1190] EMC_FREQ 0% GR3D_FREQ 0% "
    "AO@30C GPU@30.5C Tboard@31C Tdiode@32C AUX@30.5C CPU@31.5C thermal@30.8C PMIC@100C GPU 463/463 "
    "CPU 618/618 SOC 2936/2936 CV 0/0 VDDRQ 309/309 SYS5V 3306/3306"
)
XAVIER_NX_JP4 = (
    "RAM 5246/7771MB (lfb 7x4MB) SWAP 983/20269MB (cached 280MB) "
    "CPU [47%@1420,23%@1420,32%@1420,22%@1420,31%@1420,96%@1420] EMC_FREQ 2%@1600 GR3D_FREQ 0%@1109 APE 150 "
    "MTS fg 1% bg 9% AO@29C GPU@31.5C PMIC@100C AUX@30C CPU@33.5C thermal@31.35C VDD_IN 6140/5510 "
    "VDD_CPU_GPU_CV 2706/2119 VDD_SOC 1074/1051"
)
XAVIER_NX_JP512 = (
    "07-09-2024 13:31:31 RAM 3168/6851MB (lfb 2x4MB) SWAP 161/3426MB (cached 0MB) "
    "CPU [23%@1397,17%@1192,16%@1190,13%@1190,23%@1190,10%@1190] EMC_FREQ 2%@204 GR3D_FREQ 0%@[114] "
    "VIC_FREQ 115 APE 150 AUX@45C CPU@46.5C thermal@45.6C AO@45C GPU@45.5C PMIC@50C VDD_IN 2763mW/2846mW "
    "VDD_CPU_GPU_CV 650mW/670mW VDD_SOC 650mW/711mW"
)
ORIN_NANO_JP6 = (
    "11-30-2025 13:26:01 RAM 2461/7620MB (lfb 3x2MB) SWAP 1243/3810MB (cached 5MB) "
    "CPU [19%@729,14%@729,22%@729,8%@729,15%@729,17%@729] EMC_FREQ 4%@2133 GR3D_FREQ 0%@[305] NVDEC off "
    "NVJPG off NVJPG1 off VIC off OFA off APE 200 cpu@46.531C soc2@47.312C soc0@46.593C gpu@48.218C "
    "tj@48.843C soc1@48.843C VDD_IN 5704mW/5704mW VDD_CPU_GPU_CV 831mW/831mW VDD_SOC 1624mW/1624mW"
)
AGX_ORIN_JP72 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB (lfb 1x2MB) CPU [23%@2201,10%@2201,…] EMC_FREQ 3%@3199 "
    "GR3D_FREQ 12%@[1300,1300] NVENC0 off NVDEC0 off … APE 174 cpu@52.968C/52.968C soc2@48.406C/48.406C "
    "gpu@47.625C/47.625C VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 3268mW/3268mW/3268mW "
    "VIN_SYS_5V0 5500mW/5500mW/5500mW"
)
THOR_R39 = (
    "08-08-2026 20:58:23 RAM 3429/125749MB (lfb 120x4MB) CPU [0%,5%,off]@2601 EMC_FREQ @4266 "
    "GR3D_FREQ @[1574,1574,1574] cpu@49.75C/49.75C tj@51.218C/51.218C gpu@51.218C/51.218C "
    "VDD_GPU 6330mW/6330mW/6330mW VIN 28906mW/14453mW/28906mW"
)
LINES = (NANO_JP461, AGX_XAVIER_JP42, XAVIER_NX_JP4, XAVIER_NX_JP512, ORIN_NANO_JP6, AGX_ORIN_JP72, THOR_R39)


def test_nano_of_jetpack_4() -> None:
    assert parse(NANO_JP461) == Stats(
        ram_mb=(1923, 3964),
        swap_mb=(191, 1982),
        cores=tuple(Core(load, 1224) for load in (5, 4, 3, 6)),
        emc_percent=0,
        emc_mhz=1600,
        gpu_percent=0,
        gpu_mhz=(76,),
        engines={"APE": 25},
        temperatures_c={"PLL": 37, "CPU": 40, "PMIC": 50, "GPU": 40, "AO": 45, "thermal": 40},
        rails_mw={"POM_5V_IN": 1750, "POM_5V_GPU": 0, "POM_5V_CPU": 366},
        rails_mean_mw={"POM_5V_IN": 1628, "POM_5V_GPU": 0, "POM_5V_CPU": 406},
    )


def test_agx_xavier_has_rails_named_like_its_processors_and_no_clocks() -> None:
    stats = parse(AGX_XAVIER_JP42)
    assert (stats.emc_percent, stats.emc_mhz, stats.gpu_percent, stats.gpu_mhz) == (0, None, 0, ())
    assert stats.temperatures_c["GPU"] == 30.5
    assert stats.rails_mw == {"GPU": 463, "CPU": 618, "SOC": 2936, "CV": 0, "VDDRQ": 309, "SYS5V": 3306}
    assert len(stats.cores) == 8
    assert stats.engines == {}


def test_xavier_nx_of_jetpack_4() -> None:
    stats = parse(XAVIER_NX_JP4)
    assert stats.time == ""
    assert stats.rails_mw == {"VDD_IN": 6140, "VDD_CPU_GPU_CV": 2706, "VDD_SOC": 1074}
    assert stats.rails_mean_mw["VDD_IN"] == 5510
    assert stats.cores[5] == Core(96, 1420)
    assert stats.engines == {"APE": 150}


def test_xavier_nx_of_jetpack_5() -> None:
    stats = parse(XAVIER_NX_JP512)
    assert stats.time == "07-09-2024 13:31:31"
    assert (stats.emc_percent, stats.emc_mhz, stats.gpu_mhz) == (2, 204, (114,))
    assert stats.engines == {"VIC": 115, "APE": 150}
    assert stats.rails_mw == {"VDD_IN": 2763, "VDD_CPU_GPU_CV": 650, "VDD_SOC": 650}


def test_orin_nano_of_jetpack_6() -> None:
    stats = parse(ORIN_NANO_JP6)
    assert stats.ram_mb == (2461, 7620)
    assert stats.engines == {"NVDEC": 0, "NVJPG": 0, "NVJPG1": 0, "VIC": 0, "OFA": 0, "APE": 200}
    assert stats.temperatures_c["tj"] == 48.843
    assert stats.rails_mw["VDD_IN"] == 5704


def test_agx_orin_of_jetpack_7_has_two_gpu_clusters_and_a_third_figure_by_rail() -> None:
    stats = parse(AGX_ORIN_JP72)
    assert stats.swap_mb is None
    assert (stats.gpu_percent, stats.gpu_mhz) == (12, (1300, 1300))
    assert stats.cores[:2] == (Core(23, 2201), Core(10, 2201))
    assert stats.temperatures_c == {"cpu": 52.968, "soc2": 48.406, "gpu": 47.625}
    assert stats.rails_mw == {"VDD_GPU_SOC": 5139, "VDD_CPU_CV": 3268, "VIN_SYS_5V0": 5500}


def test_thor_has_one_clock_for_all_cores_and_no_load_of_the_gpu() -> None:
    stats = parse(THOR_R39)
    assert stats.cores == (Core(0, 2601), Core(5, 2601), Core(None, None))
    assert (stats.emc_percent, stats.emc_mhz) == (None, 4266)
    assert (stats.gpu_percent, stats.gpu_mhz) == (None, (1574, 1574, 1574))
    assert stats.rails_mw == {"VDD_GPU": 6330, "VIN": 28906}
    assert stats.rails_mean_mw["VIN"] == 14453


@given(st.text())
def test_any_text_gives_stats(text: str) -> None:
    assert isinstance(parse(text), Stats)


@given(st.sampled_from(LINES), st.data())
def test_a_damaged_line_gives_what_could_be_read(line: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    until = data.draw(st.integers(at, len(line)))
    stats = parse(line[:at] + data.draw(st.text(max_size=20)) + line[until:])
    for part in fields(Stats):
        assert getattr(stats, part.name) is None or isinstance(
            getattr(stats, part.name), str | tuple | dict | float
        )


@given(st.sampled_from(LINES), st.data())
def test_a_line_cut_off_keeps_the_fields_before_the_cut(line: str, data: st.DataObject) -> None:
    whole, words = parse(line), line.split(" ")
    cut = parse(" ".join(words[: data.draw(st.integers(0, len(words)))]))
    assert cut.temperatures_c.items() <= whole.temperatures_c.items()
    assert cut.rails_mw.items() <= whole.rails_mw.items()
    assert cut.ram_mb in (None, whole.ram_mb)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5000)), min_size=1, max_size=16))
def test_cores_come_back_as_written(cores: list[tuple[int, int]]) -> None:
    line = f"CPU [{','.join(f'{load}%@{mhz}' for load, mhz in cores)}] EMC_FREQ 0%"
    assert parse(line).cores == tuple(Core(load, mhz) for load, mhz in cores)


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    script = tmp_path / "tegrastats.py"
    script.write_text(
        f"import time\nprint({ORIN_NANO_JP6!r}, flush=True)\ntime.sleep(60)\n", encoding="utf-8"
    )
    return script


def test_the_child_is_read_and_ended(fake: Path) -> None:
    reader = Tegrastats((sys.executable, str(fake)))
    assert reader.latest is None
    reader.start()
    until_s = time.monotonic() + 20
    while reader.latest is None and time.monotonic() < until_s:
        time.sleep(0.01)
    reader.stop()
    assert reader.latest == parse(ORIN_NANO_JP6)


def test_without_tegrastats_there_is_nothing_to_read() -> None:
    reader = Tegrastats(("no-such-program-of-ours",))
    reader.start()
    reader.stop()
    assert reader.latest is None

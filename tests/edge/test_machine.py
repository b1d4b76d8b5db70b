"""Parsers of what Linux and NVIDIA's BSP write, on lines from real machines."""

from __future__ import annotations

import pytest

from edge.machine import (
    JETPACKS,
    parse_cpu,
    parse_jetson,
    parse_l4t,
    parse_memory_gib,
    parse_os_release,
    this_machine,
)

XAVIER_JP512 = (
    "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, "
    "DATE: Tue Aug  1 19:57:35 UTC 2023\n"
)
ORIN_JP60 = (
    "# R36 (release), REVISION: 3.0, GCID: 36923193, BOARD: generic, EABI: aarch64, "
    "DATE: Fri Jul 19 23:24:25 UTC 2024\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n"
)
ORIN_JP61 = ORIN_JP60.replace("3.0, GCID: 36923193", "4.0, GCID: 37537400")
ORIN_JP621 = ORIN_JP60.replace("3.0, GCID: 36923193", "4.7, GCID: 42132812")
THOR_JP70 = (
    "# R38 (release), REVISION: 2.2, GCID: 42205042, BOARD: generic, EABI: aarch64, "
    "DATE: Thu Sep 25 22:47:11 UTC 2025\n# KERNEL_VARIANT: oot\n"
)
ORIN_NANO = "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0"


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack", "supported"),
    [
        (XAVIER_JP512, "35.4.1", "5.1.2", False),
        (ORIN_JP60, "36.3.0", "6.0", False),
        (ORIN_JP61, "36.4.0", "6.1", True),
        (ORIN_JP621, "36.4.7", "6.2.1", True),
        (THOR_JP70, "38.2.2", "7.0", True),
    ],
)
def test_jetpack_from_the_release_line(release: str, l4t: str, jetpack: str, supported: bool) -> None:
    jetson = parse_jetson(ORIN_NANO, release)
    assert jetson is not None
    assert (jetson.l4t, jetson.jetpack, jetson.supported) == (l4t, jetpack, supported)
    assert jetson.model == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"


def test_an_l4t_that_came_after_this_table_is_supported_without_a_name() -> None:
    jetson = parse_jetson(ORIN_NANO, THOR_JP70.replace("R38", "R41"))
    assert jetson is not None
    assert jetson.jetpack == ""
    assert jetson.supported


def test_a_container_that_hides_the_release_file_is_still_a_jetson() -> None:
    jetson = parse_jetson(ORIN_NANO, "")
    assert jetson is not None
    assert jetson.l4t == ""
    assert jetson.supported


@pytest.mark.parametrize("model", ["", "Raspberry Pi 5 Model B Rev 1.0\0", "linux,dummy-virt\0"])
def test_other_boards_are_no_jetson(model: str) -> None:
    assert parse_jetson(model, "") is None


def test_a_text_that_is_no_release_line_gives_no_l4t() -> None:
    assert parse_l4t("R36 revision 4") == ""


def test_the_table_is_in_the_form_that_the_parser_gives() -> None:
    for l4t in JETPACKS:
        major, _, rest = l4t.partition(".")
        assert parse_l4t(f"# R{major} (release), REVISION: {rest}, GCID: 0") == l4t


def test_x86_processors_name_themselves() -> None:
    cpuinfo = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.00GHz\n"
    assert parse_cpu(cpuinfo) == "Intel(R) Xeon(R) CPU @ 2.00GHz"


def test_arm_processors_are_known_by_their_part_number() -> None:
    orin = (
        "processor\t: 0\nBogoMIPS\t: 62.50\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd42\n"
    )
    assert parse_cpu(orin) == "Cortex-A78AE"
    assert parse_cpu(orin.replace("0xd42", "0xfff")) == ""


def test_memory_is_counted_in_gibibytes() -> None:
    assert parse_memory_gib("MemTotal:        7620300 kB\nMemFree:          160084 kB\n") == 7.3
    assert parse_memory_gib("") == 0.0


def test_the_system_gives_its_own_name() -> None:
    release = 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\nVERSION_ID="22.04"\n'
    assert parse_os_release(release) == "Ubuntu 22.04.5 LTS"
    assert parse_os_release("PRETTY_NAME=Alpine\n") == "Alpine"


def test_this_machine_can_be_read() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.cpu
    assert machine.os

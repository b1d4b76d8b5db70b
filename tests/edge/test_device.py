"""`sightline doctor` on the files of machines that are not here: whole Jetsons, bare and broken ones."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import device
from edge.device import (
    Account,
    group_name,
    installed,
    kernel_clock_is_synchronised,
    look_at_clock,
    look_at_device,
    look_at_disk,
)
from edge.doctor import examine, judge
from edge.finding import Finding, guarded
from edge.machine import this_machine

ORIN_JP62 = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n"
)
THOR_JP72 = ORIN_JP62.replace("R36 (release), REVISION: 4.3", "R39 (release), REVISION: 2.0")
DPKG = """\
Package: libnvinfer10
Status: install ok installed
Priority: optional
Section: multiverse/devel
Maintainer: cudatools <cudatools@nvidia.com>
Architecture: arm64
Source: tensorrt
Version: 10.3.0.30-1+cuda12.5
Depends: libcudla-12-6, cuda-nvrtc-12-6
Description: TensorRT runtime libraries

Package: libnvinfer8
Status: deinstall ok config-files
Version: 8.6.2.3-1+cuda12.2

Package: python3-libnvinfer
Status: install ok installed
Version: 10.3.0.30-1+cuda12.5
"""
NVIDIA = "usr/lib/aarch64-linux-gnu"
ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "etc/nv_tegra_release": ORIN_JP62,
    "etc/group": "root:x:0:\nvideo:x:44:ubuntu\n",
    "var/lib/dpkg/status": DPKG,
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    f"{NVIDIA}/nvidia/libnvdla_compiler.so": "\x7fELF",
    "etc/nvpmodel.conf": (
        "< PM_CONFIG DEFAULT=1 >\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"
    ),
    "var/lib/nvpmodel/status": "pmode:0002",
    "tmp/argus_socket": "",
    "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
    "sys/class/video4linux/video0/index": "0\n",
    "sys/class/video4linux/video1/name": "HD Pro Webcam C920\n",
    "sys/class/video4linux/video1/index": "0\n",
    "sys/class/video4linux/video2/name": "HD Pro Webcam C920\n",
    "sys/class/video4linux/video2/index": "1\n",
    "dev/video0": "",
    "dev/video1": "",
    "dev/video2": "",
    "usr/lib/python3/dist-packages/gi/__init__.py": "",
    f"{NVIDIA}/girepository-1.0/Gst-1.0.typelib": "GOBJ",
    **{
        f"{NVIDIA}/gstreamer-1.0/{file.replace('*', '')}": "\x7fELF"
        for file, _ in (*device.PLUGINS.values(), *device.JETSON_PLUGINS.values())
    },
}
EVERYONE = Account(uid=4242, gids=frozenset({os.getegid()}))


def machine_at(folder: Path, changes: dict[str, str | None] | None = None) -> Path:
    """A root with an Orin's files; a change to None removes one."""
    for name, content in (ORIN | (changes or {})).items():
        if content is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    for node in folder.glob("dev/video*"):
        node.chmod(0o660)
    return folder


def findings(root: Path, account: Account = EVERYONE) -> dict[str, Finding]:
    found = list(look_at_device(this_machine(root), root, account))
    assert len({finding.part for finding in found}) == len(found)
    return {finding.part: finding for finding in found}


def test_a_whole_orin_has_no_fault(tmp_path: Path) -> None:
    found = findings(machine_at(tmp_path))
    del found["clock"], found["disk"]  # of the machine that runs the test
    assert {part: finding.state for part, finding in found.items()} == {
        "CUDA": "ok",
        "TensorRT packages": "ok",
        "libnvdla": "ok",
        "CSI cameras": "ok",
        "power mode": "ok",
        "camera /dev/video1": "ok",
        "GStreamer": "ok",
    }
    assert found["CUDA"].found == "12.6.11"
    assert found["power mode"].found == "MAXN_SUPER (2)"
    assert found["CSI cameras"].found == "imx219 9-0010"
    assert not any(finding.fix for finding in found.values())


@pytest.mark.parametrize(
    ("changes", "part", "state", "cause", "fix"),
    [
        (
            {"usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.0.0"}}'},
            "CUDA", "problem", "made for CUDA 12", "jetpack6",
        ),
        ({"usr/local/cuda/version.json": None}, "CUDA", "absent", "/usr/local/cuda", "nvidia-jetpack"),
        (
            {"var/lib/dpkg/status": DPKG.partition("Package: python3")[0]},
            "TensorRT packages", "problem", "python3-libnvinfer is missing", "python3-libnvinfer",
        ),
        (
            {"var/lib/dpkg/status": DPKG.replace("10.3.0.30-1+cuda12.5", "10.7.0.23-1+cuda12.6", 1)},
            "TensorRT packages", "problem", "10.7.0.23", "library's version",
        ),
        ({"var/lib/dpkg/status": None}, "TensorRT packages", "absent", "libnvinfer", "nvidia-jetpack"),
        (
            {f"{NVIDIA}/nvidia/libnvdla_compiler.so": None},
            "libnvdla", "problem", "import tensorrt", "nvidia-l4t-dla-compiler",
        ),
        (
            {f"{NVIDIA}/nvidia/libnvdla_compiler.so": ""},
            "libnvdla", "problem", "host had none", "On the host",
        ),
        (
            {f"{NVIDIA}/nvidia/libnvdla_compiler.so": None, "etc/nv_tegra_release": THOR_JP72},
            "libnvdla", "absent", "JetPack 7.2 ships no", "jetpack7.Dockerfile",
        ),
        ({"tmp/argus_socket": None}, "CSI cameras", "problem", "imx219", "restart nvargus-daemon"),
        (
            {"tmp/argus_socket": None, "sys/class/video4linux/video0/name": None},
            "CSI cameras", "absent", "no sensor", "jetson-io",
        ),
        ({"var/lib/nvpmodel/status": "pmode:0000"}, "power mode", "ok", "15W (0)", "nvpmodel -m 2"),
        (
            {"var/lib/nvpmodel/status": None, "etc/nvpmodel.conf": None},
            "power mode", "absent", "hidden", "-v /etc/nvpmodel.conf",
        ),
        ({"dev/video1": None}, "camera /dev/video1", "problem", "is missing", "--device /dev/video1"),
        (
            {"sys/class/video4linux/video1/name": None, "sys/class/video4linux/video1/index": "1"},
            "cameras", "absent", "no V4L2 camera", "--device",
        ),
        (
            {f"{NVIDIA}/gstreamer-1.0/libgstnvvidconv.so": ""},
            "GStreamer", "absent", "nvvidconv", "nvidia-l4t-gstreamer",
        ),
        (
            {"usr/lib/python3/dist-packages/gi/__init__.py": None},
            "GStreamer", "absent", "PyGObject", "python3-gi",
        ),
    ],
)  # fmt: skip
def test_each_fault_has_its_cause_and_its_fix(
    tmp_path: Path, changes: dict[str, str | None], part: str, state: str, cause: str, fix: str
) -> None:
    finding = findings(machine_at(tmp_path, changes))[part]
    assert (finding.state, cause in finding.found, fix in finding.fix) == (state, True, True), finding


def test_a_camera_of_another_group_names_the_group(tmp_path: Path) -> None:
    group = f"root:x:0:root\ncameras:x:{os.getegid()}:anna\n" if os.getegid() else "cameras:x:0:anna\n"
    root = machine_at(tmp_path, {"etc/group": group})
    finding = findings(root, Account(uid=4242, gids=frozenset({54321})))["camera /dev/video1"]
    assert finding.state == "problem"
    assert "'cameras'" in finding.found
    assert "usermod -aG cameras" in finding.fix


def test_a_node_without_its_mode_is_not_the_users_fault(tmp_path: Path) -> None:
    root = machine_at(tmp_path)
    (root / "dev/video1").chmod(0o600)
    assert "chmod 660" in findings(root)["camera /dev/video1"].fix


@pytest.mark.parametrize(
    ("mode", "uid", "gids", "may"),
    [
        (0o600, "owner", set(), True),
        (0o660, "other", {"group"}, True),
        (0o660, "other", set(), False),
        (0o640, "other", {"group"}, False),
        (0o666, "other", set(), True),
        (0o060, "owner", {"group"}, False),
        (0o000, "root", set(), True),
    ],
)
def test_who_may_use_a_node(mode: int, uid: str, gids: set[str], may: bool) -> None:
    numbers = {"owner": 1000, "other": 1001, "root": 0}
    node = os.stat_result((mode, 0, 0, 1, 1000, 44, 0, 0, 0, 0))
    assert Account(numbers[uid], frozenset({44} if gids else {100})).may_use(node) == may


def test_packages_that_were_removed_are_not_installed() -> None:
    assert installed(DPKG) == {
        "libnvinfer10": "10.3.0.30-1+cuda12.5",
        "python3-libnvinfer": "10.3.0.30-1+cuda12.5",
    }


def test_a_group_without_a_name_is_a_number() -> None:
    assert group_name("video:x:44:", 44) == "video"
    assert group_name("video:x:44:", 45) == "45"


@pytest.mark.parametrize(
    ("now_s", "synchronised", "state", "said"),
    [
        (86_400.0, True, "problem", "1970-01-02 00:00 UTC: never set"),
        (1.8e9, False, "problem", "not synchronised"),
        (1.8e9, None, "absent", "hidden"),
        (1.8e9, True, "ok", "2027-01-15 08:00 UTC, synchronised"),
    ],
)
def test_the_clock(now_s: float, synchronised: bool | None, state: str, said: str) -> None:
    finding = look_at_clock(now_s, synchronised)
    assert (finding.state, said in finding.found) == (state, True), finding


def test_the_kernel_can_be_asked_about_its_clock() -> None:
    assert kernel_clock_is_synchronised() in (True, False, None)


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(32 << 30, 31 << 30, 200 << 20))
    finding = look_at_disk(tmp_path)
    assert (finding.state, finding.found) == ("problem", "0.2 of 32.0 GiB free, 1.0 are needed")
    assert "journalctl" in finding.fix


def test_a_check_that_fails_itself_is_a_finding() -> None:
    (finding,) = guarded("disk", lambda: [look_at_disk(Path("/no/such/root"))])
    assert (finding.part, finding.state) == ("disk", "problem")
    assert "/no/such/root" in finding.found


@pytest.fixture(scope="module")
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return machine_at(tmp_path_factory.mktemp("orin"))


@given(name=st.sampled_from(sorted(ORIN)), content=st.binary(max_size=200))
def test_no_content_of_a_file_ends_in_a_traceback(one_root: Path, name: str, content: bytes) -> None:
    (one_root / name).write_bytes(content)
    found = list(look_at_device(this_machine(one_root), one_root))
    (one_root / name).write_text(ORIN[name])
    assert not [finding for finding in found if "could not be checked" in finding.found]


def test_the_whole_report_of_a_jetson_that_lacks_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.doctor.shipped", lambda: ())
    root = machine_at(tmp_path, {name: None for name in ORIN if not name.startswith(("proc", "etc"))})
    report = examine(root)
    judge(report)  # what a camera or JetPack lacks is reported, and no reason to end with 1
    parts = {finding.part: finding for finding in report.findings}
    assert parts["libnvdla"].state == "problem"
    assert all(finding.fix for finding in report.findings if finding.state == "problem")

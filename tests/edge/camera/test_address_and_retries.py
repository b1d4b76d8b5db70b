"""URIs: what they ask for, and that no secret in them is ever seen. And when a lost camera is tried again."""

from __future__ import annotations

import grp
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.camera.address import Address, complaint_about_device
from edge.camera.retries import CRASHES, DEGRADED_MOST_S, FIRST_S, MOST_S, STEADY_S, Retries
from edge.camera.source import CameraSource
from edge.errors import SourceError
from edge.sources import open_source

halves = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=2, max_size=11)
secrets = st.tuples(halves, halves).map("Q7Z".join)
"""Every printable sign. What stands between the halves is in no word of ours, as `reconnec` is in `reconnects`."""

SHAPES = (
    "rtsp://viewer:{quoted}@10.0.0.5:554/main",
    "rtsp://{quoted}@10.0.0.5/main",
    "rtsps://viewer:{quoted}@camera.local/main?channel=1",
    "http://10.0.0.5/video.mjpg?user=viewer&password={quoted}",
    "https://10.0.0.5/video.mjpg?width=3&access_token={quoted}&fps=5",
    "http://u:{quoted}@10.0.0.5/?api_key={quoted}",
    "gst://rtspsrc location=rtsp://viewer:{quoted}@10.0.0.5/main ! decodebin",
    "gst://rtspsrc location=rtsp://10.0.0.5/main user-id=viewer user-pw={quoted} ! decodebin",
    'gst://rtspsrc location=rtsp://10.0.0.5/main user-pw = "{quoted}" ! decodebin',
    "gst://souphttpsrc location=http://10.0.0.5/v?token={quoted} ! jpegdec",
)


@given(st.sampled_from(SHAPES), secrets)
@example(SHAPES[0], "%2540%2541%")
def test_no_view_of_a_camera_shows_a_secret(shape: str, secret: str) -> None:
    quoted = quote(secret, safe="")
    camera = CameraSource(shape.format(quoted=quoted))
    address = Address.parse(shape.format(quoted=quoted))
    library = address.scrubbed(
        f"Could not open {shape.format(quoted=quoted)}: [{secret}] is wrong, [{quoted}] too"
    )
    for text in (repr(camera), str(camera.health()), repr(address), address.shown, library):
        assert secret not in text
        assert quoted not in text
    assert "10.0.0.5" in address.shown or "camera.local" in address.shown or "***@" in address.shown


@given(st.sampled_from(SHAPES[:2]), secrets)
def test_literal_passwords_that_make_no_address_are_not_shown_either(shape: str, secret: str) -> None:
    """Not percent-encoded, a password may tear the address apart: then it is refused, without being told."""
    try:
        shown = Address.parse(shape.format(quoted=secret)).shown
    except SourceError as error:
        shown = str(error)
    assert secret not in shown


@pytest.mark.parametrize(
    ("uri", "kind", "decoder", "clock"),
    [
        ("0", "v4l2", "pyav", "driver"),
        ("/dev/video0", "v4l2", "pyav", "driver"),
        ("/dev/v4l/by-id/usb-camera-index0", "v4l2", "pyav", "driver"),
        ("v4l2:///dev/video2?width=1280&height=720&fps=30&format=mjpeg", "v4l2", "pyav", "driver"),
        ("csi://1?flip=2", "csi", "gstreamer", "driver"),
        ("RTSP://10.0.0.5/main", "rtsp", "pyav", "arrival"),
        ("https://10.0.0.5/v.mjpg", "http", "pyav", "arrival"),
        ("gst://videotestsrc", "gst", "gstreamer", "arrival"),
    ],
)
def test_uris_of_cameras(uri: str, kind: str, decoder: str, clock: str) -> None:
    address = Address.parse(uri)
    assert (address.kind, address.decoder, address.capture_clock) == (kind, decoder, clock)
    assert address.shown == uri
    assert isinstance(open_source(uri), CameraSource)


def test_options_of_devices_reach_the_child() -> None:
    usb = Address.parse("v4l2:///dev/video2?width=1280&height=720&fps=30&format=mjpeg")
    assert usb.device == "/dev/video2"
    wanted = {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}
    assert usb.request["options"].items() >= wanted.items()
    csi = Address.parse("csi://1?width=1920&height=1080&fps=60&flip=2")
    assert "sensor-id=1" in csi.request["pipeline"]
    assert "width=1920,height=1080,framerate=60/1" in csi.request["pipeline"]
    assert "flip-method=2" in csi.request["pipeline"]
    rtsp = Address.parse("rtsp://u:hunter22@h/x", decoder="gstreamer").request
    assert "hunter22" not in rtsp["pipeline"], "the address is set as a property"
    assert rtsp["properties"] == {"camera": {"location": "rtsp://u:hunter22@h/x"}}


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("rtsp://", "names no host"),
        ("rtsp://u:hunter22@", "names no host"),
        ("rtsp://h:port/x", "names no host, or a port that is none"),
        ("http://h:99999/x", "port that is none"),
        ("v4l2://dev/video0", "names no device"),
        ("v4l2:///dev/video0?width=wide", "'width' is no option of this camera, or its value"),
        ("v4l2:///dev/video0?password=hunter22", "'password' is no option.*width 16 to 16384"),
        ("csi://left", "names no sensor"),
        ("csi://0?format=mjpeg", "'format' is no option"),
        ("csi://0?width=1280 ! rm", "'width' is no option"),
        ("gst:// ", "holds no pipeline"),
        ("rtsp://h/" + "x" * 9000, "is no camera"),
        ("rtsp://h/\n", "is no camera"),
    ],
)
def test_wrong_uris_teach_and_do_not_leak(uri: str, message: str) -> None:
    with pytest.raises(SourceError, match=message) as raised:
        CameraSource(uri)
    assert "hunter22" not in str(raised.value)


def test_devices_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()
    assert complaint_about_device(str(tmp_path / "video0")) == (
        f"{tmp_path}/video0 is no video device, but a file or a folder", "permanent",
    )  # fmt: skip
    assert complaint_about_device("/dev/null") is None
    with pytest.raises(SourceError) as raised:
        CameraSource("987654").open()
    assert re.fullmatch(
        r"987654: no such device, /dev/video987654\. Video devices here: [^.]+\. Look whether it is plugged in\.",
        str(raised.value),
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device that others may not open")
def test_device_without_permission_names_the_group() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own is closed to other users
        os.chmod(folder, 0o755)
        device = Path(folder) / "video0"
        try:
            os.mknod(device, 0o20660, os.makedev(1, 3))
            os.chown(device, 0, 44)
        except PermissionError:
            pytest.skip("this container makes no device nodes")
        try:
            os.seteuid(65534)
            complaint = complaint_about_device(str(device))
        finally:
            os.seteuid(0)
    assert complaint is not None
    assert complaint[1] == "permanent"
    assert f"no permission for {device}. It belongs to the group '{grp.getgrgid(44).gr_name}'" in complaint[0]


def test_absent_device_is_waited_for_when_it_is_to_be_kept_trying() -> None:
    camera = CameraSource("v4l2:///dev/video-that-is-not", connect_timeout_s=0.5)
    with pytest.raises(SourceError, match="no such device"):
        camera.open()
    health = camera.health()
    assert (health.state, health.reconnects) == ("closed", 0)


@given(st.integers(1, 60), st.floats(0, 1))
def test_retries_are_backed_off_jittered_and_capped(failures: int, chance: float) -> None:
    retries = Retries(_random=lambda: chance)
    delays = [retries.failed() for _ in range(failures)]
    assert 0.75 * FIRST_S <= delays[0] <= 1.25 * FIRST_S
    assert delays == sorted(delays)
    assert delays[-1] <= 1.25 * MOST_S
    assert not retries.degraded
    retries.streams(0.0)
    retries.streams(STEADY_S)
    assert retries.failed() == delays[0]


def test_crash_loop_is_degraded_until_frames_come_steadily() -> None:
    retries = Retries(_random=lambda: 0.5)
    for number in range(CRASHES):
        retries.streams(float(number))
        delay_s = retries.failed(crashed=True)
        assert retries.degraded == (number == CRASHES - 1)
    assert delay_s == 2.0
    assert [retries.failed(crashed=True) for _ in range(5)] == [
        4.0,
        8.0,
        16.0,
        DEGRADED_MOST_S,
        DEGRADED_MOST_S,
    ]
    retries.streams(100.0)
    assert retries.degraded
    retries.streams(100.0 + 2 * STEADY_S)
    assert not retries.degraded
    assert retries.failed(crashed=True) == FIRST_S


def test_refused_password_is_tried_rarely() -> None:
    retries = Retries(_random=lambda: 0.5)
    assert [retries.failed(refused=True) for _ in range(3)] == [2.0, 4.0, 8.0]
    assert retries.degraded
    assert retries.failed() == FIRST_S * 8, "the address is right after all, and the camera only away"
    assert not retries.degraded

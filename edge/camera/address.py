"""What a camera's URI asks of its child process.

rtsp(s)://user:password@host/path     over TCP
http(s)://host/path                   MJPEG, and whatever else FFmpeg reads over HTTP
0, /dev/video0, /dev/v4l/by-id/NAME, v4l2:///dev/video0?width=1280&height=720&fps=30&format=mjpeg
csi://0?width=1280&height=720&fps=30&flip=2
gst://videotestsrc is-live=true ! video/x-raw,width=640     a pipeline without its sink
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from edge.camera.link import TO_MEMORY
from edge.errors import SourceError
from edge.frame import CaptureClock
from edge.secret import MASK, masked, masked_in_text
from edge.sources import is_device

Kind = Literal["rtsp", "http", "v4l2", "csi", "gst"]
Decoder = Literal["pyav", "gstreamer"]

_SCHEMES: dict[str, Kind] = {
    "rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http", "v4l2": "v4l2", "csi": "csi",
    "gst": "gst",
}  # fmt: skip

LONGEST = 8_192
"""Signs of a URI."""

_LOW_LATENCY = {"flags": "low_delay", "fpsprobesize": "2", "analyzeduration": "100000"}
"""Not `fflags=nobuffer`: it throws away what was read to analyse the stream, and so the first key frame."""
_NO_RATE = {"fpsprobesize": "0"}
"""MJPEG states no rate, and each picture that FFmpeg would wait for to find one may take seconds."""
_LIMITS = {"width": (16, 16_384), "height": (16, 16_384), "fps": (1, 1_000), "flip": (0, 7)}
_V4L2_FORMATS = ("mjpeg", "yuyv422", "uyvy422", "nv12", "yuv420p", "h264")


@dataclass(frozen=True)
class Address:
    """A URI that was read.

    Attributes:
        shown: the URI for people, secrets masked.
        decoder: which child reads it.
        request: for the child; holds the secrets.
        capture_clock: what the capture stamps of a live stream mean.
        device: the path of a V4L2 device, else empty.
    """

    kind: Kind
    shown: str
    decoder: Decoder
    request: dict[str, Any] = field(repr=False)
    capture_clock: CaptureClock = "arrival"
    device: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, uri: str, decoder: Decoder = "pyav") -> Address:
        """Read a URI.

        Args:
            uri: see above.
            decoder: of RTSP, either is possible; with "gstreamer" by JetPack's hardware where it is.

        Raises:
            SourceError: it cannot be read; the message holds no secret.
        """
        scheme, separator, rest = uri.partition("://")
        kind = "v4l2" if is_device(uri) else _SCHEMES.get(scheme.lower()) if separator else None
        if kind is None or len(uri) > LONGEST or any(ord(sign) < 32 for sign in uri):
            raise SourceError(f"'{masked(uri)[:200]}' is no camera. {EXPECTED}")
        return _READERS[kind](cls, uri, rest, decoder)

    def scrubbed(self, text: str) -> str:
        """A text of a library, without this address's secrets."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        return masked_in_text(text)


EXPECTED = (
    "Expected rtsp://, rtsps://, http://, https://, a V4L2 device as its number, /dev/video0 or v4l2:///dev/video0, "
    "csi://0, or gst:// and a GStreamer pipeline without its sink."
)


def _network(cls: type[Address], uri: str, rest: str, decoder: Decoder) -> Address:
    kind = _SCHEMES[uri.partition("://")[0].lower()]
    try:
        parts = urlsplit(uri)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host:
        raise SourceError(
            f"'{masked(uri)}' names no host, or a port that is none. Expected {kind}://host:port/path; in a "
            "password write '@' as %40, '/' as %2F, ':' as %3A, '#' as %23 and '?' as %3F."
        )
    if kind == "rtsp" and decoder == "gstreamer":
        pipeline = (
            "rtspsrc name=camera latency=100 protocols=tcp drop-on-latency=true "
            f"! application/x-rtp,media=video ! decodebin ! {TO_MEMORY}"
        )
        request = _gst_request(pipeline, {"camera": {"location": uri}})
        return cls(kind, masked(uri), "gstreamer", request, secrets=values_in(uri))
    options = _LOW_LATENCY | ({"rtsp_transport": "tcp"} if kind == "rtsp" else _NO_RATE)
    request = {"address": uri, "format": None, "options": options, "driver_stamps": False}
    return cls(kind, masked(uri), "pyav", request, secrets=values_in(uri))


def _v4l2(cls: type[Address], uri: str, rest: str, decoder: Decoder) -> Address:
    path, _, query = rest.partition("?")
    device = f"/dev/video{uri}" if uri.isdecimal() else path or uri
    if not device.startswith("/"):
        raise SourceError(f"'{masked(uri)}' names no device. Expected a number, or v4l2:///dev/video0.")
    wanted = _options(uri, query, ("width", "height", "fps", "format"))
    options = dict(_LOW_LATENCY)
    if "width" in wanted and "height" in wanted:
        options["video_size"] = f"{wanted['width']}x{wanted['height']}"
    if "fps" in wanted:
        options["framerate"] = wanted["fps"]
    if "format" in wanted:
        options["input_format"] = wanted["format"]
    request = {"address": device, "format": "v4l2", "options": options, "driver_stamps": True}
    return cls("v4l2", masked(uri), "pyav", request, "driver", device)


def _csi(cls: type[Address], uri: str, rest: str, decoder: Decoder) -> Address:
    sensor, _, query = rest.partition("?")
    if not sensor.isdecimal():
        raise SourceError(f"'{masked(uri)}' names no sensor. Expected csi://0, or csi://1 and so on.")
    wanted = _options(uri, query, ("width", "height", "fps", "flip"))
    width, height, fps = wanted.get("width", "1280"), wanted.get("height", "720"), wanted.get("fps", "30")
    pipeline = (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),format=NV12,"
        f"width={width},height={height},framerate={fps}/1 "
        f"! nvvidconv flip-method={wanted.get('flip', '0')} ! video/x-raw,format=I420"
    )
    return cls("csi", masked(uri), "gstreamer", _gst_request(pipeline, {}, driver_stamps=True), "driver")


def _gst(cls: type[Address], uri: str, rest: str, decoder: Decoder) -> Address:
    if not rest.strip():
        raise SourceError(f"'{uri}' holds no pipeline. Expected e.g. gst://videotestsrc is-live=true")
    return cls("gst", masked(uri), "gstreamer", _gst_request(rest, {}), secrets=values_in(uri))


def _gst_request(
    pipeline: str, properties: dict[str, dict[str, str]], driver_stamps: bool = False
) -> dict[str, Any]:
    return {"pipeline": pipeline, "properties": properties, "driver_stamps": driver_stamps}


_READERS = {"rtsp": _network, "http": _network, "v4l2": _v4l2, "csi": _csi, "gst": _gst}


def _options(uri: str, query: str, known: tuple[str, ...]) -> dict[str, str]:
    """The options in a device's URI; raises SourceError for one that is unknown or out of range."""
    wanted = dict(parse_qsl(query, keep_blank_values=True))
    for key, text in wanted.items():
        low, high = _LIMITS.get(key, (0, -1))
        in_range = text.isdecimal() and len(text) < 6 and low <= int(text) <= high
        if key not in known or not (text in _V4L2_FORMATS if key == "format" else in_range):
            ranges = [f"{k} {_LIMITS[k][0]} to {_LIMITS[k][1]}" for k in known if k in _LIMITS]
            formats = [f"format {', '.join(_V4L2_FORMATS)}"] if "format" in known else []
            takes = "; ".join(ranges + formats)
            raise SourceError(
                f"'{masked(uri)}': '{key}' is no option of this camera, or its value is none it can have. "
                f"It takes: {takes}."
            )
    return wanted


_USER_INFO = (re.compile(r"(?<=://)(.*)@", re.DOTALL), re.compile(r"(?<=://)([^\s'\"]*)@"))
"""Of a URI alone, and of one in a pipeline."""
_SECRET_VALUE = re.compile(
    r"[?&;\s][^=&;\s]*(?:pass|pwd|pw|secret|token|key|auth|user|sig|jwt|cred)[^=&;\s]*\s*=\s*"
    r"(\"[^\"]*\"|'[^']*'|[^&;\s'\"]*)",
    re.IGNORECASE,
)
_SHORTEST = 3
"""Shorter secrets are not looked for in other texts: they would be found everywhere."""


def values_in(uri: str) -> tuple[str, ...]:
    """What must not be seen of a URI, as it is written and as it is meant: passwords, tokens."""
    found = {quoted.strip("\"'") for quoted in _SECRET_VALUE.findall(uri)}
    for pattern in _USER_INFO:
        for user_info in pattern.findall(uri):
            found |= {user_info, user_info.partition(":")[2]}
    return tuple(sorted(s for value in found for s in {value, unquote(value)} if len(s) >= _SHORTEST))


def complaint_about_device(device: str) -> tuple[str, str] | None:
    """Why a V4L2 device cannot be opened, as far as a look at it tells: the reason and the kind of failure.

    The reason names the device, which the URI may not (`0`), and has no full stop.
    """
    path = Path(device)
    try:
        mode = path.stat().st_mode
    except OSError:
        there = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        return (
            f"no such device, {device}. Video devices here: {there}. Look whether it is plugged in",
            "absent",
        )
    if not stat.S_ISCHR(mode):
        return f"{device} is no video device, but a file or a folder", "permanent"
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        return _no_permission(path), "permanent"
    return None


def _no_permission(path: Path) -> str:
    """Names the group that may use it."""
    import grp

    number = path.stat().st_gid
    try:
        group = grp.getgrgid(number).gr_name
    except KeyError:
        group = str(number)
    return (
        f"no permission for {path}. It belongs to the group '{group}': add the user that runs this program to it "
        f"(sudo usermod -aG {group} USER; in a service SupplementaryGroups={group}) and log in anew"
    )

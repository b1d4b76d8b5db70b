"""A real RTSP server: GStreamer's, with H.264 and a key frame each second. Run by the system's Python.

    /usr/bin/python3 rtsp_server.py --port 8554 [--width 640 --height 360 --fps 25] [--user U --password P]

Serves a moving test picture at rtsp://127.0.0.1:PORT/stream; prints `ready PORT` (of --port 0: a free one).
The clients share one encoder, as those of a camera do, so that a new one waits for the next key frame.
"""

from __future__ import annotations

import argparse
import ctypes
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

ENCODERS = {
    "x264enc": "x264enc tune=zerolatency speed-preset=ultrafast bframes=0 key-int-max={fps}",
    "openh264enc": "openh264enc complexity=low gop-size={fps}",
}


def pipeline(width: int, height: int, fps: int, pattern: str) -> str:
    """What the server runs while it has clients."""
    encoder = next(text for name, text in ENCODERS.items() if Gst.ElementFactory.find(name))
    return (
        f"( videotestsrc is-live=true pattern={pattern} "
        f"! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 "
        f"! {encoder.format(fps=fps)} ! rtph264pay name=pay0 pt=96 config-interval=1 )"
    )


def authentication(user: str, password: str) -> GstRtspServer.RTSPAuth:
    """Lets in one user alone, by digest, as cameras do."""
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_digest(user, password, token)
    return auth


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--pattern", default="ball")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    given = parser.parse_args()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: gone with the test, however that ends
    Gst.init(None)
    server = GstRtspServer.RTSPServer(service=str(given.port), address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(pipeline(given.width, given.height, given.fps, given.pattern))
    factory.set_shared(True)
    if given.user:
        server.set_auth(authentication(given.user, given.password))
        factory.add_role_from_structure(
            Gst.Structure.from_string("viewer,media.factory.access=true,media.factory.construct=true")[0]
        )
    server.get_mount_points().add_factory("/stream", factory)
    if not server.attach(None):
        raise SystemExit(f"port {given.port} is taken")
    print("ready", server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()

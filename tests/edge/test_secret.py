"""Secrets of every shape: they reach the camera, and nothing that is shown."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge.config import CameraSettings, StreamSettings
from edge.errors import InputError
from edge.secret import MASK, Secrets, masked, resolved

passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=4, max_size=40)


@given(passwords)
def test_reference_in_an_address_is_percent_encoded_and_comes_back_whole(password: str) -> None:
    address = resolved("rtsp://admin:${env:PW}@10.0.0.5:554/main", {"PW": password})
    parts = urlsplit(address)
    assert (parts.hostname, parts.port, parts.path) == ("10.0.0.5", 554, "/main")
    assert unquote(parts.password or "") == password


@given(passwords)
def test_source_that_is_one_reference_is_taken_as_it_is(password: str) -> None:
    assert resolved("${env:ALL}", {"ALL": password}) == password


@given(passwords)
def test_literal_password_of_any_shape_is_masked(password: str) -> None:
    shown = "rtsp://***@10.0.0.5/main"
    assert masked(f"rtsp://admin:{password}@10.0.0.5/main") == shown
    assert masked(f"http://h/v?width=3&token={quote(password, safe='')}") == "http://h/v?width=3&token=***"
    camera = CameraSettings(name="door", source=f"rtsp://admin:{password}@10.0.0.5/main")
    assert repr(camera) == repr(CameraSettings(name="door", source=shown))


@given(st.text("@%=: ?&;<>[]~.é", max_size=4), st.text("@%=: ?&;<>[]~.é", max_size=4))
@example("%@", "")
def test_passwords_of_elements_in_a_pipeline_are_masked_whatever_they_hold(before: str, behind: str) -> None:
    secret = f"{before}hunter22{behind}"
    for shape in (
        f'gst://rtspsrc location=rtsp://h:9/x user-id=me user-pw="{secret}" ! decodebin',
        f"gst://rtspsrc user-pw='{secret}' location=rtsp://me:{secret}@h:9/x ! decodebin",
        f"fault://gst://souphttpsrc location=http://me:{quote(secret)}@h/x?token={quote(secret)} ! a?freeze=1..2",
    ):
        assert "hunter22" not in masked(shape), shape


def test_the_rest_of_a_pipeline_stays_readable() -> None:
    assert (
        masked("gst://videotestsrc is-live=true ! video/x-raw")
        == "gst://videotestsrc is-live=true ! video/x-raw"
    )
    assert masked('gst://rtspsrc user-pw="x@y" ! decodebin') == "gst://*** ! decodebin"
    assert masked("gst://rtspsrc location=rtsp://u:p@h/x ! a") == "gst://***@h/x ! a"
    assert masked('GST://rtspsrc user-pw="x@y" ! decodebin') == "GST://*** ! decodebin"
    assert (
        masked("gst://rtspsrc location=rtsp://h/x user-pw=xy ! a")
        == "gst://rtspsrc location=rtsp://h/x user-pw=*** ! a"
    )


@given(passwords)
def test_values_are_scrubbed_from_texts_of_others(password: str) -> None:
    secrets = Secrets()
    secrets.resolve("rtsp://admin:${env:PW}@10.0.0.5/main", {"PW": password})
    encoded = quote(password, safe="")
    text = secrets.scrubbed(f"cannot open [{password}] nor [{encoded}]")
    frame = f"cannot open [{MASK}] nor [{MASK}]"
    assert text == frame or password in frame, "left in the text"


@pytest.mark.parametrize(
    ("address", "text", "shown"),
    [
        ("rtsp://h/${env:SHORT}?x=${env:LONG}", "no hunter22-too here", f"no {MASK} here"),
        ("rtsp://admin:barleycorn@h/x", "barleycorn is wrong", f"{MASK} is wrong"),
        ("rtsp://admin:barley%40corn@h/x", "barley@corn is wrong", f"{MASK} is wrong"),
        ("http://h/x?page=${env:ODD}", "GET a%20b%2Fc", f"GET {MASK}"),
        ("http://h/x?page=${env:TINY}", "the table", "the table"),
    ],
)
def test_every_form_of_a_secret_is_scrubbed_and_the_whole_of_it(address: str, text: str, shown: str) -> None:
    secrets = Secrets()
    values = {"SHORT": "hunter22", "LONG": "hunter22-too", "ODD": "a b/c", "TINY": "ab"}
    secrets.resolve(address, values)
    assert secrets.scrubbed(text) == shown


def test_no_view_of_settings_holds_a_password(tmp_path: Path) -> None:
    from edge.daemon_state import DaemonState

    camera = CameraSettings(name="door", source="rtsp://admin:hunter22@10.0.0.5/main")
    settings = StreamSettings(cameras=(camera,))
    for shown in (repr(settings), str(settings), repr(DaemonState(settings).snapshot())):
        assert "hunter22" not in shown
        assert "rtsp://***@10.0.0.5/main" in shown


def test_files_lose_their_line_break_alone(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text(" p@ss \n")
    assert resolved(f"rtsp://u:${{file:{tmp_path}/pw}}@h/x") == "rtsp://u:%20p%40ss%20@h/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rtsp://u:${env:GONE}@h", "environment variable GONE is not set"),
        ("rtsp://u:${file:/gone/pw}@h", "file cannot be read: No such file"),
        ("rtsp://u:${vault:x}@h", "no reference that is known.*env:NAME"),
        ("rtsp://u:${env:A@h", "begins no reference"),
    ],
)
def test_wrong_references_teach_and_do_not_leak(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        resolved(text, {"A": "hunter22"})
    assert "hunter22" not in str(raised.value)


def test_address_without_secrets_is_shown_as_it_is() -> None:
    for plain in ("demo://?frames=3", "/videos/yard.mp4", "0", "csi://0", "rtsp://10.0.0.5/main"):
        assert masked(plain) == plain == resolved(plain, {})

"""The page in a real browser: it shows what there is, at a desk and on a phone, and breaks no rule of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from web_chromium import PROGRAM, Chromium
from web_stage import DemoStream, Feeder, Still, camera, cheap_hash, serving, snapshot

from edge.web.live import LiveSink
from edge.web.page import FOLDER

Clients = Callable[..., httpx.Client]

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="skipped the browser: no chromium is installed")
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
EVENT = {
    "id": "1", "kind": "face_entered", "time": "2025-01-01T00:00:00+00:00", "model": "face", "track": 3,
    "camera": "door", "score": 0.9, "seconds": 0.0, "label": HOSTILE,
}  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


def test_the_page_takes_nothing_from_elsewhere(client: Clients) -> None:
    with serving(Still()) as server:
        answer = client(server).get("/")
    assert not re.findall(r"(?:src|href|url|import)\W{0,3}https?:", answer.text)
    assert "{{" not in answer.text
    assert "/*S" not in answer.text
    assert len(answer.content) < 60_000


def test_no_text_is_ever_taken_for_markup() -> None:
    script = (FOLDER / "script.js").read_text(encoding="utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert way not in script


@needs_chromium
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_page_shows_cameras_figures_and_events(
    browser: Chromium, tmp_path: Path, width: int, dark: bool
) -> None:
    live, state = LiveSink(), Still(snapshot("door", "yard"))
    state.content["cameras"][1] = camera("yard", state="lost", last_error=HOSTILE, last_result=HOSTILE)
    state.content["settings"] = {"source": "rtsp://me:hunter2@cam/1"}
    with Feeder(live, "door"), serving(state, live, lambda query: [EVENT]) as server:
        browser.complaints.clear()
        browser.show(server.url, width, 1400, dark)
        browser.wait("document.querySelector('.view img')?.naturalWidth", lambda value: value == 320)
        browser.wait("document.querySelectorAll('#events li').length")
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value("document.querySelectorAll('.camera').length") == 2
        assert browser.value("document.querySelectorAll('#latency table tr').length") == 2 * 8
        text = browser.value("document.body.innerText")
        for shown in (
            "live",
            "lost for",
            "captured",
            "decode",
            "p99.9",
            "tflite int8",
            "face entered",
            HOSTILE,
        ):
            assert shown in text, shown
        assert "hunter2" not in text
        assert "rtsp://***@cam/1" in text
        assert browser.value("document.title") == "Sightline"
        assert browser.value("document.images.length") == 2  # the texts made none
        assert browser.complaints == []
        browser.screenshot(tmp_path / "page.png")
        browser.show("about:blank", width, 800)
    assert is_dark(tmp_path / "page.png") is dark


def is_dark(path: Path) -> bool:
    """Whether the left margin of a screenshot is."""
    pixels = cv2.imread(str(path))
    assert pixels is not None
    return bool(pixels[600:, :4].mean() < 128)


@needs_chromium
def test_signing_in_works_in_a_browser_and_the_page_tells_when_the_daemon_is_gone(
    browser: Chromium, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(cheap_hash("a long enough secret"))
    live = LiveSink()
    with Feeder(live, "door"), serving(Still(), live, token_file=tmp_path / "token") as server:
        browser.complaints.clear()
        browser.show(server.url, 390, 800)
        browser.wait("document.querySelector('#secret') !== null")
        browser.value("document.querySelector('#secret').value = 'a long enough secret'")
        browser.value("document.querySelector('form').submit()")
        browser.wait("document.querySelector('.view img')?.naturalWidth > 0")
        assert browser.value("document.cookie") == ""  # HttpOnly
        assert browser.complaints == []
    browser.wait("document.querySelector('#trouble').hidden === false")
    assert "No answer for" in browser.value("document.querySelector('#trouble').textContent")
    browser.show("about:blank", 390, 800)


@needs_chromium
@pytest.mark.slow
def test_the_demo_camera_moves_on_the_page(browser: Chromium, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="skipped the demo camera: scikit-image is not installed")
    with DemoStream() as demo, serving(demo, demo.live) as server:
        pictures = []
        browser.show(server.url, 1280, 1000)
        browser.wait("document.querySelector('.view img')?.naturalWidth", lambda value: value == 960)
        for number in range(2):
            browser.wait("Math.floor(performance.now() / 3000)", lambda value, n=number: value > n)
            browser.screenshot(tmp_path / "page.png")
            pictures.append(cv2.imread(str(tmp_path / "page.png"))[100:450, 50:800].astype(int))
        assert np.abs(pictures[0] - pictures[1]).mean() > 2
        assert "age" in browser.value("document.querySelector('#latency').innerText")
        browser.show("about:blank", 390, 800)

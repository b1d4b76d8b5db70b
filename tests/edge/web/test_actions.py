"""What can be changed from the page: by whom, with which requests, and in a browser on a phone."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from web_chromium import PROGRAM, Chromium
from web_stage import Feeder, Noted, Still, cheap_hash, serving, snapshot

from edge.bundle import Bundle
from edge.config import CameraSettings, ModelTable, StreamSettings
from edge.daemon import Daemon
from edge.enrolment.live import Teacher
from edge.errors import InputError
from edge.frame import Frame
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.run_daemon import DaemonControls
from edge.web.live import LiveSink
from edge.web.settings import WebSettings

Clients = Callable[..., httpx.Client]

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="skipped the browser: no chromium is installed")
SECRET = "a token that is long enough"
TEACH = {"camera": "door", "model": "cats", "label": "mug"}
WISHES = {
    "/api/v1/reload": {},
    "/api/v1/enrolment/teach": TEACH,
    "/api/v1/enrolment/forget": {"model": "cats", "label": "mug"},
}


def test_each_does_what_it_says(client: Clients) -> None:
    controls = Noted()
    with serving(Still(), controls=controls) as server:
        http = client(server)
        assert http.post("/api/v1/reload", json={}).status_code == 202
        assert http.post("/api/v1/enrolment/teach", json=TEACH).json()["threshold"] == 0.9
        listed = http.get("/api/v1/enrolment").json()["models"]
        assert [one["label"] for one in listed[0]["classes"]] == ["mug", "mug"]
        assert http.post("/api/v1/enrolment/forget", json={"model": "cats", "label": "mug"}).json() == {}
    assert controls.asked == [("reload",), ("teach", "door", "cats", "mug"), ("forget", "cats", "mug")]


@pytest.mark.parametrize("path", WISHES)
def test_only_holders_of_the_secret_and_the_page_itself_change_anything(
    path: str, tmp_path: Path, client: Clients
) -> None:
    (tmp_path / "token").write_text(cheap_hash(SECRET))
    controls, bearer = Noted(), {"authorization": f"Bearer {SECRET}"}
    with serving(Still(), controls=controls, token_file=tmp_path / "token") as server:
        http, own = client(server), {"host": "localhost", "origin": "http://localhost"}
        assert http.post(path, json=WISHES[path]).status_code == 401
        for other in ({"origin": "http://evil.org"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
                      {"sec-fetch-site": "same-site"}):  # fmt: skip
            assert http.post(path, json=WISHES[path], headers=own | other | bearer).status_code == 403
        for way in ("get", "put", "delete", "patch"):
            assert getattr(http, way)(path, headers=bearer).status_code == 405
        assert not controls.asked
        http.post("/login", data={"secret": SECRET}, headers=own)
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in http.cookies.items())}
        assert http.post(path, json=WISHES[path], headers=own | cookie).status_code in (200, 202)
        http.cookies.clear()
        assert http.post(path, json=WISHES[path] | {}, headers=bearer).status_code in (200, 202, 409)
    assert controls.asked


@pytest.mark.parametrize("path", WISHES)
def test_a_form_of_another_site_cannot_send_what_they_take(path: str, client: Clients) -> None:
    """Browsers ask first before they send JSON elsewhere; forms send these three types."""
    controls = Noted()
    with serving(Still(), controls=controls) as server:
        http = client(server)
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain", ""):
            answer = http.post(path, content=b"{}", headers={"content-type": kind})
            assert answer.status_code == 415
    assert not controls.asked


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("", "Invalid JSON"),
        ("[]", "object"),
        ('{"camera": "door", "model": "cats"}', "label: Field required"),
        ('{"camera": "door", "model": "cats", "label": 5}', "label: Input should be a valid string"),
        ('{"camera": "door", "model": "cats", "label": ""}', "label: String should have at least 1"),
        ('{"camera": "door", "model": "cats", "label": "a", "path": "/etc"}', "path: Extra inputs"),
    ],
)
def test_a_wrong_body_is_told_and_does_nothing(body: str, said: str, client: Clients) -> None:
    controls = Noted()
    with serving(Still(), controls=controls) as server:
        answer = client(server).post(
            "/api/v1/enrolment/teach", content=body, headers={"content-type": "application/json"}
        )
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert not controls.asked


def test_what_is_refused_says_why_without_a_secret_and_nothing_is_there_without_controls(
    client: Clients,
) -> None:
    with serving(Still(), controls=Noted(refuses="no picture of rtsp://me:hunter2@cam/1")) as server:
        answer = client(server).post("/api/v1/enrolment/teach", json=TEACH)
        assert (answer.status_code, answer.json()) == (409, {"error": "no picture of rtsp://***@cam/1"})
    with serving(Still()) as server:
        http = client(server)
        assert [http.post(path, json=body).status_code for path, body in WISHES.items()] == [404] * 3
        assert http.get("/api/v1/enrolment").json() == {"models": []}


class Painted:
    """A camera of one colour with some noise, which the test changes."""

    colour = (240, 120, 10)

    def open(self) -> SourceInfo:
        self._index = 0
        return SourceInfo("painted", 64, 48, 30.0, None, "arrival")

    def read(self, frame: Frame) -> bool:
        time.sleep(1 / 30)
        frame.stamps.mark("capture")
        noise = np.random.default_rng(self._index).normal(0, 8, (48, 64, 3))
        frame.buffer(48, 64)[:] = np.clip(np.array(self.colour) + noise, 0, 255).astype(np.uint8)
        frame.index, self._index = self._index, self._index + 1
        frame.stamps.mark("decode")
        return True

    def close(self) -> None: ...


@contextmanager
def teaching(store: Path) -> Iterator[tuple[Daemon, Painted, Any]]:
    """A daemon with one camera and a classifier that nothing was taught yet, and its page."""
    camera = Painted()
    settings = StreamSettings(
        cameras=(CameraSettings(name="door", source="test://door"),),
        models=(ModelTable(bundle="cifar10-nano", name="colours", enrolled=store),),
        web=WebSettings(port=0, enrolment=True),
        build_plans=False,
    )
    sinks: list[Any] = []
    daemon = Daemon(
        settings, reread=lambda: settings, more_sinks=sinks, make_source=lambda *given: camera  # type: ignore[return-value, arg-type]
    )  # fmt: skip
    controls, live = DaemonControls(daemon, settings.teaches), LiveSink()
    sinks += [("page", live), *controls.sinks]
    thread = threading.Thread(target=daemon.run)
    with serving(daemon.state, live, controls=controls) as server:
        thread.start()
        try:
            yield daemon, camera, server
        finally:
            daemon.stop()
            thread.join(10)


def result_of(daemon: Daemon) -> str:
    """The first word of what is said of the only camera; empty before anything is."""
    said = [camera["last_result"] or "" for camera in daemon.state.snapshot()["cameras"]]
    return said[0].partition(" ")[0] if said else ""


def until(holds: Callable[[], Any], patience_s: float = 20.0) -> None:
    end_s = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@needs_chromium
def test_a_class_is_taught_named_and_forgotten_on_a_phone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.enrolment.live.EVERY_S", 0.05)
    with (
        teaching(tmp_path / "store") as (daemon, camera, server),
        Chromium(tmp_path / "profile") as browser,
    ):
        until(lambda: result_of(daemon) == "unknown")
        browser.show(server.url, 390, 1400)
        browser.wait("document.querySelector('#teach')?.hidden === false")
        assert "No class yet" in browser.value("document.querySelector('#classes').innerText")
        browser.value("document.querySelector('#teaching').elements.label.value = 'orange <b>mug</b>'")
        browser.value("document.querySelector('#teaching button').click()")
        browser.wait("document.querySelector('#taught').textContent.includes('accepted from')")
        until(lambda: result_of(daemon) == "orange")
        assert browser.value("document.documentElement.scrollWidth") <= 390
        assert "orange <b>mug</b>" in browser.value("document.querySelector('#classes').innerText")
        browser.screenshot(tmp_path / "taught.png")
        camera.colour = (130, 20, 220)
        until(lambda: result_of(daemon) == "unknown")
        camera.colour = (240, 120, 10)
        until(lambda: result_of(daemon) == "orange")
        for said in ("Really?", "is forgotten"):
            browser.value("document.querySelector('#classes button').click()")
            browser.wait(f"document.querySelector('#teach').innerText.includes('{said}')")
        until(lambda: daemon.state.snapshot()["reloads"]["done"] == 2)
        until(lambda: result_of(daemon) == "unknown")
        assert browser.complaints == []
        browser.show("about:blank", 390, 800)


@needs_chromium
def test_the_settings_are_read_again_and_the_page_says_what_became_of_it(tmp_path: Path) -> None:
    live, state, controls = LiveSink(), Still(snapshot("door")), Noted()
    with (
        closing(live),
        Feeder(live, "door"),
        serving(state, live, controls=controls) as server,
        Chromium(tmp_path / "profile") as browser,
    ):
        browser.show(server.url, 390, 1400)
        for reloads, said in (
            ({"done": 0, "refused": 1, "last_error": "run.toml, line 3: no such key"}, "line 3: no such key"),
            ({"done": 1, "refused": 1, "last_error": ""}, "In force."),
        ):
            browser.wait("document.querySelectorAll('.camera').length")
            browser.value("document.querySelector('#reload').click()")
            until(lambda: controls.asked)
            state.content = snapshot("door", reloads=reloads)
            browser.wait(f"document.querySelector('#reloaded').textContent.includes('{said}')")
            controls.asked.clear()
        assert browser.complaints == []
        browser.show("about:blank", 390, 800)


def test_what_cannot_be_taught_is_said(tmp_path: Path) -> None:
    with teaching(tmp_path / "store") as (daemon, _, _server):
        controls = DaemonControls(daemon, teaches=True)  # none of whose sinks sees a frame
        until(lambda: result_of(daemon) == "unknown")
        for wish, said in (
            (("gone", "colours", "mug"), "no camera 'gone'"),
            (("door", "cats", "mug"), "'cats' cannot be taught; there can be: colours"),
            (("door", "colours", "unknown"), "cannot be a label"),
            (("door", "colours", "\n"), "cannot be a label"),
        ):
            with pytest.raises(InputError, match=said):
                controls.teach(*wish)
        with pytest.raises(InputError, match="holds no class 'mug'"):
            controls.forget("colours", "mug")
        with pytest.raises(InputError, match="enrolment = true"):
            DaemonControls(daemon, teaches=False).forget("colours", "mug")


def test_pictures_are_taken_of_the_camera_that_is_asked_for_and_some_time_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("edge.enrolment.live.EVERY_S", 0.05)
    settings = StreamSettings(cameras=[{"name": name, "source": "demo://"} for name in ("door", "yard")])
    teacher = Teacher(lambda: settings, lambda: None)
    door, yard, begin_s = Frame(camera="door"), Frame(camera="yard"), time.monotonic()
    yard.buffer(2, 2)[:] = 255
    with ThreadPoolExecutor(1) as asking:
        taken = asking.submit(teacher._take, "door")
        for step in itertools.count():
            door.buffer(2, 2)[:] = step % 255
            for frame in (yard, door):
                teacher.write(frame, FrameResult({}))
            if taken.done():
                break
            time.sleep(0.005)
    assert time.monotonic() - begin_s > 7 * 0.05
    shown = [int(picture.max()) for picture in taken.result()]
    assert (len(shown), len({*shown}), 255 in shown) == (8, 8, False)


def test_people_are_taught_only_where_they_are_switched_on_and_cut_out_by_the_detector_before(
    tmp_path: Path,
) -> None:
    def teacher(**options: Any) -> Teacher:
        taught = ModelTable(bundle="cifar10-nano", name="who", enrolled=tmp_path, **options)
        tables = (ModelTable(bundle="face-320"), ModelTable(bundle="face-640"), taught)
        return Teacher(lambda: StreamSettings(models=tables), lambda: None)

    faces = teacher(input="faces", people=True)
    assert faces._detector_of(faces._model("who")) == "face-640"
    blank = [np.zeros((90, 120, 3), np.uint8)]
    with pytest.raises(InputError, match="No picture shows one face alone"):
        faces._taught_with(Bundle.open("cifar10-nano"), faces._model("who"), "Ada", blank)
    listed = [faces.taught(), teacher(input="faces").taught(), teacher(people=True).taught()]
    assert [of_model["people"] for (of_model,) in listed] == [True, False, False]


def test_a_camera_that_gives_nothing_is_told_and_the_next_one_can_be_taught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.enrolment.live.SLACK_S", -2.9)
    with teaching(tmp_path / "store") as (daemon, _, _server):
        controls = DaemonControls(daemon, teaches=True)
        for _ in range(2):
            with pytest.raises(InputError, match=r"gave 0 of 8 pictures. Is it live\?"):
                controls.teach("door", "colours", "mug")

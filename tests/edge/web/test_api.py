"""The API is what its description says, and answers hostile requests with a refusal and no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from web_stage import Feeder, Noted, Still, camera, cheap_hash, serving, snapshot

from edge.web.live import LiveSink
from edge.web.openapi import document
from edge.web.server import WebServer
from edge.web.state import EventQuery

Clients = Callable[..., httpx.Client]

SECRET = "a token that is long enough"
BEARER = {"Authorization": f"Bearer {SECRET}"}

EVENTS = [
    {"id": f"{n:032x}", "kind": "face_entered", "time": "2025-01-01T00:00:00.000+00:00", "model": "face",
     "score": 0.9, "seconds": 0.0, "camera": "door", "track": n}
    for n in range(3)
]  # fmt: skip


def read_events(query: EventQuery) -> list[dict[str, Any]]:
    """Of the newest first; `before` is compared with the track's number."""
    found = [event for event in EVENTS if query.before is None or event["track"] < query.before]
    found = [event for event in found if query.camera in (None, event["camera"])]
    begin = next((n for n, event in enumerate(found, 1) if event["id"] == query.older_than), 0)
    return found[begin:][: query.limit]


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    live = LiveSink()
    with Feeder(live, "door", "yard", fps=30), serving(Still(), live, read_events) as running:
        yield running


def test_the_description_names_every_route_of_the_api(server: WebServer, client: Clients) -> None:
    told = client(server).get("/api/openapi.json").json()
    assert told["openapi"] == "3.1.0"
    paths = {route.path for route in server._app.routes} - {"/", "/login", "/logout"}
    assert set(told["paths"]) == paths
    for schema in told["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_only_the_open_paths_are_described_as_open() -> None:
    from edge.web.gate import PUBLIC

    opened = {
        path
        for path, item in document("1")["paths"].items()
        if next(iter(item.values())).get("security") == []
    }
    assert opened == PUBLIC - {"/login"}


@pytest.mark.parametrize(
    ("path", "key", "holds"),
    [
        ("/api/v1/state", "uptime_s", 60.0),
        ("/api/v1/models", "models", "tflite"),
        ("/api/v1/cameras", "cameras", "yard"),
        ("/api/v1/cameras/yard", "name", "yard"),
        ("/api/v1/latency", "latency", "p99_9"),
        ("/api/v1/settings", "settings", ""),
        ("/api/v1/device", "device", ""),
        ("/api/v1/events?limit=2", "events", "face_entered"),
    ],
)
def test_each_answer_has_its_part_of_the_state(
    server: WebServer, client: Clients, path: str, key: str, holds: Any
) -> None:
    answer = client(server).get(path)
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()[key]
    assert found == holds if isinstance(holds, float) else holds in str(found)


def test_events_are_limited_and_paged(server: WebServer, client: Clients) -> None:
    http = client(server)
    assert len(http.get("/api/v1/events").json()["events"]) == 3
    assert len(http.get("/api/v1/events?limit=1").json()["events"]) == 1
    assert len(http.get("/api/v1/events?before=1.5").json()["events"]) == 2
    assert len(http.get("/api/v1/events?before=15e-1").json()["events"]) == 2
    assert http.get("/api/v1/events?before=1e-99").json()["events"] == EVENTS[:1]
    assert http.get(f"/api/v1/events?limit=1&older_than={EVENTS[0]['id']}").json()["events"] == EVENTS[1:2]
    assert http.get("/api/v1/events?camera=yard").json()["events"] == []
    assert len(http.get("/api/v1/events?camera=door&kind=face_entered").json()["events"]) == 3
    answer = http.get("/api/v1/events?kind=face")
    assert (answer.status_code, "face_entered, face_left" in answer.json()["error"]) == (422, True)
    for query in (
        "limit=0",
        "limit=501",
        "limit=-1",
        "limit=1e3",
        "limit=²",
        "limit=" + "9" * 40,
        "before=x",
        "before=-1",
        "before=1e999",
        "before=nan",
        "before=" + "9" * 13,
    ):
        answer = http.get(f"/api/v1/events?{query}")
        assert answer.status_code == 422, query
        kind = "is a whole number from 1 to" if "limit" in query else "is a moment in seconds since 1970"
        assert kind in answer.json()["error"]


def test_without_a_database_there_are_no_events(client: Clients) -> None:
    with serving(Still()) as running:
        assert client(running).get("/api/v1/events").json() == {"events": []}


def test_health_says_whether_the_daemon_answers_and_readiness_whether_results_come(client: Clients) -> None:
    state = Still(snapshot(cameras=[camera("door", state="lost")]))
    with serving(state) as running:
        http = client(running)
        assert (http.get("/healthz").status_code, http.get("/healthz").text) == (200, "ok\n")
        assert (http.get("/readyz").status_code, http.get("/readyz").text) == (503, "not ready\n")


def test_an_error_of_the_daemon_is_told_to_the_log_alone(
    client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def snapshot(self) -> dict[str, Any]:
            raise RuntimeError("rtsp://viewer:hunter2@10.0.0.5")

    with serving(Broken()) as running, caplog.at_level(logging.ERROR):
        answers = [client(running).get(path) for path in ("/healthz", "/metrics", "/api/v1/state")]
    for answer in answers:
        assert answer.status_code == 500
        assert answer.json() == {"error": "This could not be answered; the log says why."}
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert "RuntimeError" in caplog.text


def test_figures_that_json_lacks_do_not_break_an_answer(client: Clients) -> None:
    state = Still(snapshot(cameras=[camera("door", age_ms=float("nan"), last={"score": float("inf")})]))
    with serving(state) as running:
        assert client(running).get("/api/v1/cameras/door").json()["age_ms"] is None


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """With a token, and without a limit for wrong ones: schemathesis tries many."""
    monkeypatch.setattr("edge.web.gate.LOGIN_TRIES", 10**9)
    monkeypatch.setattr("edge.web.gate.ALL_LOGIN_TRIES", 10**9)
    (tmp_path / "token").write_text(cheap_hash(SECRET))
    live = LiveSink()
    with (
        Feeder(live, "door", "yard", fps=30),
        serving(Still(), live, read_events, Noted(classes=[]), token_file=tmp_path / "token") as running,
    ):
        yield running


described = schemathesis.openapi.from_dict(document("0.1.0")).exclude(path_regex="^/stream")  # it never ends
FUZZ = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@described.parametrize()
@settings(max_examples=4, **FUZZ)
def test_answers_are_as_described_whatever_is_asked(case: Any, guarded: WebServer) -> None:
    case.call_and_validate(guarded.url.rstrip("/"), headers=BEARER, timeout=10)


@pytest.mark.slow
@described.parametrize()
@settings(max_examples=300, **FUZZ)
def test_answers_are_as_described_whatever_is_asked_for_long(case: Any, guarded: WebServer) -> None:
    case.call_and_validate(guarded.url.rstrip("/"), headers=BEARER, timeout=10)

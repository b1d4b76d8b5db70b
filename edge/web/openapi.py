"""The description of the API, OpenAPI 3.1, made of the models that the answers are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edge.sinks.happenings import EVENT_KINDS
from edge.web.actions import ClassName, NoBody, Teaching
from edge.web.state import CameraView, Latency, ModelView, Snapshot

MOST_EVENTS, SOME_EVENTS = 500, 50
LATEST_S = 2**40
"""Seconds since 1970, far beyond any clock."""

_ERROR = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
_REF = "#/components/schemas/"
_COUNTED = {"type": "integer", "minimum": 1}
_CAMERA = {"name": "camera", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}

_REFUSALS = {
    "401": "No secret, or a wrong one.",
    "403": "Asked for by another site.",
    "413": "The body is too large.",
    "421": "Not a host of this server.",
    "431": "The address and the headers are too large.",
    "429": "Too many requests; `Retry-After` says when.",
}

Operation = Mapping[str, Any]


def document(version: str) -> dict[str, Any]:
    """The whole description."""
    views: tuple[type[BaseModel], ...] = (Snapshot, CameraView, ModelView, Latency)
    wishes: tuple[type[BaseModel], ...] = (NoBody, ClassName, Teaching)
    _, schemas = models_json_schema(
        [*((view, "serialization") for view in views), *((wish, "validation") for wish in wishes)],
        ref_template=_REF + "{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sightline", "version": version, "description": "What a stream does."},
        "paths": {
            **{path: {"get": dict(operation)} for path, operation in _paths().items()},
            **{path: {"post": dict(operation)} for path, operation in _actions().items()},
        },
        "components": {
            "schemas": {**schemas["$defs"], "Error": _ERROR},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "sightline_session"},
            },
        },
        "security": [{"bearer": []}, {"session": []}],
    }


def _paths() -> dict[str, Operation]:
    cameras, models = _list_of("CameraView"), _list_of("ModelView")
    by_camera = {"type": "object", "additionalProperties": _ref("Latency")}
    facts, not_found = {"type": "object"}, {"404": _error("There is no such camera.")}
    no_picture = {"503": _error("No picture at the moment, or too many viewers."), **not_found}
    return {
        "/api/v1/state": _get("Everything of a moment", _ref("Snapshot")),
        "/api/v1/cameras": _get("All cameras", _wrapped("cameras", cameras)),
        "/api/v1/cameras/{camera}": _get("One camera", _ref("CameraView"), [_CAMERA], not_found),
        "/api/v1/models": _get("All models", _wrapped("models", models)),
        "/api/v1/latency": _get("By camera, stage and model, milliseconds", _wrapped("latency", by_camera)),
        "/api/v1/settings": _get(
            "Those that differ from their defaults, secrets masked", _wrapped("settings", facts)
        ),
        "/api/v1/device": _get("Facts of the machine", _wrapped("device", facts)),
        "/api/v1/events": _get(
            "The newest events first",
            _wrapped("events", {"type": "array", "items": {"type": "object"}}),
            [
                _query("limit", {**_COUNTED, "maximum": MOST_EVENTS, "default": SOME_EVENTS}),
                _query(
                    "before",
                    {"type": "number", "minimum": 0, "maximum": LATEST_S},
                    "Only those of before, seconds since 1970.",
                ),
                _query(
                    "older_than", {"type": "string"}, "The next page: only those behind the event of this id."
                ),
                _query("camera", {"type": "string"}, "Only those of this camera."),
                _query("kind", {"type": "string", "enum": EVENT_KINDS}, "Only those of this kind."),
                _query("label", {"type": "string"}, "Only those of this class."),
            ],
            {"422": _error("A number is out of its range, or there is no such kind.")},
        ),
        "/api/v1/enrolment": _get(
            "What can be taught, and was",
            _wrapped("models", {"type": "array", "items": facts}),
            more={"409": _error("A file of the store cannot be used.")},
        ),
        "/api/openapi.json": _get("This description", facts),
        "/healthz": _open(_get("The daemon answers", kind="text/plain")),
        "/readyz": _open(_get("Results come", kind="text/plain", more={"503": _text("Not yet.")})),
        "/metrics": _get("For Prometheus", kind="text/plain"),
        "/snapshot/{camera}.jpg": _get("The next picture", None, [_CAMERA], no_picture, "image/jpeg"),
        "/stream/{camera}.mjpg": _get(
            "Pictures without end", None, [_CAMERA], no_picture, "multipart/x-mixed-replace"
        ),
    }


def _actions() -> dict[str, Operation]:
    return {
        "/api/v1/reload": _post(
            "Read the configuration anew; `reloads` tells what became of it", "NoBody", "202"
        ),
        "/api/v1/enrolment/teach": _post("Take pictures and teach a class", "Teaching"),
        "/api/v1/enrolment/forget": _post("Delete a class", "ClassName"),
    }


def _post(summary: str, body: str, status: str = "200") -> dict[str, Any]:
    """One that changes something."""
    more = {
        "404": _error("Nothing can be changed here."),
        "415": _error("The body is not JSON."),
        "409": _error("It cannot be done, or not now; the text says why."),
        "422": _error("The body is not as described."),
    }
    operation = _get(summary, {"type": "object"}, more=more)
    operation["responses"] = {status: operation["responses"].pop("200"), **operation["responses"]}
    content = {"application/json": {"schema": _ref(body)}}
    return {**operation, "requestBody": {"required": True, "content": content}}


def _get(
    summary: str,
    schema: Mapping[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    more: Mapping[str, Any] | None = None,
    kind: str = "application/json",
) -> dict[str, Any]:
    answers = {"200": {"description": summary, "content": {kind: {"schema": schema} if schema else {}}}}
    refused = {status: _error(text) for status, text in _REFUSALS.items()}
    return {
        "summary": summary,
        **({"parameters": parameters} if parameters else {}),
        "responses": {**answers, **refused, **(more or {})},
    }


def _open(operation: dict[str, Any]) -> dict[str, Any]:
    """One that needs no secret."""
    return {**operation, "security": []}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF + name}


def _list_of(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _wrapped(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _query(name: str, schema: Mapping[str, Any], text: str = "") -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _error(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}


def _text(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"text/plain": {}}}

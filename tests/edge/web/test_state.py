"""What leaves the machine: the fields that are named, and no secret in any of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_stage import Still, camera, snapshot

from edge.web.state import Snapshot, Snapshots, masked

PASSWORDS = st.text(
    st.characters(codec="ascii", min_codepoint=33, exclude_characters="\"'"), min_size=6, max_size=20
).map(lambda text: "Zq9" + text)


@given(PASSWORDS)
def test_a_password_in_an_address_is_nowhere_in_what_is_shown(password: str) -> None:
    address = f"rtsp://viewer:{password}@10.0.0.5/main"
    content = snapshot(
        cameras=[camera("door", source=address, last_error=f"{address}: no answer", password=password)],
        models=[{"name": "m", "backend": "b", "precision": "p", "refused": [f"{address} failed"]}],
        sinks=[{"name": "mqtt", "lost": 1, "last_error": f"{address} is away"}],
        settings={"source": address, "mqtt": {"password": password, "user": "u"}, "web": {"token": password}},
        device={"note": address},
        secret=password,
    )
    shown = Snapshot.model_validate(content).model_dump_json()
    assert password not in shown
    assert json.dumps(password)[1:-1] not in shown


def test_the_rest_of_an_address_stays() -> None:
    assert masked({"source": "rtsp://me:pw@cam/main?token=1&x=2"}) == {
        "source": "rtsp://***@cam/main?token=***&x=2"
    }


def test_files_and_switches_keep_their_values() -> None:
    tree = {
        "token_file": "/etc/token",
        "auth": True,
        "password": None,
        "threads": 2,
        "api_key": 7,
        "tokens": ["a"],
    }
    assert masked(tree) == {**tree, "api_key": "***", "tokens": ["***"]}


def test_a_file_name_that_is_no_text_does_not_take_the_page_away() -> None:
    """Linux takes any bytes for a name, and Python shows them as lone surrogates."""
    content = snapshot(
        cameras=[camera("album", last_error="'caf\udce9.jpg' is no image")], device={"a": "\udce9"}
    )
    shown = json.loads(Snapshot.model_validate(content).model_dump_json())
    assert shown["cameras"][0]["last_error"] == "'caf?.jpg' is no image"


def test_what_is_not_named_is_dropped() -> None:
    seen = Snapshot.model_validate(snapshot("door", plan="x"))
    assert "plan" not in seen.model_dump()
    assert seen.cameras[0].name == "door"


@pytest.mark.parametrize(
    ("changed", "ready"),
    [
        ({}, True),
        ({"models": []}, False),
        ({"cameras": []}, False),
        ({"cameras": [camera("a", state="lost"), camera("b")]}, True),
        ({"cameras": [camera("a", state="lost")]}, False),
    ],
)
def test_ready_means_that_results_come(changed: dict[str, Any], ready: bool) -> None:
    assert Snapshot.model_validate(snapshot("door", **changed)).ready is ready


def test_many_who_look_cost_the_daemon_one_snapshot() -> None:
    asked = []

    class Counting(Still):
        def snapshot(self) -> dict[str, Any]:
            asked.append(1)
            return self.content

    snapshots = Snapshots(Counting(), age_s=60)
    assert snapshots.newest() is snapshots.newest()
    assert len(asked) == 1
    fresh = Snapshots(Counting(), age_s=-1)
    fresh.newest()
    fresh.newest()
    assert len(asked) == 3

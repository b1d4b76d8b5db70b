"""Addresses of cameras with a secret in each, of every shape, and a look for them in what a daemon tells."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, quote_plus

CAMERAS_AT_ONCE = 20

SIGNS = "!$&*+,;=:@/?#%|~^()[]<>{} \"'`\\éß漢😀"
"""What is put around the marker of a secret; what an address must quote is quoted where it stands in one."""

CLOSED = "127.0.0.1:9"
"""Nothing listens there, so that each camera fails and says why."""

Shape = Callable[[str], str]


def _user(scheme: str) -> Shape:
    return lambda secret: f"{scheme}://admin:{quote(secret, safe='')}@{CLOSED}/main"


def _raw_user(scheme: str) -> Shape:
    """As people write it: not quoted."""
    return lambda secret: f"{scheme}://admin:{secret}@{CLOSED}/main"


def _query(key: str) -> Shape:
    return lambda secret: f"http://{CLOSED}/video?width=3&{key}={quote_plus(secret)}&x=1"


LITERAL: tuple[Shape, ...] = (
    *(_user(scheme) for scheme in ("rtsp", "rtsps", "http", "https")),
    *(_raw_user(scheme) for scheme in ("rtsp", "http")),
    lambda secret: f"rtsp://{quote(secret, safe='')}@{CLOSED}/main",
    lambda secret: f"rtsp://{quote(secret, safe='')}:x@{CLOSED}/main",
    *(_query(key) for key in ("token", "password", "pwd", "api_key", "access_token", "auth", "sig", "jwt")),
    lambda secret: f"rtsp://{CLOSED}/user=admin&password={quote(secret, safe='')}&channel=1.sdp",
    lambda secret: (
        f'gst://rtspsrc location=rtsp://{CLOSED}/x user-id=me user-pw="{_gst(secret)}" ! decodebin'
    ),
    lambda secret: f"gst://rtspsrc location=rtsp://me:{quote(secret, safe='')}@{CLOSED}/x ! decodebin",
    lambda secret: f"fault://rtsp://me:{quote(secret, safe='')}@{CLOSED}/x?freeze=5..8",
)


def _gst(secret: str) -> str:
    return secret.replace("\\", "").replace('"', "")


def leaky_config(folder: Path, numbers: Iterable[int]) -> tuple[str, dict[str, str], list[str]]:
    """A configuration of one camera a number, its environment, and what must be seen nowhere.

    Every third secret is in the environment, every third in a file, the others in the address itself. A
    secret is a marker of letters and digits, which no encoding changes, with signs before and behind it.
    """
    tables, environment, markers = [], {}, []
    (folder / "secrets").mkdir(exist_ok=True)
    for number in numbers:
        chance = random.Random(number)
        marker = "".join(chance.choices("abcdefghijkmnpqrstuvwxyz23456789", k=12))
        secret = _signs(chance) + marker + _signs(chance)
        source = _source(number, secret, folder, environment)
        tables.append(f'[[cameras]]\nname = "c{number}"\nsource = {_toml(source)}\n')
        markers.append(marker)
    ending = '[sinks]\njsonl = "r.jsonl"\n[sinks.events]\npath = "e.sqlite"\n[web]\nport = 0\nrequests_per_s = 10000\n'
    return (
        'build_plans = false\nmodel = "cifar10-convnetjs"\n' + "".join(tables) + ending,
        environment,
        markers,
    )


def _signs(chance: random.Random) -> str:
    return "".join(chance.choices(SIGNS, k=chance.randrange(4)))


def _source(number: int, secret: str, folder: Path, environment: dict[str, str]) -> str:
    way, shape = number % 3, LITERAL[number // 3 % len(LITERAL)]
    if way == 0:
        return shape(secret)
    user_info = ("rtsp://admin:{}@" + CLOSED + "/main", "http://" + CLOSED + "/v?token={}")[number % 2]
    if way == 1:
        environment[f"PW_{number}"] = secret
        return user_info.format(f"${{env:PW_{number}}}")
    path = folder / "secrets" / str(number)
    path.write_text(secret, encoding="utf-8")
    return user_info.format(f"${{file:{path}}}")


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def found_in(places: Mapping[str, bytes], markers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each place with a marker that is seen in it."""
    for place, content in places.items():
        for marker in markers:
            if marker.encode() in content:
                yield place, marker

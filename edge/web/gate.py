"""The gate before every route: who asks, under which name, how often, and with how large a body.

Nothing passes unless it is allowed: a path that is not in `PUBLIC` needs a secret, whether or not there
is such a route. The gate looks at the decoded path as a whole, and no route reads a file by it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge.web.credentials import Credentials, Sessions
from edge.web.limits import Limiter, address_key
from edge.web.settings import WebSettings

PUBLIC = frozenset({"/login", "/healthz", "/readyz"})
"""The paths that answer without a secret. They name no camera, no model and no setting."""

PAGES = frozenset({"/", "/login"})
"""What a link on another site may lead to."""

COOKIE = "sightline_session"
LARGEST_BODY = 8 * 1024
LARGEST_HEAD = 16 * 1024
"""Of the address and the headers; the server bounds what has not arrived whole, this what has."""

BURST = 4
"""Times the requests of a second, at once: a page that opens asks for several things."""

LOGIN_TRIES, LOGIN_TRIES_PER_S = 5, 1 / 30
ALL_LOGIN_TRIES, ALL_LOGIN_TRIES_PER_S = 30, 1 / 5
"""Wrong secrets, of one address and of all together."""

HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # 'no-referrer' would make the login form's Origin 'null'
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""On every answer; a route may set its own in place of one."""


def refusal(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says no, and why: `{"error": TEXT}`."""
    body = json.dumps({"error": text})
    return Response(body, status, headers=headers, media_type="application/json")


class Guard:
    """What the gate and the login share: secrets, sessions, and how often somebody was wrong."""

    def __init__(self, settings: WebSettings, credentials: Credentials) -> None:
        self.settings = settings
        self.credentials = credentials
        self.sessions = Sessions()
        self._wrong = Limiter(LOGIN_TRIES_PER_S, LOGIN_TRIES)
        self._wrong_of_all = Limiter(ALL_LOGIN_TRIES_PER_S, ALL_LOGIN_TRIES, most_keys=1)

    async def check(self, scope: Scope, secret: str) -> Response | None:
        """None for a right secret; else what to answer. Every wrong one makes the next ones rarer."""
        if self.credentials.remembers(secret):
            return None
        key, now_s = address_key(scope.get("client")), time.monotonic()
        wait_s = max(self._wrong.wait_s(key, now_s), self._wrong_of_all.wait_s("", now_s))
        if wait_s > 0:
            text = f"Too many wrong secrets. Try again in {wait_s:.0f} seconds."
            return refusal(429, text, {"retry-after": str(int(wait_s) + 1)})
        # Counted before the comparison, which takes a while: many at once shall not all get a try.
        self._wrong.take(key, now_s)
        self._wrong_of_all.take("", now_s)
        if await run_in_threadpool(self.credentials.accepts, secret):
            self._wrong.give_back(key)
            self._wrong_of_all.give_back("")
            return None
        return refusal(401, "The secret is wrong.", {"www-authenticate": "Bearer"})


class Gate:
    """The outermost layer of the application, see the module.

    Args:
        app: what lies behind it.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        rate = guard.settings.requests_per_s
        self._requests = Limiter(rate, rate * BURST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":  # anything else, a websocket, is left without an answer
            await self._pass(scope, receive, _with_headers(send))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        answer = (
            _of_large_head(scope)
            or self._of_wrong_host(headers)
            or self._of_too_many(scope)
            or _of_other_site(scope, headers)
            or await self._of_stranger(scope, headers)
        )
        body = b"" if answer else await _body(headers, receive)
        if body is None:
            answer = refusal(413, f"A request may have {LARGEST_BODY} bytes.", {"connection": "close"})
        if answer is not None:
            await answer(scope, receive, send)
        else:
            await self._app(scope, _replayed(body or b"", receive), send)

    def _of_wrong_host(self, headers: Headers) -> Response | None:
        """The name in the address bar must be ours, or a site could rebind its own name to this machine."""
        host = headers.get("host", "")
        if _is_allowed(host, self._guard.settings):
            return None
        return refusal(421, "This is not the host you asked for. Add its name to `allowed_hosts` in [web].")

    def _of_too_many(self, scope: Scope) -> Response | None:
        if self._requests.take(address_key(scope.get("client")), time.monotonic()):
            return None
        return refusal(429, "Too many requests.", {"retry-after": "1"})

    async def _of_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        guard, path = self._guard, scope["path"]
        if not guard.credentials.required or path in PUBLIC:
            return None
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return await guard.check(scope, secret.strip())
        if guard.sessions.holds(session_key(headers)):
            return None
        if path == "/" and scope["method"] in ("GET", "HEAD"):
            return RedirectResponse("/login", 303)
        return refusal(401, "Sign in, or send a bearer token.", {"www-authenticate": "Bearer"})


def _of_large_head(scope: Scope) -> Response | None:
    size = len(scope["raw_path"]) + len(scope["query_string"])
    if size + sum(len(name) + len(value) for name, value in scope["headers"]) <= LARGEST_HEAD:
        return None
    return refusal(
        431, f"The address and the headers may have {LARGEST_HEAD} bytes.", {"connection": "close"}
    )


def session_key(headers: Headers) -> str:
    """The session's key in the cookie; empty where there is none."""
    return cookie_parser(headers.get("cookie", "")).get(COOKIE, "")


def _is_allowed(host: str, settings: WebSettings) -> bool:
    """`localhost`, any IP address, which no name can be rebound to, and the names of the settings."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if not name or "@" in host or "/" in host:
        return False
    names = {"localhost", settings.host.lower(), *(allowed.lower() for allowed in settings.allowed_hosts)}
    return name.rstrip(".") in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _of_other_site(scope: Scope, headers: Headers) -> Response | None:
    """Another site may link to the pages; it may not embed, fetch or post anything."""
    origin = headers.get("origin")
    if origin is not None and _host_of(origin) != headers.get("host"):
        return refusal(403, "Asked for by another site.")
    if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
        return None
    is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    if is_link and scope["method"] == "GET" and scope["path"] in PAGES:
        return None
    return refusal(403, "Asked for by another site.")


def _host_of(origin: str) -> str | None:
    """Host and port of an Origin header; None for `null` and anything that is no http(s) origin."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc if parts.scheme in ("http", "https") else None


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The whole body; None when it is too large. A client that goes away ends it early."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return None
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        if not message.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, once, and then what comes."""
    left = [body]

    async def replay() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return replay


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return with_headers

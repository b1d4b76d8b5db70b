"""The gate: nothing passes that is not allowed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from web_stage import Still, cheap_hash, serving

from edge.web.app import make_app
from edge.web.credentials import Credentials, SecretHash
from edge.web.gate import (
    ALL_LOGIN_TRIES,
    BURST,
    COOKIE,
    HEADERS,
    LARGEST_BODY,
    LOGIN_TRIES,
    PUBLIC,
    Guard,
    _is_allowed,
    session_key,
)
from edge.web.live import LiveSink
from edge.web.server import WebServer
from edge.web.settings import WebSettings

SECRET = "a token that is long enough"
BEARER = {"authorization": f"Bearer {SECRET}"}

Clients = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secrets") / "token"
    path.write_text(cheap_hash(SECRET))
    return path


@pytest.fixture(scope="module")
def closed(token_file: Path) -> Iterator[WebServer]:
    with serving(Still(), token_file=token_file) as server:
        yield server


@pytest.fixture
def closed_anew(token_file: Path) -> Iterator[WebServer]:
    """One that nobody has tried a wrong secret on."""
    with serving(Still(), token_file=token_file) as server:
        yield server


@pytest.fixture(scope="module")
def open_() -> Iterator[WebServer]:
    with serving(Still()) as server:
        yield server


ACTIONS = ("/api/v1/reload", "/api/v1/enrolment/teach", "/api/v1/enrolment/forget")
"""They take POST alone."""


def all_paths(server: WebServer) -> list[str]:
    routes = server._app.routes
    assert all(isinstance(route, Route) for route in routes)
    return [route.path.replace("{camera}", "door") for route in routes]


def test_every_route_is_denied_unless_it_is_in_the_list(closed: WebServer, client: Clients) -> None:
    allowed = set()
    http = client(closed)
    for path in [*all_paths(closed), "/no/such/route", "/static/../api/v1/state", "/docs"]:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"):
            answer = http.request(method, path)
            is_sign = answer.status_code == 303 and answer.headers["location"] == "/login"
            if answer.status_code not in (401, 403) and not (is_sign and path == "/"):
                allowed.add(path)
    assert allowed == set(PUBLIC) == {"/login", "/healthz", "/readyz"}


def test_a_route_that_somebody_adds_is_denied_too(token_file: Path, client: Clients) -> None:
    settings = WebSettings(port=0, token_file=token_file)
    app = make_app(Still(), LiveSink(), settings)
    app.router.routes.append(Route("/api/v2/secrets", lambda request: PlainTextResponse("all of them")))
    server = WebServer(app, settings)
    server.start()
    try:
        assert client(server).get("/api/v2/secrets").status_code == 401
        assert client(server).get("/api/v2/secrets", headers=BEARER).text == "all of them"
    finally:
        server.stop()


@pytest.mark.parametrize(
    "path", ["/healthz/", "/healthz/../api/v1/state", "/login/../metrics", "/LOGIN", "/login%00"]
)
def test_nothing_like_a_public_path_is_public(closed: WebServer, path: str) -> None:
    # A client library would tidy the path up before it sends it.
    assert raw(closed, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 401")


def test_public_paths_tell_no_names(closed: WebServer, client: Clients) -> None:
    for path in PUBLIC:
        text = client(closed).get(path).text
        assert not any(name in text for name in ("door", "yard", "tflite")), path


def test_a_bearer_token_opens_everything(closed: WebServer, client: Clients) -> None:
    http = client(closed, headers=BEARER)
    for path in all_paths(closed):
        if not path.startswith(("/stream", "/snapshot", "/log")):
            assert http.get(path).status_code == (405 if path in ACTIONS else 200), path
    assert client(closed, headers={"authorization": f"Basic {SECRET}"}).get("/metrics").status_code == 401
    wrong = client(closed, headers={"authorization": "Bearer nope"}).get("/metrics")
    assert (wrong.status_code, wrong.headers["www-authenticate"]) == (401, "Bearer")


def test_the_second_request_with_a_token_does_not_pay_for_scrypt(
    closed: WebServer, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = client(closed, headers=BEARER)
    http.get("/api/v1/models")
    monkeypatch.setattr("edge.web.credentials.hashlib.scrypt", None)
    assert http.get("/api/v1/models").status_code == 200


def test_the_login_gives_a_cookie_that_scripts_and_other_sites_do_not_get(
    closed: WebServer, client: Clients
) -> None:
    http = client(closed)
    assert "Token or password" in http.get("/", follow_redirects=True).text
    answer = http.post("/login", data={"secret": SECRET})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "secure" not in cookie  # there is no TLS here
    assert SECRET not in cookie
    assert http.get("/api/v1/state").status_code == 200
    assert "Sign out" in http.get("/").text
    kept = dict(http.cookies)
    assert http.post("/logout").status_code == 303
    assert client(closed, cookies=kept).get("/api/v1/state").status_code == 401  # ended here, not only there


def test_behind_https_the_cookie_travels_over_nothing_else(token_file: Path, client: Clients) -> None:
    with serving(Still(), token_file=token_file, behind_https=True) as server:
        answer = client(server).post("/login", data={"secret": SECRET})
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_wrong_secrets_become_rare_and_sessions_go_on(closed_anew: WebServer, client: Clients) -> None:
    signed_in, guesser = client(closed_anew), client(closed_anew)
    signed_in.post("/login", data={"secret": SECRET})
    statuses = [
        guesser.post("/login", data={"secret": f"guess {n}"}).status_code for n in range(LOGIN_TRIES + 3)
    ]
    assert statuses == [401] * LOGIN_TRIES + [429] * 3
    bearer = guesser.get("/metrics", headers={"authorization": "Bearer another guess"})
    assert bearer.status_code == 429
    assert 1 <= int(bearer.headers["retry-after"]) <= 31
    assert signed_in.get("/api/v1/state").status_code == 200


def test_guessers_of_many_addresses_share_their_tries_and_a_right_secret_costs_none() -> None:
    guard = Guard(WebSettings(), Credentials((SecretHash.parse(cheap_hash(SECRET)),)))

    def answered(number: int, secret: str) -> int:
        answer = asyncio.run(guard.check({"client": (f"10.0.0.{number}", 1)}, secret))
        return 200 if answer is None else answer.status_code

    assert answered(200, SECRET) == 200
    assert [answered(number, "guess") for number in range(ALL_LOGIN_TRIES + 1)] == [401] * ALL_LOGIN_TRIES + [
        429
    ]


@pytest.mark.parametrize(
    "body", [b"", b"secret=", b"secret=%ff%00", b"\xff\xfe", b"a=1&" * 100, b"secret=" + b"x" * 5000]
)
def test_strange_forms_are_wrong_and_no_error(closed_anew: WebServer, client: Clients, body: bytes) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert client(closed_anew).post("/login", content=body, headers=form).status_code == 401


def test_every_answer_has_the_security_headers(closed: WebServer, client: Clients) -> None:
    http = client(closed)
    answers = [
        http.get("/"), http.get("/login"), http.get("/healthz"), http.get("/nothing"),
        http.get("/metrics", headers=BEARER), http.put("/", headers=BEARER),
        http.get("/healthz", headers={"host": "evil.org"}), http.post("/login", content=b"x" * 9000),
    ]  # fmt: skip
    for answer in answers:
        for name, value in HEADERS.items():
            wanted = answer.headers[name]
            assert wanted == value or name == "content-security-policy", (answer.url, name)
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "server" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8080", 200), ("127.0.0.1:9", 200), ("[::1]:8080", 200), ("192.168.1.5", 200),
        ("LocalHost.", 200), ("evil.org", 421), ("localhost.evil.org", 421), ("127.0.0.1.evil.org", 421),
        ("evil.org@localhost", 421), ("localhost/evil", 421), ("[::1", 421), ("", 421), ("a b", 421),
    ],
)  # fmt: skip
def test_a_rebound_name_is_not_served(open_: WebServer, host: str, status: int) -> None:
    answer = raw(open_, f"GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert int(answer.split()[1]) in ({status, 400} if status == 421 else {status})


def test_names_of_the_settings_are_served() -> None:
    settings = WebSettings(allowed_hosts=("Jetson.local",), token_file=Path("token"))
    assert _is_allowed("jetson.local:8080", settings)
    assert not _is_allowed("jetson.local.evil.org", settings)
    assert _is_allowed("jetson.local:8080", WebSettings(host="Jetson.local", token_file=Path("token")))


@pytest.mark.parametrize(
    "others", ["user[name]=1", "a,b=1", "novalue", "=;;==", "a" * 9000, "\xff=\x00", '"']
)
def test_what_other_programs_of_this_host_left_in_the_cookies_ends_no_session(others: str) -> None:
    """Browsers send the cookies of all ports."""
    assert session_key(Headers({"cookie": f"{others}; {COOKIE}=the-key"})) == "the-key"
    assert session_key(Headers({"cookie": others})) == session_key(Headers()) == ""


@given(st.text(max_size=40))
def test_no_host_header_breaks_the_check(host: str) -> None:
    settings = WebSettings(allowed_hosts=("jetson.local",), token_file=Path("token"))
    if _is_allowed(host, settings):
        name = urlsplit(f"//{host}").hostname or ""
        assert name.rstrip(".") in ("localhost", "jetson.local", "127.0.0.1") or not name.strip(
            "0123456789abcdef:."
        )


LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "passes"),
    [
        ("GET", "/", LINK, True),
        ("GET", "/", LINK | {"sec-fetch-dest": "iframe"}, False),
        ("GET", "/metrics", LINK, False),
        ("GET", "/snapshot/door.jpg", {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, False),
        ("GET", "/metrics", {"sec-fetch-site": "same-origin"}, True),
        ("GET", "/metrics", {"sec-fetch-site": "none"}, True),
        ("POST", "/logout", {"origin": "http://evil.org"}, False),
        ("POST", "/logout", {"origin": "null"}, False),
        ("POST", "/logout", {"origin": "http://localhost:1"}, False),
        ("POST", "/logout", {"origin": "http://localhost"}, True),
        ("GET", "/api/v1/state", {"origin": "http://evil.org"}, False),
    ],
)
def test_other_sites_may_link_and_nothing_else(
    open_: WebServer, client: Clients, method: str, path: str, headers: dict[str, str], passes: bool
) -> None:
    answer = client(open_).request(method, path, headers={"host": "localhost"} | headers)
    assert (answer.status_code != 403) is passes
    if not passes:
        assert answer.json() == {"error": "Asked for by another site."}


def test_a_body_is_bounded_whether_or_not_it_tells_its_length(open_: WebServer, client: Clients) -> None:
    http = client(open_)
    assert http.post("/login", content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert http.post("/login", content=iter([b"x" * 4096] * 3)).status_code == 413
    assert http.request("GET", "/healthz", content=b"x" * 100).status_code == 200
    begun = raw(open_, f"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: {10**12}\r\n\r\n")
    assert begun.startswith(b"HTTP/1.1 413")


def test_headers_are_bounded(open_: WebServer) -> None:
    long = "x" * 40_000
    for begun in (f"GET /{long}", f"GET / HTTP/1.1\r\nHost: localhost\r\nX: {long}"):
        whole = f"{begun} HTTP/1.1\r\nHost: localhost\r\n\r\n" if long in begun[:8] else f"{begun}\r\n\r\n"
        # 431 where it arrived at once, 400 where the server saw its beginning grow.
        assert raw(open_, whole).split()[1] in (b"431", b"400")


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/stream/..%2f..%2fetc%2fpasswd.mjpg",
        "/snapshot/../../etc/passwd.jpg", "/snapshot/%2e%2e%2fserver.jpg", "/page/script.js", "/edge/web/app.py",
        "/api/v1/cameras/..%5c..%5cetc", "/snapshot/door.jpg%00.html", "/snapshot/.jpg", "//etc/passwd",
        "/api/v1/cameras/" + "a" * 4000,
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(open_: WebServer, path: str) -> None:
    answer = raw(open_, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")
    assert b"root:" not in answer


def test_too_many_requests_are_refused_for_a_moment(client: Clients) -> None:
    with serving(Still(), requests_per_s=1) as server:
        http = client(server)
        answers = [http.get("/healthz") for _ in range(BURST + 6)]
    assert {answer.status_code for answer in answers[:BURST]} == {200}
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused[0].headers["retry-after"] == "1"


def test_websockets_are_not_spoken(open_: WebServer) -> None:
    upgrade = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert not raw(open_, upgrade).startswith(b"HTTP/1.1 101")


def raw(server: WebServer, request: str) -> bytes:
    """The beginning of what the server answers to bytes that no client library would send."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(request.encode("latin-1"))
        answer = b""
        while b"\r\n\r\n" not in answer and (part := connection.recv(65536)):
            answer += part
        return answer

"""The pages for people: one document each, with its style and script inside, and nothing from elsewhere.

The Content-Security-Policy names the style and the script by their hashes, so that a browser runs these
and no others, should a text of a camera or a model ever look like markup.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from edge.web.credentials import SESSION_S
from edge.web.gate import COOKIE, Guard, refusal, session_key

FOLDER = Path(__file__).parent / "page"


class Pages:
    """The overview and the login, put together once."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        style, script = (_text(name) for name in ("style.css", "script.js"))
        self._policy = _policy(style, script)
        self._index = _text("index.html").replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
        self._login = _text("login.html").replace("/*STYLE*/", style)

    async def index(self, request: Request) -> Response:
        """What the cameras see and how the stream does."""
        shown = "" if self._guard.credentials.required else "hidden"
        return self._answer(self._index.replace("{{SIGNED_IN}}", shown))

    async def login(self, request: Request) -> Response:
        """The form; where no secret is needed, the overview instead."""
        if request.method == "POST":
            return await self._signed_in(request)
        if not self._guard.credentials.required:
            return RedirectResponse("/", 303)
        return self._form("")

    async def logout(self, request: Request) -> Response:
        """End the session."""
        self._guard.sessions.end(session_key(request.headers))
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/", secure=self._guard.settings.behind_https, samesite="strict")
        return answer

    async def _signed_in(self, request: Request) -> Response:
        if not self._guard.credentials.required:
            return refusal(404, "There is nothing to sign in to: the page is open to this machine alone.")
        refused = await self._guard.check(request.scope, _field(await request.body()))
        if refused is not None:
            text = "This was wrong." if refused.status_code == 401 else "Too many tries. Wait a little."
            return self._form(text, refused.status_code)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            COOKIE,
            self._guard.sessions.begin(),
            max_age=int(SESSION_S),
            httponly=True,
            samesite="strict",
            secure=self._guard.settings.behind_https,
        )
        return answer

    def _form(self, message: str, status: int = 200) -> Response:
        return self._answer(self._login.replace("{{MESSAGE}}", escape(message)), status)

    def _answer(self, html: str, status: int = 200) -> Response:
        return HTMLResponse(html, status, headers={"content-security-policy": self._policy})


def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _field(body: bytes) -> str:
    """The field `secret` of a form; empty where there is none."""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=4).get("secret", [""])[0]
    except ValueError:
        return ""

"""The routes that change something: the configuration read anew, and classes that are taught and forgotten.

They take POST with a JSON body, which no form of another site can send; the gate lets only our own pages and holders
of a secret so far. Where nothing can be changed, since nobody gave `Controls`, they answer 404.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from edge.errors import SightlineError
from edge.secret import masked_in_text
from edge.web.gate import refusal

JSON = "application/json"


class Controls(Protocol):
    """What the page may do to what it shows."""

    def reload(self) -> None:
        """Read the configuration anew, soon; what became of it is in the snapshot's `reloads`."""

    def taught(self) -> list[dict[str, Any]]:
        """The models that can be taught, each with its classes; raises SightlineError."""

    def teach(self, camera: str, model: str, label: str) -> dict[str, Any]:
        """Take pictures and teach a class; takes some seconds. Raises SightlineError."""

    def forget(self, model: str, label: str) -> None:
        """Delete a class; raises SightlineError."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ClassName(_Body):
    """A class of a model."""

    model: str = Field(min_length=1, max_length=200)
    label: str = Field(min_length=1, max_length=200)


class Teaching(ClassName):
    """What is to be taught, from which camera's pictures."""

    camera: str = Field(min_length=1, max_length=64)


class NoBody(_Body):
    """An empty object."""


B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Actions:
    """The endpoints; `controls` is None where nothing can be changed."""

    controls: Controls | None

    async def reload(self, request: Request) -> Response:
        """Have the configuration read; 202, since it is done later."""
        return await self._do(request, NoBody, lambda controls, body: controls.reload(), 202)

    async def taught(self, request: Request) -> Response:
        """What can be taught, and was."""
        if self.controls is None:
            return _json({"models": []})
        return await _answer(self.controls.taught, lambda found: {"models": found})

    async def teach(self, request: Request) -> Response:
        """Teach a class from a camera."""
        return await self._do(
            request, Teaching, lambda controls, body: controls.teach(body.camera, body.model, body.label)
        )

    async def forget(self, request: Request) -> Response:
        """Forget a class."""
        return await self._do(
            request, ClassName, lambda controls, body: controls.forget(body.model, body.label)
        )

    async def _do(
        self, request: Request, kind: type[B], act: Callable[[Controls, B], Any], status: int = 200
    ) -> Response:
        controls = self.controls
        if controls is None:
            return refusal(404, "Nothing can be changed here.")
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return refusal(415, f"Expected a body of the type {JSON}.")
        try:
            body = kind.model_validate_json(await request.body())
        except ValidationError as error:
            return refusal(422, _explained(error))
        return await _answer(lambda: act(controls, body), lambda found: found or {}, status)


async def _answer(
    act: Callable[[], Any], shown: Callable[[Any], dict[str, Any]], status: int = 200
) -> Response:
    """Do it on a thread of its own; what is wrong is told, and no secret with it."""
    try:
        return _json(shown(await run_in_threadpool(act)), status)
    except SightlineError as error:
        return refusal(409, masked_in_text(str(error)))


def _explained(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}." if where else f"{first['msg']}."


def _json(content: Any, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type=JSON)

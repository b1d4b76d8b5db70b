"""HTTP clients for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest


@pytest.fixture
def client() -> Iterator[Callable[..., httpx.Client]]:
    """Makes HTTP clients of a server, closed at the end."""
    made: list[httpx.Client] = []

    def of(server: Any, **options: Any) -> httpx.Client:
        made.append(httpx.Client(base_url=server.url, timeout=10, **options))
        return made[-1]

    yield of
    for one in made:
        one.close()

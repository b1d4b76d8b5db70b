"""Makes `web_stage` and `web_chromium`, which lie beside it, known to the tests of this folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))


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

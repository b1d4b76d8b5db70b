"""What docs/sinks.md shows is a valid configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edge.config import StreamSettings

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("page", ["sinks.md", "enrolment.md"])
def test_the_settings_of_the_page_are_valid(tmp_path: Path, page: str) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "stream.toml"
    path.write_text(toml)
    settings = StreamSettings.read(path)
    if page == "sinks.md":
        assert settings.sinks.mqtt is not None
        assert settings.sinks.snapshots is not None
    else:
        assert settings.chosen()[0].enrolled == Path("enrolled")

"""Who can be reached by others needs a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edge.web.settings import WebSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_the_loopback_needs_no_secret(host: str) -> None:
    assert WebSettings(host=host).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "jetson.local", "127.0.0.1.evil.org", ""])
def test_every_other_host_is_refused_without_a_secret(host: str) -> None:
    with pytest.raises(ValidationError, match=r"anybody could watch.*edge\.web token FILE"):
        WebSettings(host=host)
    assert not WebSettings(host=host, token_file=Path("token")).is_loopback
    assert not WebSettings(host=host, password_hash_file=Path("password")).is_loopback


@pytest.mark.parametrize(("key", "value"), [("behind_https", True), ("allowed_hosts", ("cams.example.org",))])
def test_a_proxy_on_the_loopback_needs_a_secret_too(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=f"{key} lets other machines in"):
        WebSettings.model_validate({key: value})
    assert WebSettings.model_validate({key: value, "token_file": "token"}).is_loopback


@pytest.mark.parametrize(
    "wrong", [{"port": 65536}, {"max_viewers": 0}, {"requests_per_s": 0}, {"tokenfile": "x"}]
)
def test_wrong_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        WebSettings.model_validate(wrong)


def test_the_documented_table_is_valid() -> None:
    import sys

    import edge.web.settings as module

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    text = (module.__doc__ or "").partition("\n\n")[2]
    settings = WebSettings.model_validate(tomllib.loads(text)["web"])
    assert settings.allowed_hosts == ("jetson.local",)

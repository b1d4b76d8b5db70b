"""The settings of the page, a table `[web]` of the configuration.

[web]
host = "127.0.0.1"                       # beyond the loopback only with a token or a password
port = 8080
token_file = "/etc/sightline/web.token"  # both hold a hash, written by `python -m edge.web token FILE`
password_hash_file = "/etc/sightline/web.password"
allowed_hosts = ["jetson.local"]         # names under which browsers may ask, besides IP addresses
behind_https = false                     # a reverse proxy speaks TLS: cookies go over it alone
max_viewers = 8                          # of live pictures, all cameras together
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class WebSettings(BaseModel):
    """Where the page is served, and to whom.

    Attributes:
        host: an IP address of this machine, or `localhost`; `0.0.0.0` or `::` for all of them.
        port: 0 takes any that is free.
        token_file, password_hash_file: each holds the hash of one secret, see `edge.web.credentials`.
        allowed_hosts: names that a request's Host header may have; IP addresses and `localhost` always
            may, because a rebound name is never one of them.
        behind_https: cookies are marked `Secure`. Set it when a reverse proxy speaks TLS.
        max_viewers: live pictures at a time; the next one is refused.
        requests_per_s: of one address, on average.
        enrolment: classes can be taught and forgotten on the page, of models with `enrolled`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    token_file: Path | None = None
    password_hash_file: Path | None = None
    allowed_hosts: tuple[str, ...] = ()
    behind_https: bool = False
    max_viewers: int = Field(default=8, ge=1, le=256)
    requests_per_s: float = Field(default=30.0, ge=1, le=10_000)
    enrolment: bool = False

    @model_validator(mode="after")
    def _beyond_the_loopback_only_with_a_secret(self) -> WebSettings:
        if self.token_file is None and self.password_hash_file is None and (opened := self._opened_by()):
            raise ValueError(
                f"{opened} lets other machines in, and neither token_file nor password_hash_file is set: "
                "anybody could watch. Write one with `python -m edge.web token FILE`, or leave this out"
            )
        return self

    def _opened_by(self) -> str:
        """The setting by which others than this machine reach the page; a proxy counts as others."""
        if not self.is_loopback:
            return f"host = '{self.host}'"
        return "behind_https" if self.behind_https else "allowed_hosts" if self.allowed_hosts else ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the page. A name other than `localhost` is taken to be open."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

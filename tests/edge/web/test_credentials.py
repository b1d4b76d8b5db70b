"""Secrets: stored as hashes, compared whole, bounded in what they cost."""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edge.errors import InputError
from edge.web import credentials
from edge.web.__main__ import main
from edge.web.credentials import Credentials, SecretHash, Sessions, read_hash
from edge.web.settings import WebSettings

HASHED = SecretHash.of("correct horse battery staple")


def test_a_hash_knows_its_secret_and_no_other() -> None:
    again = SecretHash.parse(HASHED.line() + "\n")
    assert again == HASHED
    assert again.matches("correct horse battery staple")
    assert not again.matches("correct horse battery stapl")
    assert SecretHash.of("correct horse battery staple").line() != HASHED.line()  # salted


def test_a_hash_does_not_show_itself() -> None:
    shown = repr(HASHED)
    assert HASHED.line().split("$")[-1] not in shown
    assert shown == "SecretHash(n=32768, r=8, p=1)"


@given(st.text(max_size=80))
def test_any_other_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        SecretHash.parse(line)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        *((1, cost, "no costs") for cost in ("1048577", "3", "9999999999", "-2", "0", "1")),
        *((2, cost, "no costs") for cost in ("0", "1000")),
        (3, "99", "no costs"),
        (3, "one", "invalid literal"),
        (4, "AAAA", "too short"),
        (5, "AAAA", "too short"),
        (5, "!" + HASHED.line().split("$")[5], "base64"),
    ],
)
def test_costs_that_would_stop_the_machine_are_refused(place: int, value: str, why: str) -> None:
    parts = HASHED.line().split("$")
    parts[place] = value
    with pytest.raises(ValueError, match=why):
        SecretHash.parse("$".join(parts))


def test_a_file_with_a_plain_secret_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("hunter2-hunter2")
    with pytest.raises(InputError, match=r"does not hold the hash.*edge\.web token") as refused:
        read_hash(path)
    assert "hunter2" not in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.token cannot be read: No such file"):
        read_hash(tmp_path / "no.token")


def test_a_right_secret_is_remembered_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "hash"
    path.write_text(HASHED.line())
    known = Credentials.read(WebSettings(password_hash_file=path))
    assert known.required
    assert not known.remembers("correct horse battery staple")
    assert known.accepts("correct horse battery staple")
    assert known.remembers("correct horse battery staple")
    assert not known.accepts("wrong")
    assert not known.remembers("wrong")


def test_the_longest_password_that_can_be_set_opens_the_page() -> None:
    assert Credentials((SecretHash.of("x" * credentials.LONGEST_SECRET),)).accepts(
        "x" * credentials.LONGEST_SECRET
    )


def test_secrets_are_compared_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes 32 MB: many guessers at once would take what the models need."""
    now: list[int] = []
    most: list[int] = []

    def compared(hashed: SecretHash, secret: str) -> bool:
        now.append(1)
        most.append(len(now))
        time.sleep(0.01)
        now.pop()
        return False

    monkeypatch.setattr(SecretHash, "matches", compared)
    known = Credentials((HASHED,))
    with ThreadPoolExecutor(4) as guessers:
        list(guessers.map(known.accepts, ["a", "b", "c", "d"]))
    assert most == [1] * 4


@pytest.mark.parametrize("secret", ["", "x" * 257, "\ud800", "ü" * 200])
def test_strange_secrets_are_wrong_and_no_error(secret: str) -> None:
    assert not Credentials((HASHED,)).accepts(secret)


def test_a_file_of_another_user_says_whose_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a token that root wrote, for a service with a user of its own."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"web\.token cannot be read: Permission denied\..*chown"):
        read_hash(Path("/etc/sightline/web.token"))


def test_sessions_are_bounded_and_end() -> None:
    sessions = Sessions()
    keys = [sessions.begin() for _ in range(credentials.MOST_SESSIONS + 1)]
    assert [sessions.holds(key) for key in (keys[0], keys[1], keys[-1], "", "guess")] == [
        False, True, True, False, False,
    ]  # fmt: skip
    sessions.end(keys[-1])
    assert not sessions.holds(keys[-1])
    assert not Sessions(lifetime_s=0).holds(Sessions(lifetime_s=0).begin())


def test_the_command_makes_a_token_and_keeps_only_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "web.token"
    token = CliRunner().invoke(main, ["token", str(path)]).output.strip()
    assert len(token) >= 40
    assert token not in path.read_text()
    assert read_hash(path).matches(token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_command_asks_for_a_password_twice_and_refuses_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "web.password"
    short = CliRunner().invoke(main, ["password", str(path)], input="short\nshort\n")
    assert (short.exit_code, path.exists()) == (2, False)
    assert "12 to 256 characters" in short.output
    done = CliRunner().invoke(main, ["password", str(path)], input="long enough it is\n" * 2)
    assert done.exit_code == 0
    assert read_hash(path).matches("long enough it is")


def test_a_file_that_cannot_be_written_ends_the_command_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "edge.web", "token", str(tmp_path / "file" / "web.token")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("Error: Cannot write")

"""Who may look: secrets as scrypt hashes, and the sessions of browsers that showed one.

A secret's file holds one line, `scrypt$N$r$p$SALT$HASH` (salt and hash in base64), and never the secret
itself. Comparing takes tens of milliseconds and 32 MB on purpose, so that guessing is slow for a thief
of the file too; a secret that was right is remembered, in memory, by a keyed hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from edge.errors import InputError
from edge.web.settings import WebSettings

N, R, P = 2**15, 8, 1
MOST_N, MOST_R, MOST_P = 2**20, 32, 16
MAX_MEMORY = 1 << 30
SALT_BYTES, HASH_BYTES = 16, 32

LONGEST_SECRET = 256
SHORTEST_PASSWORD = 12
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 64

_MAKE_ONE = "Write one with `python -m edge.web token FILE` or `python -m edge.web password FILE`."


@dataclass(frozen=True)
class SecretHash:
    """What a secret's file holds; see the module. The secret cannot be computed from it."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    @classmethod
    def of(cls, secret: str) -> SecretHash:
        """Of a new secret, with a salt of its own."""
        salt = secrets.token_bytes(SALT_BYTES)
        return cls(N, R, P, salt, _scrypt(secret, salt, N, R, P))

    @classmethod
    def parse(cls, line: str) -> SecretHash:
        """Read a line; raises ValueError for anything else, also for costs that would stop the machine."""
        kind, *rest = line.strip().split("$")
        if kind != "scrypt" or len(rest) != 5:
            raise ValueError("not of the form scrypt$N$r$p$SALT$HASH")
        n, r, p = (int(text) for text in rest[:3])
        salt, digest = (base64.b64decode(text, validate=True) for text in rest[3:])
        if not (2 <= n <= MOST_N and n & (n - 1) == 0 and 1 <= r <= MOST_R and 1 <= p <= MOST_P):
            raise ValueError(f"N={n}, r={r}, p={p} are no costs of scrypt that this machine should pay")
        if not (len(salt) >= 8 and len(digest) == HASH_BYTES):
            raise ValueError("the salt or the hash is too short")
        return cls(n, r, p, salt, digest)

    def line(self) -> str:
        """The content of a file."""
        salt, digest = (base64.b64encode(part).decode() for part in (self.salt, self.digest))
        return f"scrypt${self.n}${self.r}${self.p}${salt}${digest}"

    def matches(self, secret: str) -> bool:
        """Whether it is the hash of `secret`; takes as long for a wrong one as for the right one."""
        return hmac.compare_digest(_scrypt(secret, self.salt, self.n, self.r, self.p), self.digest)

    def __repr__(self) -> str:
        return f"SecretHash(n={self.n}, r={self.r}, p={self.p})"


def _scrypt(secret: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    content = secret.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(content, salt=salt, n=n, r=r, p=p, maxmem=MAX_MEMORY, dklen=HASH_BYTES)


def read_hash(path: Path) -> SecretHash:
    """The hash in a file; raises InputError when it is missing, unreadable or holds something else."""
    try:
        return SecretHash.parse(path.read_text(encoding="ascii"))
    except PermissionError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}. It is for its owner alone: give it to the user that runs "
            "Sightline (chown)."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}. {_MAKE_ONE}") from error
    except ValueError as error:
        # Its content is not shown: it may be the secret itself.
        raise InputError(
            f"{path} does not hold the hash of a secret (scrypt$N$r$p$SALT$HASH). {_MAKE_ONE}"
        ) from error


class Credentials:
    """The secrets that open the page. Without any it is open, which only the loopback may be.

    Args:
        hashes: of the token, the password, or both.
    """

    def __init__(self, hashes: tuple[SecretHash, ...] = ()) -> None:
        self._hashes = hashes
        self._key = secrets.token_bytes(32)
        self._known: tuple[bytes, ...] = ()
        self._one_at_a_time = threading.Lock()  # 32 MB and a core each: guessers wait for one another

    @classmethod
    def read(cls, settings: WebSettings) -> Credentials:
        """Of the files that the settings name; raises InputError where one holds no hash."""
        files = (settings.token_file, settings.password_hash_file)
        return cls(tuple(read_hash(path) for path in files if path is not None))

    @property
    def required(self) -> bool:
        """Whether there is a secret at all."""
        return bool(self._hashes)

    def remembers(self, secret: str) -> bool:
        """Whether it was found right before; takes microseconds."""
        seen = self._seen(secret)
        compared = [hmac.compare_digest(seen, known) for known in self._known]  # all, whichever is right
        return True in compared

    def accepts(self, secret: str) -> bool:
        """Whether it is one of the secrets; takes tens of milliseconds, and remembers one that is."""
        if not 0 < len(secret) <= LONGEST_SECRET:
            return False
        with self._one_at_a_time:
            right = True in [hashed.matches(secret) for hashed in self._hashes]
        if right:
            self._known += (self._seen(secret),)
        return right

    def _seen(self, secret: str) -> bytes:
        return hmac.digest(self._key, secret.encode("utf-8", "surrogatepass"), "sha256")


class Sessions:
    """Browsers that showed a secret, each known by a random key in its cookie. Used by one thread."""

    def __init__(self, lifetime_s: float = SESSION_S) -> None:
        self._lifetime_s = lifetime_s
        self._until_s: OrderedDict[bytes, float] = OrderedDict()

    def begin(self) -> str:
        """A new session's key; the oldest session ends where there are too many."""
        key = secrets.token_urlsafe(32)
        self._until_s[_fingerprint(key)] = time.monotonic() + self._lifetime_s
        while len(self._until_s) > MOST_SESSIONS:
            self._until_s.popitem(last=False)
        return key

    def holds(self, key: str) -> bool:
        """Whether it is the key of a session that has not ended."""
        return self._until_s.get(_fingerprint(key), 0.0) > time.monotonic()

    def end(self, key: str) -> None:
        """Forget a session; harmless for one that is none."""
        self._until_s.pop(_fingerprint(key), None)


def _fingerprint(key: str) -> bytes:
    """Looked up in place of the key: how long that takes tells nothing about a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

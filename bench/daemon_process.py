"""What `bench/faults_daemon.py` stands on: a daemon in a process of its own, and what its processes hold."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from faults_camera import children, wait_until

ROOT = Path(__file__).parents[1]
END_S = 10.0
"""A daemon that does not end within this time is killed."""

_URL = re.compile(r"The page is at (\S+)/")


class Daemon:
    """`sightline run CONFIG`, in a folder that takes its configuration and what it prints.

    Args:
        folder: exists; config: the TOML text; environment: beside this process's own.

    Attributes:
        folder: as given; started_s: when it was started, on the monotonic clock.
    """

    def __init__(self, folder: Path, config: str, environment: dict[str, str] | None = None) -> None:
        self.folder, self._config = folder, config
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self._environment |= environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self.started_s = 0.0

    def __enter__(self) -> Daemon:
        (self.folder / "run.toml").write_text(self._config)
        command = [sys.executable, "-m", "sightline", "run", "run.toml"]
        with open(self.folder / "out.txt", "wb") as out, open(self.folder / "err.txt", "wb") as err:
            self.started_s = time.monotonic()
            self._process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=self.folder, env=self._environment
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Of the daemon itself."""
        assert self._process is not None, "it is used in a `with`"
        return self._process.pid

    @property
    def printed(self) -> str:
        """What it has said so far, standard error included."""
        return "".join((self.folder / name).read_text(errors="replace") for name in ("out.txt", "err.txt"))

    def wait_printed(self, text: str, patience_s: float = 180.0) -> float:
        """When it had printed this, on the monotonic clock; raises GaveUp."""
        return wait_until(lambda: text in self.printed, patience_s)

    def end(self) -> tuple[float, int]:
        """SIGTERM; the seconds that it took to end, and its exit code (-9 where it had to be killed)."""
        assert self._process is not None, "it is used in a `with`"
        begin_s = time.monotonic()
        self._process.terminate()
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return time.monotonic() - begin_s, code

    def asked(self, path: str) -> bytes:
        """What its page answers to GET; an error answer's body as well."""
        found = _URL.search(self.printed)
        assert found, "the configuration has a table [web]"
        try:
            with urllib.request.urlopen(found[1] + path, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.read()

    def state(self) -> dict[str, Any]:
        """What its page says of the moment."""
        time.sleep(0.05)  # it is asked again and again, and is not to be kept busy with answering
        found: dict[str, Any] = json.loads(self.asked("/api/v1/state"))
        return found

    def processes(self) -> set[int]:
        """The daemon, its children, and theirs."""
        found, new = {self.pid}, {self.pid}
        while new:
            new = {child for parent in new for child in children(parent)} - found
            found |= new
        return found


@dataclass(frozen=True)
class Held:
    """What processes hold together.

    Attributes:
        pss_mb: memory, shared pages in proportion, MB of 10^6 bytes. It grows when other programs that use the same
            libraries end; private_mb does not: what is theirs alone.
        daemon_mb: private_mb of the daemon without its children.
    """

    pss_mb: float
    private_mb: float
    daemon_mb: float
    descriptors: int
    threads: int
    processes: int

    @classmethod
    def by(cls, daemon: Daemon) -> Held:
        """By a daemon and all that it started."""
        while True:
            pids = daemon.processes()
            try:
                memory = {pid: _memory_mb(pid) for pid in pids}
                descriptors = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
                threads = sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
            except OSError:  # one has ended meanwhile
                continue
            pss_mb, private_mb = (sum(found[i] for found in memory.values()) for i in range(2))
            return cls(pss_mb, private_mb, memory[daemon.pid][1], descriptors, threads, len(pids))


def _memory_mb(pid: int) -> tuple[float, float]:
    """Proportional and private."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = {name: int(kb) * 1024 / 1e6 for name, kb in re.findall(r"^(\w+):\s*(\d+) kB", text, re.MULTILINE)}
    return found["Pss"], found["Private_Clean"] + found["Private_Dirty"]

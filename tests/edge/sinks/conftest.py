"""A real MQTT broker."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stage


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes brokers with lines of `mosquitto.conf`; they end with the test."""
    if stage.mosquitto() is None:
        pytest.skip("mosquitto is not installed: nothing was sent to a real broker")
    made: list[Any] = []

    def make(*settings: str) -> Any:
        made.append(stage.Mosquitto(tmp_path, *(settings or ("allow_anonymous true",))))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a disk of so many bytes, and files where it is said, and returns its folder; only root may."""
    mounted: list[Path] = []

    def make(size: int, files: int = 0) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes={files}", "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no 'mount': nothing was written to a full disk")
        if done.returncode:
            pytest.skip(
                f"no disk can be made here, so nothing was written to a full one: {done.stderr.strip()}"
            )
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)

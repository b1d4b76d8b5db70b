"""How much memory there is, and what is said where it is too little."""

from __future__ import annotations

import re
from pathlib import Path

import keras
import pytest

from edge.errors import InputError
from train import memory
from train.data import load
from train.detection.loss import joined_heads
from train.memory import available_bytes, check_batch, check_memory, memory_errors_told
from train.models.face import face
from train.models.lenet import lenet5

PICTURE = (32, 32, 3)


def test_this_machine_has_some() -> None:
    available = available_bytes()
    if not Path("/proc/meminfo").is_file():
        pytest.skip("no /proc/meminfo: the memory of this system is not read")
    assert available is not None
    assert 10_000_000 < available < 10**14


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meminfo, group = tmp_path / "meminfo", tmp_path / "cgroup"
    monkeypatch.setattr(memory, "_MEMINFO", meminfo)
    monkeypatch.setattr(memory, "_CGROUP", group)
    assert available_bytes() is None
    meminfo.write_text("MemTotal:       8000000 kB\nMemAvailable:   4000000 kB\n")
    assert available_bytes() == 4_096_000_000
    group.mkdir()
    (group / "memory.stat").write_text("anon 1\ninactive_file 500\n")
    (group / "memory.current").write_text("1500\n")
    (group / "memory.max").write_text("max\n")
    assert available_bytes() == 4_096_000_000
    (group / "memory.max").write_text("10000\n")
    assert available_bytes() == 10_000 - (1500 - 500)
    (group / "memory.max").write_text("800\n")
    assert available_bytes() == 0


def test_the_advised_batch_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lenet5(32, 32, 10)
    monkeypatch.setattr(memory, "available_bytes", lambda: 5_000_000)
    with pytest.raises(InputError, match="a batch of 4096") as refused:
        check_batch(model, 4096, PICTURE)
    advised = re.search(r"batch_size=(\d+)", str(refused.value))
    assert advised is not None
    check_batch(model, int(advised[1]), PICTURE)
    with pytest.raises(InputError):
        check_batch(model, 2 * int(advised[1]), PICTURE)


def test_a_network_that_is_open_in_its_size_is_counted_at_the_pictures_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`face` keeps 10.6 MB of a crop of 256x256 pixels, layer by layer."""
    heads = face(None, None)
    model = keras.Model(heads.input, joined_heads(heads.outputs))
    monkeypatch.setattr(memory, "available_bytes", lambda: 200_000_000)
    with pytest.raises(InputError, match=r"Try batch_size=16\."):
        check_batch(model, 32, (256, 256, 3))
    check_batch(model, 16, (256, 256, 3))
    with pytest.raises(InputError, match=r"Try batch_size=4\."):
        check_batch(model, 16, (512, 512, 3))


def test_weights_that_do_not_fit_ask_for_a_smaller_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 500_000)
    with pytest.raises(InputError, match="smaller network"):
        check_batch(lenet5(32, 32, 10), 1, PICTURE)


def test_unknown_memory_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    check_memory(10**18, "All the world's pictures", "")
    check_batch(lenet5(32, 32, 10), 10**12, PICTURE)


def test_pictures_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000_000)
    with pytest.raises(InputError, match=r"1437 pictures of 320x320 take at least 0\.4 GB"):
        load("digits", "train", 320, 320)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("OOM when allocating tensor"),
        ValueError("RESOURCE_EXHAUSTED: Out of memory"),
    ],
)
def test_a_backends_lack_of_memory_is_told(error: Exception) -> None:
    with pytest.raises(InputError, match="not enough memory for a batch of 64"), memory_errors_told(64):
        raise error


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="something else"), memory_errors_told(64):
        raise RuntimeError("something else")

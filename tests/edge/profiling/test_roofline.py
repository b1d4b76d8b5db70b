"""Bounds by hand, and the micro-benchmark on this machine."""

from __future__ import annotations

import pytest

from edge.errors import InputError, MissingPackageError
from edge.profiling import roofline
from edge.profiling.devices import DEVICES, device
from edge.profiling.roofline import Roofline, measure


def test_the_slower_of_arithmetic_and_memory_is_the_bound() -> None:
    ten_gigamacs = Roofline(10e9, 5e9)
    assert ten_gigamacs.bound_ms(10e6, 1e6) == pytest.approx(1.0)
    assert ten_gigamacs.limit(10e6, 1e6) == "arithmetic"
    assert ten_gigamacs.bound_ms(10e6, 10e6) == pytest.approx(2.0)
    assert ten_gigamacs.limit(10e6, 10e6) == "memory"
    assert ten_gigamacs.bound_ms(0, 0) == 0


def test_this_processor_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "COPIED_BYTES", 2**20)
    found = measure("int8", seconds=0.02)
    # A tenth of a Raspberry Pi, and more than any processor: the right order of magnitude, no more.
    assert 1e8 < found.macs_per_s < 1e14
    assert 1e8 < found.bytes_per_s < 1e13
    assert found.source == "measured: LiteRT, 1 thread, one thread copying"


def test_without_litert_numpy_multiplies_in_fp32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> None:
        raise MissingPackageError("ai-edge-litert", "", "The roofline")

    monkeypatch.setattr(roofline, "_litert_product", missing)
    monkeypatch.setattr(roofline, "COPIED_BYTES", 2**20)
    assert "NumPy" in measure("fp32", seconds=0.02).source
    with pytest.raises(MissingPackageError, match="ai-edge-litert"):
        measure("int8", seconds=0.02)


def test_the_fastest_call_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, *(t for n in range(5) for t in (n, n + 0.5 - n / 10)), 9.0])
    monkeypatch.setattr(roofline.time, "perf_counter", lambda: next(clock))
    assert roofline._fastest_s(lambda: None, 0.0) == pytest.approx(0.1)


def test_devices_reproduce_their_makers_ratings() -> None:
    """Sparse TOPS of the GPU alone, as marketed: twice the dense rate on Orin."""
    rated = {"orin-nano": 40, "orin-nano-4": 20, "orin-nano-super": 67, "orin-nx-16": 60, "orin-nx-8": 50}
    for key, sparse in (rated | {"agx-orin-64": 170, "agx-orin-32": 108}).items():
        assert device(key).int8 == pytest.approx(sparse / 2, rel=0.03)
    for key, dense in {"agx-xavier": 22, "xavier-nx": 13.5}.items():
        assert device(key).int8 == pytest.approx(dense, rel=0.03)


def test_a_device_has_a_roofline_where_its_rate_is_known() -> None:
    found = DEVICES["orin-nano"].roofline("int8")
    assert found is not None
    assert (found.macs_per_s, found.bytes_per_s) == (10.25e12, 68e9)
    assert DEVICES["jetson-nano"].roofline("int8") is None


def test_only_devices_at_or_above_the_floor_are_supported() -> None:
    unsupported = {key for key, found in DEVICES.items() if not found.supported}
    assert unsupported == {"jetson-nano", "jetson-tx2", "xavier-nx", "agx-xavier"}
    assert all(found.source for found in DEVICES.values())


def test_an_unknown_device_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"No device 'orin' in the table.*orin-nano"):
        device("orin")

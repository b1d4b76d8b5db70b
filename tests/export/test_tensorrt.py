"""The builder against NVIDIA's own parser and builder (TensorRT-RTX works on machines without a GPU)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_onnx import make_onnx

import export.tensorrt
from edge.bundle import Bundle, shipped
from edge.runners.cuda import Device, NoGpu
from edge.runners.plans import Toolkit
from export.tensorrt import PlanError, Tensor, build_plan, device_to_build_for

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
onnx = pytest.importorskip("onnx")

RTX = Toolkit(trt, "tensorrt_rtx", trt.__version__)
FULL = Toolkit(trt, "tensorrt", "10.3.0")
"""The RTX edition under the full one's name: the same interface, with a timing cache that is empty."""

ORIN = Device("Orin", "8.7")


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


# --- NVIDIA's parser and builder, for real


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_becomes_an_engine_with_our_tensors(precision: str) -> None:
    plan = build_plan(make_onnx(precision), RTX)
    assert plan.inputs == (Tensor("pixels", "uint8", (1, 38, 38, 3)),)
    assert plan.outputs == (Tensor("logits", "float32", (1, 10)),)
    assert len(plan.content) > plan.weights_bytes > 0
    assert plan.content[:4] == b"vtrt"
    assert 0 < plan.build_seconds < 60


def test_the_engines_weights_shrink_with_the_precision() -> None:
    fp32, fp16, int8 = (build_plan(make_onnx(p), RTX).weights_bytes for p in ("fp32", "fp16", "int8"))
    assert fp16 <= 0.55 * fp32
    assert int8 <= 0.4 * fp32


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_onnx_file_becomes_an_engine(name: str) -> None:
    bundle = Bundle.open(name)
    for artefact in bundle.manifest.artefacts:
        if artefact.format == "onnx":
            plan = build_plan(bundle.content(artefact), RTX)
            assert {head.name: head.shape for head in bundle.manifest.outputs} == {
                head.name: head.shape for head in plan.outputs
            }


def test_the_parser_names_every_node_that_it_refuses() -> None:
    asymmetric = make_onnx("int8", **{"range1.zero": np.array(3, np.int8)})
    with pytest.raises(PlanError) as error:
        build_plan(asymmetric, RTX)
    assert "QuantizeLinear 'range1.q'" in str(error.value)
    assert "Non-zero zero point is not supported" in str(error.value)


def test_types_are_taken_from_the_file_and_never_mixed() -> None:
    mixed = make_onnx("fp16", bias1=np.zeros(64, np.float32))
    with pytest.raises(PlanError, match=r"'conv1'.*`input` and `bias` must be of same type") as error:
        build_plan(mixed, RTX)
    assert "catchCudaError" not in str(error.value)


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(PlanError, match="Failed to parse the ONNX model"):
        build_plan(make_onnx("fp32")[:500], RTX)
    with pytest.raises(PlanError, match="must have at least one output"):
        build_plan(b"", RTX)


def test_an_error_of_one_build_does_not_stand_in_the_next_ones_message() -> None:
    with pytest.raises(PlanError):
        build_plan(b"", RTX)
    with pytest.raises(PlanError) as error:
        build_plan(make_onnx("fp32"), RTX, on_step=lambda *_: False)
    assert "canceled by user" in str(error.value)
    assert "output" not in str(error.value)


def test_the_weights_of_one_build_are_not_taken_for_the_next_ones() -> None:
    build_plan(make_onnx("fp32"), RTX)
    log = export.tensorrt._log(trt)
    log.clear()
    assert log.weights_bytes is None


def test_progress_is_told_by_phase_and_step() -> None:
    seen: list[tuple[str, int, int, float]] = []

    def on_step(phase: str, done: int, of: int, share: float) -> bool:
        seen.append((phase, done, of, share))
        return True

    build_plan(make_onnx("fp32"), RTX, on_step=on_step)
    assert "Building engine" in {phase for phase, _, _, _ in seen}
    assert all(1 <= done <= of for _, done, of, _ in seen)
    assert any(done == of for _, done, of, _ in seen)
    shares = [share for _, _, _, share in seen]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    assert 0.8 < shares[-1] <= 1


def test_a_phase_that_is_over_counts_no_more() -> None:
    monitor = export.tensorrt._monitor(trt, lambda *_: True)
    monitor.phase_start("outer", None, 2)
    monitor.phase_start("inner", "outer", 4)
    monitor.step_complete("inner", 1)
    assert monitor.phases.share == 0.25
    monitor.phase_finish("inner")
    monitor.step_complete("outer", 0)
    assert monitor.phases.share == 0.5
    monitor.phase_finish("outer")
    assert monitor.phases.share == 1


def test_the_builder_is_configured() -> None:
    builder = trt.Builder(export.tensorrt._log(trt))
    config = export.tensorrt._configure(trt, builder, 1 << 27, None, lambda *_: True)
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 1 << 27
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.progress_monitor is not None


def test_the_network_is_strongly_typed_where_that_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    flags: list[int] = []

    class Spy:
        def __init__(self, log: Any) -> None:
            self.real = trt.Builder(log)

        def create_network(self, given: int) -> Any:
            flags.append(given)
            return self.real.create_network(given)

    log = export.tensorrt._log(trt)
    export.tensorrt._parse(trt, Spy(log), make_onnx("fp32"))
    assert flags == [1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]


def test_reasons_are_one_line_without_the_missing_driver() -> None:
    log = export.tensorrt._log(trt)
    log.clear()
    log.problems += ["first", "", "a\ncatchCudaError: no driver\nb"]
    assert log.reasons() == "first a b"
    log.problems[:] = ["catchCudaError: no driver"]
    assert log.reasons() == "catchCudaError: no driver"
    log.clear()
    assert log.reasons() == "its log says nothing"


def test_the_build_time_holds_all_of_the_builders_steps() -> None:
    steps_s: list[float] = []

    def on_step(phase: str, done: int, of: int, share: float) -> bool:
        steps_s.append(time.monotonic())
        return True

    plan = build_plan(make_onnx("fp32"), RTX, on_step=on_step)
    assert plan.build_seconds >= steps_s[-1] - steps_s[0] > 0


# --- the timing cache, which the full edition keeps


class TimingConfig:
    """Of `IBuilderConfig` what a timing cache needs; holds the blob that was set."""

    def __init__(self, readable: bool = True, matching: bool = True) -> None:
        self.readable, self.matching, self.blob = readable, matching, None

    def create_timing_cache(self, blob: bytes) -> list[bytes] | None:
        return [blob] if self.readable or not blob else None

    def set_timing_cache(self, cache: list[bytes], ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        (blob,) = cache
        if blob and not self.matching:
            return False
        self.blob = blob
        return True


@pytest.mark.parametrize(
    ("config", "expected"),
    [(TimingConfig(), b"known"), (TimingConfig(readable=False), b""), (TimingConfig(matching=False), b"")],
)
def test_a_timing_cache_is_used_when_it_is_of_this_device(
    tmp_path: Path, config: TimingConfig, expected: bytes
) -> None:
    (tmp_path / "cache").write_bytes(b"known")
    export.tensorrt._load_timings(config, tmp_path / "cache")
    assert config.blob == expected
    assert all(hasattr(trt.IBuilderConfig, name) for name in vars(TimingConfig) if "timing" in name)


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_the_full_edition_reads_and_writes_its_timing_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "timings.cache"
    build_plan(make_onnx("fp32"), FULL, timing_cache=cache)
    assert cache.stat().st_size > 0
    loaded: list[Path] = []
    load = export.tensorrt._load_timings
    monkeypatch.setattr(
        export.tensorrt, "_load_timings", lambda config, path: (loaded.append(path), load(config, path))
    )
    build_plan(make_onnx("fp32"), FULL, timing_cache=cache)
    assert loaded == [cache]


def test_the_rtx_edition_keeps_no_timing_cache(tmp_path: Path) -> None:
    build_plan(make_onnx("fp32"), RTX, timing_cache=tmp_path / "timings.cache")
    assert files(tmp_path) == set()


# --- which device


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> Device:
        raise NoGpu("no GPU here")

    monkeypatch.setattr(export.tensorrt, "probe", probe)


def test_only_the_rtx_edition_builds_without_a_gpu(no_gpu: None) -> None:
    assert device_to_build_for(RTX) is None
    with pytest.raises(NoGpu, match="no GPU here"):
        device_to_build_for(FULL)


def test_a_gpu_is_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.tensorrt, "probe", lambda: ORIN)
    assert device_to_build_for(RTX) == device_to_build_for(FULL) == ORIN

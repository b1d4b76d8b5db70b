"""The builder against NVIDIA's own parser and builder (TensorRT-RTX works on machines without a GPU)."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import export.build
import export.tensorrt
from edge.bundle import Bundle, shipped
from edge.errors import BundleChanged, InputError
from edge.runners.cuda import Device, NoGpu
from edge.runners.plans import PlanCard, Toolkit, plan_path
from export.build import build, build_into
from export.tensorrt import PlanError, Tensor, build_plan, device_to_build_for

trt = pytest.importorskip("tensorrt_rtx", reason="the RTX edition of TensorRT is for x86_64")
onnx = pytest.importorskip("onnx")

RTX = Toolkit(trt, "tensorrt_rtx", trt.__version__)
FULL = Toolkit(trt, "tensorrt", "10.3.0")
"""The RTX edition under the full one's name: the same interface, with a timing cache that is empty."""

ORIN = Device("Orin", "8.7")


def make_onnx(precision: str, **changes: np.ndarray) -> bytes:
    """A graph of the exporter's form: uint8 NHWC, Cast, Transpose, normalise, convolutions, logits.

    `changes` replace constants by name.
    """
    from onnx import TensorProto, helper, numpy_helper

    dtype, element = (
        (np.float32, TensorProto.FLOAT) if precision == "fp32" else (np.float16, TensorProto.FLOAT16)
    )
    rng = np.random.default_rng(0)
    nodes: list[Any] = []
    constants: dict[str, np.ndarray] = {}

    def node(op: str, name: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(name: str, value: Any, dtype: Any = dtype) -> str:
        constants[name] = changes.get(name, np.asarray(value, dtype))
        return name

    def quantized(tensor: str, name: str) -> str:
        if precision != "int8":
            return tensor
        grid = constant(f"{name}.scale", 1 / 32), constant(f"{name}.zero", 0, np.int8)
        return node("DequantizeLinear", name, node("QuantizeLinear", f"{name}.q", tensor, *grid), *grid)

    def weights(name: str, shape: tuple[int, ...]) -> str:
        if precision != "int8":
            return constant(name, rng.normal(0, 0.1, shape))
        values = constant(f"{name}.q", rng.integers(-127, 128, shape), np.int8)
        grid = (
            constant(f"{name}.scale", np.full(shape[0], 1 / 512)),
            constant(f"{name}.zero", [0] * shape[0], np.int8),
        )
        return node("DequantizeLinear", name, values, *grid, axis=0)

    tensor = node("Transpose", "nchw", node("Cast", "cast", "pixels", to=element), perm=[0, 3, 1, 2])
    tensor = node(
        "Mul", "normalised", node("Sub", "centred", tensor, constant("128", 128)), constant("1/128", 1 / 128)
    )
    for i, (inside, outside, size) in enumerate([(3, 32, 3), (32, 64, 3), (64, 10, 8)]):
        tensor = quantized(tensor, f"range{i}")
        bias = constant(f"bias{i}", rng.normal(size=outside))
        tensor = node("Conv", f"conv{i}", tensor, weights(f"weights{i}", (outside, inside, size, size)), bias)
        if size == 3:
            tensor = node(
                "MaxPool", f"pool{i}", node("Relu", f"relu{i}", tensor), kernel_shape=[2, 2], strides=[2, 2]
            )
    tensor = node("Reshape", "flat", tensor, constant("shape", [1, 10], np.int64))
    node("Cast", "logits", tensor, to=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, 38, 38, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", 19 if precision == "int8" else 18)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def make_bundle(folder: Path, content: bytes) -> Bundle:
    """A bundle with the one artefact `model.int8.onnx`."""
    folder.mkdir()
    (folder / "model.int8.onnx").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    artefact = {"format": "onnx", "precision": "int8", "file": "model.int8.onnx"}
    manifest = {
        "name": "tiny",
        "task": "classification",
        "sightline": "0",
        "input": {"height": 38, "width": 38, "resize": "crop"},
        "outputs": [{"name": "logits", "shape": [1, 10], "role": "logits"}],
        "labels": [str(i) for i in range(10)],
        "artefacts": [{**artefact, "sha256": digest, "size_bytes": len(content)}],
        "golden": {"file": "golden.npz", "sha256": digest, "step": {"logits": 0.1}},
    }
    (folder / "manifest.json").write_text(json.dumps({"schema_version": 1, **manifest}))
    return Bundle.open(folder)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe() -> Device:
        raise NoGpu("no GPU here")

    monkeypatch.setattr(export.tensorrt, "probe", probe)


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
    seen: list[tuple[str, int, int]] = []

    def on_step(phase: str, done: int, of: int) -> bool:
        seen.append((phase, done, of))
        return True

    build_plan(make_onnx("fp32"), RTX, on_step=on_step)
    assert "Building engine" in {phase for phase, _, _ in seen}
    assert all(1 <= done <= of for _, done, of in seen)
    assert any(done == of for _, done, of in seen)


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

    def on_step(phase: str, done: int, of: int) -> bool:
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


# --- the command


def test_only_the_rtx_edition_builds_without_a_gpu(no_gpu: None) -> None:
    assert device_to_build_for(RTX) is None
    with pytest.raises(NoGpu, match="no GPU here"):
        device_to_build_for(FULL)


def test_a_gpu_is_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export.tensorrt, "probe", lambda: ORIN)
    assert device_to_build_for(RTX) == device_to_build_for(FULL) == ORIN


def test_build_writes_a_plan_and_its_card(tmp_path: Path, no_gpu: None) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    result = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "but not run" in result.output
    artefact = bundle.artefact("onnx", "int8")
    path = plan_path(bundle, artefact, RTX, None)
    card = PlanCard.model_validate_json(path.with_suffix(".json").read_bytes())
    assert card.plan_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.onnx_sha256 == artefact.sha256
    assert (card.flavour, card.version, card.device) == ("tensorrt_rtx", trt.__version__, "no GPU")
    assert files(bundle.folder / "plans") == {path.name, path.with_suffix(".json").name}
    assert path.stat().st_mode & 0o444 == 0o444


def test_build_says_nothing_of_a_missing_gpu_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.tensorrt, "probe", lambda: ORIN)
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    output = CliRunner().invoke(build, [str(bundle.folder)], catch_exceptions=False).output
    assert "Orin (compute capability 8.7)" in output
    assert "not run" not in output
    assert plan_path(bundle, bundle.artefact("onnx", "int8"), RTX, ORIN).is_file()


def test_a_changed_onnx_file_reaches_no_parser(tmp_path: Path, no_gpu: None) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    (bundle.folder / "model.int8.onnx").write_bytes(make_onnx("fp16"))
    with pytest.raises(BundleChanged):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)


def test_a_refused_model_leaves_nothing_behind(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8")[:500])
    with pytest.raises(PlanError):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)


def test_a_folder_that_cannot_be_written_shows_before_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    (bundle.folder / "plans").write_text("a file where the folder should be")
    monkeypatch.setattr(export.build, "build_plan", lambda *_, **__: pytest.fail("built for nothing"))
    with pytest.raises(InputError, match=r"Cannot write .*plans"):
        build_into(bundle, "int8", RTX, None)


def test_ctrl_c_stops_the_build_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "tiny", make_onnx("int8"))
    before = signal.getsignal(signal.SIGINT)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(PlanError, match="canceled by user"):
            build_plan(*arguments, **options)

    monkeypatch.setattr(export.build, "build_plan", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_into(bundle, "int8", RTX, None)
    assert "plans" not in files(bundle.folder)
    assert signal.getsignal(signal.SIGINT) is before

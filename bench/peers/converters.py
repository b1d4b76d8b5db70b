"""Float files as Keras writes them, the quantizers that come with the converters, and what their files answer.

Pixels are float32 (N, H, W, 3) in [-1, 127/128] throughout; answers are float32 (N, classes).
"""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.native import stderr_held_back

Values = NDArray[np.float32]
BATCH = 250
QUANTIZERS = Path(__file__).parent / "quantizers.py"


def float_files(model: Any, folder: Path) -> dict[str, Path]:
    """`float.tflite` and `float.onnx`, by format, from `keras.Model.export`."""
    tflite, onnx = folder / "float.tflite", folder / "float.onnx"
    with redirect_stdout(io.StringIO()), stderr_held_back():
        model.export(str(tflite), format="litert", verbose=False)
        model.export(str(onnx), format="onnx", verbose=False)
    return {"tflite": tflite, "onnx": onnx}


def tflite_default(model: Any, images: Values, out: Path) -> None:
    """TFLiteConverter as TensorFlow's guide to integer quantization has it: min-max over a representative set."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    with redirect_stdout(io.StringIO()), stderr_held_back():
        out.write_bytes(converter.convert())


def onnxruntime_default(model: Path, images: Values, out: Path) -> None:
    """`quant_pre_process`, then `quantize_static` with nothing but the data given."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, rows: Iterator[dict[str, Values]]) -> None:
            self._rows = rows

        def get_next(self) -> dict[str, Values] | None:
            return next(self._rows, None)

    ready = out.with_name("prepared.onnx")
    quant_pre_process(str(model), str(ready), skip_symbolic_shape=True)
    name = _session(ready).get_inputs()[0].name
    quantize_static(str(ready), str(out), Reader({name: image[None]} for image in images))


def in_other_environment(python: Path, quantizer: str, given: Path, images: Values, out: Path) -> None:
    """One of `bench/peers/quantizers.py`, run by that Python. Raises RuntimeError with its last line."""
    calibration = out.with_name("calibration.npy")
    np.save(calibration, images)
    call = [str(python), str(QUANTIZERS), quantizer, str(given), str(calibration), str(out)]
    ended = subprocess.run(call, capture_output=True, text=True, timeout=1800)
    if ended.returncode or not out.exists():
        said = (ended.stderr or ended.stdout).strip().splitlines()
        raise RuntimeError(said[-1] if said else f"exit code {ended.returncode}")


def answers(path: Path, images: Values) -> Values:
    """What a `.tflite` (LiteRT) or `.onnx` (ONNX Runtime) file makes of the images."""
    run: Callable[[Path, Values], Values] = {".tflite": _tflite_answers, ".onnx": _onnx_answers}[path.suffix]
    return run(path, images)


def _tflite_answers(path: Path, images: Values) -> Values:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=2)
    interpreter.allocate_tensors()
    (given,), (told,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for image in images:
        interpreter.set_tensor(given["index"], _quantized(image[None], given))
        interpreter.invoke()
        rows.append(_dequantized(interpreter.get_tensor(told["index"])[0], told))
    return np.stack(rows)


def _quantized(values: Values, tensor: dict[str, Any]) -> NDArray[Any]:
    if tensor["dtype"] == np.float32:
        return values
    scale, zero = tensor["quantization"]
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(tensor["dtype"])


def _dequantized(values: NDArray[Any], tensor: dict[str, Any]) -> Values:
    if tensor["dtype"] == np.float32:
        return np.array(values, np.float32)
    scale, zero = tensor["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)


def _onnx_answers(path: Path, images: Values) -> Values:
    session = _session(path)
    given = session.get_inputs()[0]
    batch = given.shape[0] if isinstance(given.shape[0], int) else BATCH
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    return np.concatenate([session.run(None, {given.name: part})[0] for part in parts]).astype(np.float32)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 2, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

"""TFLite on the CPU, through LiteRT or, where the device has only that, tflite_runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.bundle import Bundle, Precision
from edge.errors import BundleError, InputError, MissingPackageError
from edge.native import stderr_held_back
from edge.pixels import Image, normalise
from edge.protocols import Heads


class TfliteRunner:
    """One `.tflite` artefact, loaded from verified bytes; its input buffer is written in place.

    Args:
        threads: of this model.
        batch: pictures at once; streams infer one at a time, `edge.profiling.batches` measures others.

    Raises:
        InputError: LiteRT refuses the file, or the batch. BundleError: its input or heads are not the manifest's.
    """

    def __init__(self, bundle: Bundle, precision: Precision, threads: int = 1, batch: int = 1) -> None:
        content = bundle.content(bundle.artefact("tflite", precision))
        try:
            with stderr_held_back():
                self._interpreter = _interpreter_class()(model_content=content, num_threads=threads)
                self._resize(batch)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            text = f"{bundle.folder}: LiteRT cannot load the {precision} artefact"
            if batch > 1:
                raise InputError(
                    f"{text} for {batch} pictures at once: {error}. A layer of it fixes the batch, such as a "
                    "Reshape to one row. Leave this model out, or take batch=1."
                ) from error
            raise InputError(f"{text}: {error}") from error
        self._input = self._interpreter.get_input_details()[0]
        names = [output.name for output in bundle.manifest.outputs]
        self._outputs = _by_name(self._interpreter, names, bundle)
        heads = {name: detail["shape"].tolist() for name, detail in self._outputs.items()}
        bundle.check_shapes(self._input["shape"].tolist(), heads)

    def infer(self, pixels: Image) -> Heads:
        """uint8 (N, H, W, 3) RGB in, N being the batch; float32 heads out, fresh arrays."""
        self._write(pixels)
        self._interpreter.invoke()
        return {name: self._read(detail) for name, detail in self._outputs.items()}

    def close(self) -> None:
        """Free the interpreter."""
        self._interpreter = None

    def _resize(self, batch: int) -> None:
        detail = self._interpreter.get_input_details()[0]
        if batch != detail["shape"][0]:
            self._interpreter.resize_tensor_input(detail["index"], [batch, *detail["shape"][1:]])

    def _write(self, pixels: Image) -> None:
        # The view into the interpreter's memory must not outlive this call: invoke() refuses then.
        buffer = self._interpreter.tensor(self._input["index"])()
        if self._input["dtype"] == np.int8:
            # Scale 1/128 and zero point 0: (x - 128) as int8 is x with its top bit flipped.
            np.bitwise_xor(pixels, 0x80, out=buffer.view(np.uint8))
        else:
            normalise(pixels, out=buffer)

    def _read(self, detail: dict[str, Any]) -> Any:
        values = self._interpreter.tensor(detail["index"])()
        scale, zero_point = detail["quantization"]
        heads = values.astype(np.float32)  # a copy, always: the view must not outlive this call, either
        if scale != 0.0:
            heads -= np.float32(zero_point)
            heads *= np.float32(scale)
        return heads


def _by_name(interpreter: Any, names: list[str], bundle: Bundle) -> dict[str, Any]:
    """The details of each head. Several are found by the file's signature, since their order is arbitrary.

    Raises:
        BundleError: the file's outputs are not the manifest's.
    """
    details = interpreter.get_output_details()
    if len(names) == len(details) == 1:
        return {names[0]: details[0]}
    found = (
        interpreter.get_signature_runner().get_output_details() if interpreter.get_signature_list() else {}
    )
    if found.keys() != set(names):
        raise BundleError(
            f"{bundle.folder}: the manifest names the outputs {', '.join(names)}; the TFLite file has "
            f"{', '.join(found) or f'{len(details)} without names'}. Export the bundle anew."
        )
    return {name: found[name] for name in names}


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError as error:
            raise MissingPackageError("ai-edge-litert", "", "The backend tflite") from error
    return Interpreter

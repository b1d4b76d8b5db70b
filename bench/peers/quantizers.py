"""Quantizers of others, with their defaults, each a function of files. This file runs in their own environment:

    PYTHON bench/peers/quantizers.py litert-quantizer|modelopt IN CALIBRATION.npy OUT

It imports nothing of Sightline, whose environment has other versions of onnx and onnxruntime. IN is a float model,
`.tflite` or `.onnx`; CALIBRATION.npy holds float32 (N, H, W, 3) in [-1, 127/128], as the model takes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Quantize = Callable[[Path, Images, Path], None]


def litert_quantizer(model: Path, images: Images, out: Path) -> None:
    """Google's, recipe `static_wi8_ai8`: min-max ranges, asymmetric activations, weights by channel."""
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer import quantizer, recipe

    signatures: dict[str, Any] = Interpreter(str(model)).get_signature_list()
    ((signature, tensors),) = signatures.items()
    (name,) = tensors["inputs"]
    made = quantizer.Quantizer(str(model), recipe.static_wi8_ai8())
    ranges = made.calibrate({signature: [{name: image[None]} for image in images]}, num_threads=1)
    made.quantize(ranges).export_model(str(out), overwrite=True)


def modelopt(model: Path, images: Images, out: Path) -> None:
    """NVIDIA's, int8 on the processor: entropy ranges, symmetric, float parts in fp16."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(model),
        quantize_mode="int8",
        calibration_data=images,
        calibration_eps=["cpu"],
        output_path=str(out),
        log_level="ERROR",
    )


QUANTIZERS: dict[str, Quantize] = {"litert-quantizer": litert_quantizer, "modelopt": modelopt}

if __name__ == "__main__":
    chosen, given, calibration, wanted = sys.argv[1:]
    QUANTIZERS[chosen](Path(given), np.load(calibration), Path(wanted))

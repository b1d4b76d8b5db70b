"""Makes `edge/profiling/gemm.py`: two tiny models that do nothing but multiply, for the roofline.

    python tests/edge/profiling/make_gemm.py

All weights are equal, so that the files compress to a few hundred bytes; the kernels that multiply
them do not look at their values.
"""

from __future__ import annotations

import base64
import lzma
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SIZE, CHANNELS = 32, 256
TARGET = Path(__file__).parents[3] / "edge/profiling/gemm.py"

HEAD = '''"""Two .tflite files that do nothing but multiply: a 1x1 convolution of 1024 positions, 256 to 256 channels.

Written by tests/edge/profiling/make_gemm.py. LZMA, then base85.
"""

MACS = {macs:_}

FILES = {{
'''


def main() -> None:
    """Convert and write."""
    parts = [HEAD.format(macs=SIZE * SIZE * CHANNELS * CHANNELS)]
    for precision in ("fp32", "int8"):
        text = base64.b85encode(lzma.compress(convert(precision))).decode()
        lines = "\n".join(f'        "{line}"' for line in textwrap.wrap(text, 96, break_on_hyphens=False))
        parts.append(f'    "{precision}": (\n{lines}\n    ),\n')
    TARGET.write_text("".join(parts) + "}\n", encoding="utf-8")


def convert(precision: str) -> bytes:
    """The model in one precision, its input and output in the same one."""
    import keras
    import tensorflow as tf

    pixels = keras.Input((SIZE, SIZE, CHANNELS), batch_size=1)
    convolution = keras.layers.Conv2D(
        CHANNELS, 1, use_bias=False, kernel_initializer=keras.initializers.Constant(0.01)
    )
    model = keras.Model(pixels, convolution(pixels))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if precision == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def samples() -> Iterator[list[np.ndarray]]:
    """For the ranges of the int8 model; any will do."""
    yield [np.linspace(-1, 1, SIZE * SIZE * CHANNELS, dtype=np.float32).reshape(1, SIZE, SIZE, CHANNELS)]


if __name__ == "__main__":
    main()

"""Published latencies that predictions are held against, and the two networks they are of.

MLPerf Inference's own logs (mlcommons/inference_results_v*, closed/NVIDIA/results/<system>,
mlperf_log_summary.txt): closed division, edge, SingleStream, mean latency of one picture, int8, TensorRT
on the GPU alone. Offline throughputs (GPU and DLA together) and figures of other runtimes are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """What one layer costs at the least, whatever the precision.

    Attributes:
        macs: multiplications and additions of a pair.
        elements: numbers moved: weights, inputs and outputs, each once.
        launches: kernels: 1, or 0 for what TensorRT fuses into the layer before it.
    """

    name: str
    macs: int
    elements: int
    launches: int = 1


@dataclass(frozen=True)
class Figure:
    """One published latency: a device's key, a network's, milliseconds, and where it stands."""

    device: str
    network: str
    ms: float
    source: str


FIGURES = (
    Figure("agx-orin-64", "ResNet-50", 0.636, "MLPerf Inference v3.1 (JetPack 5.1.1, TensorRT 8.5.2)"),
    Figure("orin-nx-16", "ResNet-50", 1.079, "MLPerf Inference v3.1"),
    Figure("agx-xavier", "ResNet-50", 1.820, "MLPerf Inference v1.1"),
    Figure("xavier-nx", "ResNet-50", 2.456, "MLPerf Inference v2.0"),
    Figure("agx-orin-64", "SSD-MobileNet-v1", 0.469, "MLPerf Inference v2.0"),
    Figure("xavier-nx", "SSD-MobileNet-v1", 1.349, "MLPerf Inference v1.1"),
)


def convolution(name: str, size: int, kernel: int, before: int, after: int, stride: int = 1) -> Work:
    """A dense convolution on a square map of `size`, under SAME padding."""
    out = -(-size // stride)
    weights = kernel * kernel * before * after
    return Work(name, out * out * weights, size * size * before + out * out * after + weights)


def depthwise(name: str, size: int, channels: int, stride: int = 1) -> Work:
    """A 3x3 depthwise convolution."""
    out = -(-size // stride)
    return Work(name, out * out * 9 * channels, (size * size + out * out + 9) * channels)


def resnet_50() -> tuple[Work, ...]:
    """ResNet-50 v1.5 at 224x224: He et al. 2016 (arXiv 1512.03385, table 1), stride in the 3x3 layers."""
    return tuple(_resnet_50())


def _resnet_50() -> Iterator[Work]:
    yield convolution("conv1", 224, 7, 3, 64, 2)
    yield Work("pool1", 0, (112 * 112 + 56 * 56) * 64)
    before, size = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=2):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 2 else 1
            yield from _bottleneck(f"conv{stage}_{block + 1}", size, before, width, stride, block == 0)
            before, size = 4 * width, size // stride
    yield Work("mean", 0, (7 * 7 + 1) * 2048)
    yield Work("dense", 2048 * 1000, 2048 * 1001 + 1000)


def _bottleneck(
    name: str, size: int, before: int, width: int, stride: int, projected: bool
) -> Iterator[Work]:
    out, after = size // stride, 4 * width
    if projected:
        yield convolution(f"{name}_shortcut", size, 1, before, after, stride)
    yield convolution(f"{name}_a", size, 1, before, width)
    yield convolution(f"{name}_b", size, 3, width, width, stride)
    yield convolution(f"{name}_c", out, 1, width, after)
    # TensorRT adds the shortcut in the convolution before it, which then reads it.
    yield Work(f"{name}_add", 0, out * out * after, launches=0)


def ssd_mobilenet_v1() -> tuple[Work, ...]:
    """SSD on MobileNet v1 at 300x300, as MLPerf has it from TensorFlow's object detection models.

    Howard et al. 2017 (arXiv 1704.04861, table 1) and Liu et al. 2016 (arXiv 1512.02325): six maps,
    three boxes a cell on the first and six on the others, 91 classes; without the box decoding.
    """
    return tuple(_ssd_mobilenet_v1())


def _ssd_mobilenet_v1() -> Iterator[Work]:
    yield convolution("conv0", 300, 3, 3, 32, 2)
    size, before = 150, 32
    layers = (
        (64, 1),
        (128, 2),
        (128, 1),
        (256, 2),
        (256, 1),
        (512, 2),
        *[(512, 1)] * 5,
        (1024, 2),
        (1024, 1),
    )
    for index, (after, stride) in enumerate(layers, start=1):
        yield depthwise(f"dw{index}", size, before, stride)
        size = -(-size // stride)
        yield convolution(f"pw{index}", size, 1, before, after)
        before = after
    for index, (middle, after) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128)), start=14):
        yield convolution(f"extra{index}_a", size, 1, before, middle)
        yield convolution(f"extra{index}_b", size, 3, middle, after, 2)
        size, before = -(-size // 2), after
    maps = ((19, 512, 3), (10, 1024, 6), (5, 512, 6), (3, 256, 6), (2, 256, 6), (1, 128, 6))
    for cells, channels, boxes in maps:
        yield convolution(f"box{cells}", cells, 1, channels, boxes * 4)
        yield convolution(f"class{cells}", cells, 1, channels, boxes * 91)


NETWORKS = {"ResNet-50": resnet_50, "SSD-MobileNet-v1": ssd_mobilenet_v1}

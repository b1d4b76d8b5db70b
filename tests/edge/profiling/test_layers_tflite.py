"""XNNPACK's operators laid along a .tflite file's operations."""

from __future__ import annotations

import pytest

from edge.bundle import Bundle
from edge.profiling.layers_report import Operation
from edge.profiling.layers_tflite import (
    NOT_MAPPED,
    Step,
    TfliteOperation,
    align,
    layers_of,
    operations,
    partitions,
)


def operation(kind: str, needs: tuple[int, ...], makes: int, macs: int = 0) -> TfliteOperation:
    return TfliteOperation(Operation(f"{kind}{makes}", kind, (), macs, 10), needs, (makes,))


GRAPH = [
    operation("CONV_2D", (0,), 1, macs=100),
    operation("ADD", (0, 1), 2),
    operation("RESIZE_NEAREST_NEIGHBOR", (2,), 3),
    operation("CONV_2D", (3,), 4, macs=50),
    operation("CONV_2D", (2,), 5, macs=7),
]
"""The third is left alone by the delegate; the last needs none of what comes after it."""

STEPS = [
    Step("Convolution (NHWC, F32) IGEMM", 8, 0, (9, 10, 10, 11)),
    Step("Add (ND)", 8, 1, (2, 2, 2, 2)),
    Step("Clamp (NC)", 8, 2, (1, 1, 1, 1)),
    Step("Fully Connected (NC, F32) GEMM", 8, 3, (3, 3, 3, 3)),
    Step("RESIZE_NEAREST_NEIGHBOR", 2, 2, (4, 4, 4, 4)),
    Step("Convolution (NHWC, F32) IGEMM", 8, 0, (5, 5, 5, 5)),
]


def test_a_delegate_takes_what_it_can_reach_before_and_after() -> None:
    assert partitions(GRAPH, {2}) == [[0, 1, 4], [3]]
    assert partitions(GRAPH, set()) == [[0, 1, 2, 3, 4]]
    assert partitions([operation("ADD", (5,), 5)], set()) == []


def test_steps_become_operations_with_half_a_microsecond_each() -> None:
    layers, notes = layers_of(STEPS, GRAPH)
    assert notes == ()
    assert [(layer.name, layer.macs) for layer in layers] == [
        ("CONV_2D1", 100),
        ("ADD2", 0),
        ("CONV_2D5", 7),
        ("RESIZE_NEAREST_NEIGHBOR3", 0),
        ("CONV_2D4", 50),
    ]
    assert [layer.ms for layer in layers] == pytest.approx([0.0105, 0.004, 0.0035, 0.0045, 0.0055])
    assert layers[1].kernel == "Add (ND) + Clamp (NC)"


def test_what_does_not_fit_keeps_the_names_of_xnnpack() -> None:
    steps = [Step("Softmax (NC, F32)", 8, 0, (9, 9)), *STEPS[1:]]
    layers, notes = layers_of(steps, GRAPH)
    assert notes == (NOT_MAPPED,)
    assert [layer.name for layer in layers[:2]] == ["Softmax (NC, F32)", "Add (ND)"]
    assert layers[0].macs is None
    assert layers[-1].macs == 50


@pytest.mark.parametrize(
    ("tags", "kinds", "expected"),
    [
        (["Convolution", "Max Pooling"], ["CONV_2D", "RESHAPE", "MAX_POOL_2D"], [0, 2]),
        (["Convolution", "Static Reshape"], ["CONV_2D", "RESHAPE"], [0, 1]),
        (["Convolution", "Clamp (NC)"], ["CONV_2D", "RELU"], [0, 1]),
        (["Convolution"], ["PAD", "CONV_2D", "RELU"], [1]),
        (
            [
                "Copy (NC, X32)",
                "LeakyReLU (NC)",
                "Deconvolution (NHWC, F32) Subconv2D",
                "Static Reshape",
                "Static Reshape",
            ],
            ["DEQUANTIZE", "CONCATENATION", "LEAKY_RELU", "TRANSPOSE_CONV", "RESHAPE"],
            [1, 2, 3, 4, 4],
        ),
        (["Convolution"], ["CONV_2D", "CONV_2D"], None),
        (["Clamp (NC)"], ["CONV_2D"], None),
        (["Convolution"], [], None),
    ],
)
def test_alignment(tags: list[str], kinds: list[str], expected: list[int] | None) -> None:
    assert align(tags, kinds) == expected


def test_the_shipped_file_is_read_without_tensorflow() -> None:
    bundle = Bundle.open("cifar10-convnetjs")
    found = operations(bundle.content(bundle.artefact("tflite", "int8")))
    assert [op.operation.kind for op in found[:4]] == ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D"]
    assert sum(op.operation.macs for op in found) == 3_920_000

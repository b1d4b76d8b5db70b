"""Parameters, multiply-accumulates and receptive fields against published and measured values."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from keras import layers

from edge.errors import InputError
from train.describe import Row, describe, output_size
from train.models.convnetjs import convnetjs
from train.models.lenet import lenet5


def rows(model: keras.Model) -> dict[str, Row]:
    return {row.name: row for row in describe(model).rows}


def test_lenet5() -> None:
    described = describe(lenet5(32, 32, 10))
    assert described.parameters == described.trainable == 62_006
    # 28*28 * 5*5*3*6 + 10*10 * 5*5*6*16 + 400*120 + 120*84 + 84*10
    assert described.macs == 352_800 + 240_000 + 48_000 + 10_080 + 840
    fields = {row.name: (row.field[0].size, row.field[0].stride) for row in described.rows}
    assert [fields[name] for name in ("conv1", "pool1", "conv2", "pool2")] == [
        (5, 1),
        (6, 2),
        (14, 2),
        (16, 4),
    ]
    assert described.rows[-1].field[0].whole
    assert described.unknown == ()


def test_convnetjs() -> None:
    described = describe(convnetjs(32, 32, 10))
    assert (described.trainable, described.parameters) == (22_522, 22_522 + 2 * (16 + 20 + 20))
    assert described.macs == 3_920_000


def test_mobilenet_v2_as_published() -> None:
    """Sandler et al. 2018 (arXiv 1801.04381, table 4): 3.4 M parameters, 300 M multiply-adds."""
    described = describe(keras.applications.MobileNetV2((224, 224, 3), weights=None))
    assert described.parameters == 3_538_984  # As keras.io lists it: 3.5 M.
    assert described.macs == pytest.approx(300e6, rel=0.01)
    assert described.unknown == ()


def test_mobilenet_as_published() -> None:
    """Howard et al. 2017: 569 M multiply-adds, 4.2 M parameters. Araujo et al. 2019: it sees 315 pixels."""
    described = describe(keras.applications.MobileNet((224, 224, 3), weights=None))
    assert described.macs == pytest.approx(569e6, rel=0.001)
    assert described.parameters == pytest.approx(4.2e6, rel=0.02)
    last = next(row for row in described.rows if row.name == "conv_pw_13_relu")
    assert {(axis.size, axis.stride) for axis in last.field} == {(315, 32)}


def test_vgg16_as_published() -> None:
    """Araujo et al. 2019: VGG-16 sees 212 pixels at a stride of 32."""
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
    last = describe(model).rows[-1]
    assert (last.field[0].size, last.field[0].stride) == (212, 32)


def measured_rows(model: keras.Model, size: int, position: int) -> tuple[int, int]:
    """First and last input row that output row `position` reacts to, found by changing one at a time."""
    for weights in model.weights:
        weights.assign(np.ones(weights.shape))
    pictures = np.concatenate([np.zeros((1, size, size, 1)), np.zeros((size, size, size, 1))])
    for row in range(size):
        pictures[row + 1, row] = 1
    answers = keras.ops.convert_to_numpy(model(pictures.astype(np.float32)))[:, position].sum(axis=(1, 2))
    reacting = np.flatnonzero(answers[1:] != answers[0])
    return int(reacting[0]), int(reacting[-1])


def steps(kinds: list[str]) -> st.SearchStrategy[Any]:
    return st.tuples(
        st.sampled_from(kinds), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["same", "valid"])
    )


FRAMES = steps(["zeros", "crop"])
WINDOWS = steps(["conv", "depthwise", "separable", "max", "average"])


def layer_of(step: tuple[str, int, int, Any]) -> layers.Layer:
    kind, kernel, stride, padding = step
    makers: dict[str, Callable[[], layers.Layer]] = {
        "conv": lambda: layers.Conv2D(1, kernel, stride, padding, use_bias=False),
        "depthwise": lambda: layers.DepthwiseConv2D(kernel, stride, padding, use_bias=False),
        "separable": lambda: layers.SeparableConv2D(1, kernel, stride, padding, use_bias=False),
        "max": lambda: layers.MaxPooling2D(kernel, stride, padding),
        "average": lambda: layers.AveragePooling2D(kernel, stride, padding),
        "zeros": lambda: layers.ZeroPadding2D(((stride, kernel), (0, 0))),
        "crop": lambda: layers.Cropping2D(((stride - 1, 0), (0, 0))),
    }
    return makers[kind]()


@settings(max_examples=25)
@example([], [("conv", 3, 2, "same"), ("max", 3, 2, "same"), ("conv", 3, 2, "same")], 39)
@example([("zeros", 3, 1, "same")], [("conv", 3, 2, "valid")], 40)
@example([("crop", 1, 2, "same")], [("conv", 4, 1, "same")], 40)
@given(st.lists(FRAMES, max_size=1), st.lists(WINDOWS, min_size=1, max_size=3), st.integers(38, 43))
def test_the_rows_seen_are_those_the_output_reacts_to(
    frame: list[Any], windows: list[Any], size: int
) -> None:
    tensor = pixels = keras.Input((size, size, 1))
    for step in frame + windows:
        tensor = layer_of(step)(tensor)
    model = keras.Model(pixels, tensor)
    axis = describe(model).rows[-1].field[0]
    intervals = [(axis.first + k * axis.stride, axis.last + k * axis.stride) for k in range(tensor.shape[1])]
    # Only where the interval lies inside the picture; `crop` takes away up to two rows at the top.
    inside = [k for k, (first, last) in enumerate(intervals) if first >= 2 and last < size]
    assume(inside)
    for position in {inside[0], inside[-1]}:
        assert measured_rows(model, size, position) == intervals[position]


@pytest.mark.parametrize(
    ("strides", "times", "kernel", "interpolation"),
    [
        (1, 2, 3, "nearest"), (1, 2, 4, "nearest"), (2, 2, 2, "nearest"), (2, 4, 3, "nearest"), (4, 2, 4, "nearest"),
        (2, 2, 1, "bilinear"), (4, 2, 3, "bilinear"), (1, 3, 1, "bilinear"), (2, 2, 1, "bicubic"),
        (2, 2, 1, "lanczos3"),
    ],
)  # fmt: skip
def test_behind_an_upsampling_too_the_rows_seen_are_those_the_output_reacts_to(
    strides: int, times: int, kernel: int, interpolation: str
) -> None:
    size = 48
    stack = (
        layers.Conv2D(1, 3, strides, "same", use_bias=False),
        layers.UpSampling2D(times, interpolation=interpolation),
        layers.Conv2D(1, kernel, padding="same", use_bias=False),
    )
    model = keras.Sequential([keras.Input((size, size, 1)), *stack])
    axis = describe(model).rows[-1].field[0]
    middle = model.output_shape[1] // 2
    positions = range(middle, middle + times)
    measured = [measured_rows(model, size, position) for position in positions]
    assert axis.size == max(last - first + 1 for first, last in measured)
    assert axis.stride * times == strides
    assert [axis.at(position) for position in positions] == measured


def test_dilation_widens_the_field() -> None:
    model = keras.Sequential([keras.Input((16, 16, 1)), layers.Conv2D(1, 3, dilation_rate=2, padding="same")])
    axis = describe(model).rows[0].field[0]
    assert (axis.first, axis.last) == (-2, 2)


def test_joined_paths_see_what_either_sees() -> None:
    pixels = keras.Input((16, 16, 4))
    wide = layers.Conv2D(4, 5, padding="same")(pixels)
    high = layers.Conv2D(4, (9, 1), padding="same")(pixels)
    model = keras.Model(pixels, layers.Add(name="sum")([wide, high]))
    assert [axis.size for axis in rows(model)["sum"].field] == [9, 5]


def test_a_gate_that_sees_everything_makes_its_product_see_everything() -> None:
    pixels = keras.Input((16, 16, 4))
    gate = layers.Dense(4)(layers.GlobalAveragePooling2D(keepdims=True)(pixels))
    model = keras.Model(pixels, layers.Multiply(name="gated")([pixels, gate]))
    assert rows(model)["gated"].field[0].whole


def test_groups_divide_the_work() -> None:
    model = keras.Sequential([keras.Input((8, 8, 6)), layers.Conv2D(4, 3, groups=2, padding="same")])
    assert describe(model).macs == 8 * 8 * 3 * 3 * (6 // 2) * 4


def test_nested_models_count_like_flat_ones() -> None:
    block = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(8, 3), layers.MaxPooling2D()])
    pixels = keras.Input((16, 16, 3))
    nested = describe(keras.Model(pixels, layers.Conv2D(2, 3)(block(pixels))))
    assert nested.macs == 14 * 14 * 27 * 8 + 5 * 5 * 72 * 2
    assert [row.kind for row in nested.rows] == ["Conv2D", "MaxPooling2D", "Conv2D"]
    assert nested.rows[-1].field[0].size == 8


def test_a_nested_model_of_open_size_counts_as_one_of_the_size_it_is_called_with() -> None:
    def net(size: int | None) -> keras.Model:
        pixels = keras.Input((size, size, 3))
        tensor = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(pixels)
        deep = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same")(tensor), training=False)
        tensor = keras.ops.relu(layers.Add()([tensor, deep]))
        inner = keras.Model(pixels, layers.SeparableConv2D(5, 3, padding="same")(tensor))
        outside = keras.Input((32, 48, 3))
        return keras.Model(outside, layers.Dense(2)(layers.GlobalAveragePooling2D()(inner(outside))))

    described, first = describe(net(None)), rows(net(None))["first"]
    # 16*24 * (27*4 + 36*4 + 9*4 + 4*5) + 5*2
    assert described.macs == 118_282
    assert first.shape == (16, 24, 4)
    assert [str(window) for window in first.windows] == ["(32 - 3 + 1)/2 + 1", "(48 - 3 + 1)/2 + 1"]
    flat = keras.Input((32, 32, 3))
    whole = describe(keras.applications.MobileNetV2((32, 32, 3), include_top=False, weights=None))
    opened = keras.applications.MobileNetV2((None, None, 3), include_top=False, weights=None)
    nested = describe(keras.Model(flat, opened(flat)))
    assert nested.macs == whole.macs > 1e6
    assert [(row.shape, row.windows, row.field) for row in nested.rows] == [
        (row.shape, row.windows, row.field) for row in whole.rows
    ]


def test_each_output_of_a_nested_model_has_its_own_field() -> None:
    pixels = keras.Input((16, 16, 3))
    near, far = layers.Conv2D(2, 3)(pixels), layers.Conv2D(2, 5)(pixels)
    outside = keras.Input((16, 16, 3))
    outputs = keras.Model(pixels, [near, far])(outside)
    model = keras.Model(outside, [layers.ReLU(name="near")(outputs[0]), layers.ReLU(name="far")(outputs[1])])
    assert [rows(model)[name].field[0].size for name in ("near", "far")] == [3, 5]


def test_a_layer_used_twice_works_twice_with_one_set_of_weights() -> None:
    shared = layers.Conv2D(3, 3, padding="same", use_bias=False)
    pixels = keras.Input((8, 8, 3))
    described = describe(keras.Model(pixels, shared(shared(pixels))))
    assert described.parameters == sum(row.parameters for row in described.rows) == 81
    assert described.macs == 2 * 64 * 81
    assert described.rows[-1].field[0].size == 5


def test_what_has_no_rule_is_named() -> None:
    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, layers.Conv2DTranspose(2, 3, strides=2)(layers.PReLU()(pixels)))
    assert describe(model).unknown == ("Conv2DTranspose", "PReLU")


def test_a_subclass_is_refused() -> None:
    class Own(keras.Model):
        pass

    with pytest.raises(InputError, match="without a recorded graph"):
        describe(Own())


def test_the_command_prints_rows_and_totals(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "net.keras"
    convnetjs(32, 32, 10).save(path)
    ended = command("describe", path)
    assert ended.code == 0
    assert "22,634 parameters, 22,522 of them trainable; 3,920,000 MACs" in ended.out
    conv2 = next(line.split() for line in ended.out.splitlines() if "conv2" in line)
    formula = ["(16", "-", "5", "+", "4)/1", "+", "1"]
    assert conv2 == ["conv2", "Conv2D", "16x16x20", *formula, "8,000", "2,048,000", "14", "2"]


# -- (W - F + 2P)/S + 1 ---------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["explicit", "same"])
def test_the_lectures_example(padding: str) -> None:
    """CS231n: 32x32x3, ten 5x5 filters, stride 1, padding 2: 32x32x10 and 760 parameters."""
    assert output_size(32, 5, padding=2, stride=1) == 32
    pixels = keras.Input((32, 32, 3))
    padded = layers.ZeroPadding2D(2)(pixels) if padding == "explicit" else pixels
    conv = layers.Conv2D(10, 5, padding="same" if padding == "same" else "valid", name="conv")
    row = rows(keras.Model(pixels, conv(padded)))["conv"]
    assert (row.shape, row.parameters, row.misfit) == ((32, 32, 10), 760, "")
    assert str(row.windows[0]) == {"same": "(32 - 5 + 4)/1 + 1", "explicit": "(36 - 5 + 0)/1 + 1"}[padding]


@pytest.mark.parametrize(
    ("size", "kernel", "padding", "stride", "out"),
    [(7, 3, 0, 1, 5), (7, 3, 0, 2, 3), (227, 11, 0, 4, 55), (7, 3, 1, 1, 7), (2, 2, 0, 2, 1)],
)
def test_the_lectures_other_sizes(size: int, kernel: int, padding: int, stride: int, out: int) -> None:
    assert output_size(size, kernel, padding, stride) == out


def test_a_filter_that_does_not_fit_says_so() -> None:
    with pytest.raises(InputError, match=r"\(7 - 3 \+ 0\)/3 \+ 1 = 2\.33 is no whole number. 2 more pixels"):
        output_size(7, 3, padding=0, stride=3)
    with pytest.raises(InputError, match="larger than the input"):
        output_size(2, 5, padding=1, stride=1)


@settings(max_examples=50)
@example(size=3, kernel=2, stride=3, padding="same", dilation=1)
@given(
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 4),
    st.sampled_from(["same", "valid"]),
    st.integers(1, 2),
)
def test_the_windows_give_the_size_that_keras_gives(
    size: int, kernel: int, stride: int, padding: Any, dilation: int
) -> None:
    assume(dilation * (kernel - 1) < size and (stride == 1 or dilation == 1))
    conv = layers.Conv2D(1, kernel, stride, padding, dilation_rate=dilation)
    row = describe(keras.Sequential([keras.Input((size, size, 1)), conv])).rows[0]
    window = row.windows[0]
    span = window.size - window.filter + window.padding
    assert row.shape[0] == span // window.stride + 1
    if padding == "same":  # A stride beyond the filter may pass over the last pixels, which no padding mends.
        assert window.fits or (stride > window.filter and window.padding == 0)
    elif window.fits and kernel > 1:
        assert output_size(size, window.filter, 0, stride) == row.shape[0]
    else:
        with pytest.raises(InputError) if span % stride else nullcontext():
            output_size(size, window.filter, 0, stride)


def saved(path: Path, *stack: layers.Layer) -> Path:
    keras.Sequential([keras.Input((7, 7, 3)), *stack]).save(path)
    return path


def test_the_command_refuses_a_filter_that_does_not_fit(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = saved(tmp_path / "net.keras", layers.Conv2D(4, 3, 3, name="wide"))
    ended = command("describe", path)
    assert ended.code == 2
    assert "wide: A filter of 3 pixels at a stride of 3 does not fit an input of 7" in ended.err
    assert "2x2x4" in ended.out
    assert command("describe", path, "--floor").code == 0


def test_a_pool_may_leave_out_a_row_and_is_named(tmp_path: Path, command: Callable[..., Any]) -> None:
    stack = layers.Conv2D(4, 1, 2, name="picks"), layers.MaxPooling2D(3, 3, name="cuts")
    ended = command("describe", saved(tmp_path / "net.keras", *stack))
    assert ended.code == 0
    assert "Pools that never see the last pixels: cuts." in ended.out


def test_any_size_has_no_formula() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3, 3)])
    assert describe(model).rows[0].windows == ()


@pytest.mark.parametrize("content", [None, b"", b"no zip at all", "folder"])
def test_what_is_no_model_ends_the_command_with_2(
    tmp_path: Path, command: Callable[..., Any], content: bytes | str | None
) -> None:
    path = tmp_path / "net.keras"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    ended = command("describe", path)
    assert (ended.code, ended.out) == (2, "")
    assert ("No model" in ended.err) == (not path.is_file())
    assert str(path) in ended.err
    assert ended.err.count("\n") == 1


def test_a_model_that_brings_code_is_refused(tmp_path: Path, command: Callable[..., Any]) -> None:
    path = tmp_path / "net.keras"
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x + 1)]).save(path)
    ended = command("describe", path)
    assert ended.code == 2
    assert "Lambda" in ended.err

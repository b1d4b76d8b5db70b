"""Streaming histograms lose no count and need no more memory; the range methods do what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from calibration.histogram import BINS, HALF, Histogram
from calibration.quantize import asymmetric, symmetric
from calibration.ranges import METHODS, _divergence, entropy, mean_squared_error, percentile, range_method
from edge.errors import InputError

values = npst.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1e6, 1e6, width=32)).map(
    # TensorFlow lets the processor flush the smallest numbers to zero.
    lambda array: np.where(np.abs(array) < 1e-30, np.float32(0), array)
)


def _filled(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch.astype(np.float32))
    return histogram


@given(st.lists(values, min_size=1, max_size=5))
def test_every_value_is_in_the_bin_that_it_belongs_to(batches: list[np.ndarray]) -> None:
    histogram, every = _filled(*batches), np.concatenate(batches)
    assert histogram.total == every.size
    assert (histogram.low, histogram.high) == (every.min(), every.max())
    if histogram.width:
        places = np.floor(every.astype(np.float64) / histogram.width) + HALF
        np.testing.assert_array_equal(histogram.counts, np.bincount(places.astype(int), minlength=BINS))


@given(st.lists(values, min_size=2, max_size=5), st.randoms())
def test_the_order_of_images_does_not_matter(batches: list[np.ndarray], random: object) -> None:
    shuffled = list(batches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = _filled(*batches), _filled(*shuffled)
    assert one.width == other.width
    np.testing.assert_array_equal(one.counts, other.counts)


@given(values)
def test_the_largest_magnitude_fills_at_least_half_of_its_side(batch: np.ndarray) -> None:
    largest = float(np.abs(batch).max())
    histogram = _filled(batch)
    if largest > 2.0**-100:
        assert HALF / 2 * histogram.width <= largest < HALF * histogram.width
        assert math.frexp(histogram.width)[0] == 0.5


def test_the_smallest_numbers_are_in_a_bin_of_their_side() -> None:
    counts = _filled(np.array([1e-38, 5e-39])).counts
    assert counts[:HALF].sum() == 0
    assert counts[HALF:].sum() == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="infinite, or not a number"):
        _filled(np.array([1.0, bad]))


def test_zeros_alone_have_a_range() -> None:
    histogram = _filled(np.zeros(5), np.zeros(3))
    assert histogram.total == 8
    for method in ("minmax", "mse", "entropy", "percentile:99"):
        assert range_method(method)(histogram) == (0.0, 0.0)


@pytest.mark.parametrize("method", ["minmax", "mse", "entropy", "percentile:99"])
@pytest.mark.parametrize(("low", "high"), [(2.6, 3.0), (-9.5, -9.0)])
def test_values_that_all_stay_away_from_zero_have_a_range(method: str, low: float, high: float) -> None:
    found = range_method(method)(_filled(np.linspace(low, high, 1000)))
    assert low - 0.01 <= found[0] <= found[1] <= high + 0.01
    assert max(map(abs, found)) > 0.9 * min(abs(low), abs(high))


@pytest.fixture
def peaked() -> Histogram:
    """A bell of width 1 and one value in a hundred thousand at 60: what cutting off is for."""
    rng = np.random.default_rng(0)
    return _filled(rng.normal(0, 1, 200_000), np.array([60.0, -60.0]))


def _error(low: float, high: float, sample: np.ndarray) -> float:
    grids = (asymmetric(low, high), symmetric(low, high))
    return sum(float(np.mean((grid.rounded(sample) - sample) ** 2)) for grid in grids)


def test_the_least_squared_error_is_less_than_that_of_any_other_method(peaked: Histogram) -> None:
    sample = np.random.default_rng(0).normal(0, 1, 200_000).astype(np.float32)
    sample = np.append(sample, np.float32([60, -60]))
    found = {name: _error(*range_method(name)(peaked), sample) for name in ("minmax", "mse", "entropy")}
    found |= {f"p{p}": _error(*percentile(peaked, p), sample) for p in (99.0, 99.9, 99.99, 100.0)}
    assert found["mse"] <= min(found.values()) * 1.01
    assert found["mse"] < 0.7 * found["minmax"]


@pytest.mark.parametrize("method", [mean_squared_error, entropy])
def test_a_lonely_outlier_is_cut_off_and_the_bell_is_not(method: object, peaked: Histogram) -> None:
    low, high = method(peaked)  # type: ignore[operator]
    assert -60 < low < -2.5
    assert 2.5 < high < 60


@pytest.mark.parametrize("sign", [1, -1])
def test_the_least_squared_error_cuts_the_side_that_has_the_outlier(sign: int) -> None:
    bell = np.random.default_rng(0).uniform(-1, 1, 200_000)
    limits = sorted(abs(limit) for limit in mean_squared_error(_filled(sign * np.append(bell, 8))))
    assert 0.95 < limits[0] <= 1
    assert limits[1] < 6


def test_the_least_squared_error_counts_the_coarser_grid_of_tensorrt_too() -> None:
    """TFLite's by itself would keep the value at 2, for which its steps are wide enough."""
    assert mean_squared_error(_filled(np.append(np.linspace(0, 1, 170_000), 2)))[1] < 1.5


@pytest.mark.parametrize("size", [128, 200, 511, 900])
def test_the_divergence_is_that_of_the_paper(size: int) -> None:
    """Migacz 2017, slide 32, step by step; many bins are empty."""
    rng = np.random.default_rng(size)
    counts = rng.integers(1, 9, 1000) * (rng.random(1000) < 0.4)
    wanted, found = counts[:size].astype(float), np.zeros(size)
    wanted[-1] += counts[size:].sum()
    for level in range(128):
        part = slice(level * size // 128, (level + 1) * size // 128)
        full = counts[part] > 0
        found[part][full] = counts[part].sum() / max(full.sum(), 1)
    p, q = wanted / wanted.sum(), found / found.sum()
    divergence = sum(a * math.log(a / max(b, 1e-12)) for a, b in zip(p, q, strict=True) if a > 0)
    assert _divergence(counts.astype(np.float64), size) == pytest.approx(divergence)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_percentile_leaves_out_its_share_to_the_value_on_either_side(sign: int) -> None:
    """1 - 0.999 is a little less than a thousandth, 0.999 a little more than 999 of them."""
    histogram = Histogram()
    histogram.add(np.float32(sign) * np.array([100] + [0.5] * 999, np.float32))
    assert max(map(abs, range_method("percentile:99.9")(histogram))) < 1


def test_a_percentile_of_a_hundred_leaves_out_nothing() -> None:
    """Nor the part of the last bin that the extremes reach into."""
    histogram = _filled(np.random.default_rng(0).normal(0, 1, 1000))
    assert range_method("percentile:100")(histogram) == (histogram.low, histogram.high)


def test_zeros_have_no_say_in_the_entropy() -> None:
    """Most values behind a ReLU are zeros, which any range holds."""
    bell = np.random.default_rng(0).normal(0, 1, 20_000)
    assert entropy(_filled(bell, np.zeros(10**6))) == entropy(_filled(bell))


def test_even_values_keep_their_extremes() -> None:
    """Nothing is gained by cutting a uniform distribution."""
    histogram = _filled(np.linspace(0, 1, 100_000))
    for method in (mean_squared_error, entropy):
        low, high = method(histogram)
        assert low == 0.0
        assert high > 0.95


def test_the_table_holds_the_methods() -> None:
    assert list(METHODS) == ["minmax", "percentile", "mse", "entropy"]


@pytest.mark.parametrize(
    "method", ["median", "percentile", "percentile:x", "percentile:40", "minmax:1", "mse:"]
)
def test_an_unknown_method_is_refused(method: str) -> None:
    with pytest.raises(InputError, match="percentile"):
        range_method(method)

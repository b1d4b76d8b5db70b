"""The histogram against NumPy, its memory, and the percentiles that a sample can tell."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.profiling.histogram import BUCKETS, MOST_NS, Histogram, middle_ns
from edge.profiling.spread import Spread, missing
from edge.profiling.stats import frames_needed, percentiles, rank

DURATIONS = st.lists(st.integers(0, 3_600_000_000_000), min_size=1, max_size=300)
PERCENTS = [0.1, 25, 50, 90, 99, 99.9, 100]


def histogram(values: list[int]) -> Histogram:
    found = Histogram()
    for value in values:
        found.record(value)
    return found


@given(DURATIONS)
def test_percentiles_are_numpys_within_half_a_percent(values: list[int]) -> None:
    found = histogram(values)
    for percent in PERCENTS:
        wanted = float(np.percentile(values, percent, method="inverted_cdf"))
        assert found.percentiles_ns([percent])[0] == pytest.approx(wanted, rel=0.005, abs=1)


@given(DURATIONS)
def test_count_sum_least_most_and_jitter_are_exact(values: list[int]) -> None:
    found = histogram(values)
    assert (found.n, found.total_ns) == (len(values), sum(values))
    assert (found.min_ns, found.max_ns) == (min(values), max(values))
    assert found.mean_ns == pytest.approx(np.mean(values))
    if len(values) > 1:
        assert found.jitter_ns == pytest.approx(np.mean(np.abs(np.diff(values))))


@given(st.integers(0, 3_600_000_000_000))
def test_percentiles_of_one_value_are_that_value(value: int) -> None:
    assert histogram([value]).percentiles_ns(PERCENTS) == [value] * len(PERCENTS)


@given(st.integers(1, BUCKETS - 1))
def test_buckets_are_in_order_and_each_holds_its_own_middle(bucket: int) -> None:
    assert middle_ns(bucket) > middle_ns(bucket - 1)
    found = histogram([int(middle_ns(bucket))])
    assert found._view()[bucket] == 1


def test_from_a_microsecond_to_an_hour_the_error_is_below_half_a_percent() -> None:
    for exponent in np.linspace(3, 12.55, 2000):
        value = int(10**exponent)
        # Between others, so that the exact extremes do not help.
        found = histogram([0, value, MOST_NS])
        assert found.percentiles_ns([50])[0] == pytest.approx(value, rel=0.005)


def test_what_is_past_the_last_bucket_or_before_the_first_still_counts() -> None:
    found = histogram([-5, 10 * MOST_NS])
    assert (found.n, found.min_ns, found.max_ns) == (2, 0, 10 * MOST_NS)
    assert found.percentiles_ns([99])[0] <= 10 * MOST_NS
    with pytest.raises(ValueError, match="empty"):
        Histogram().percentiles_ns([50])


def test_a_million_frames_take_no_more_memory_than_one() -> None:
    found = histogram([1_000_000])
    tracemalloc.start()
    for value in range(0, 10_000_000, 100):
        found.record(value)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 1000
    assert len(found._view()) * 8 < 40_000


@pytest.mark.parametrize(("percent", "frames"), [(50, 5), (90, 29), (95, 59), (99, 299), (99.9, 2995)])
def test_frames_that_a_percentile_needs_are_wilkss(percent: float, frames: int) -> None:
    assert frames_needed(percent) == frames
    assert 1 - (percent / 100) ** frames >= 0.95 > 1 - (percent / 100) ** (frames - 1)


def test_spread_says_nothing_of_what_the_sample_cannot_tell() -> None:
    for n, told in ((298, False), (299, True)):
        values = np.arange(n) / 10
        for spread in (Spread.of(values), Spread.of_histogram(histogram([int(v * 1e6) for v in values]))):
            assert (spread.as_json()["p99"] is not None) is told
            assert spread.as_json()["p99.9"] is None
            assert spread.max == pytest.approx((n - 1) / 10)
    assert missing((50, 99, 99.9), 298) == {"p99": 299, "p99.9": 2995}


@given(st.lists(st.floats(0, 1e4), min_size=5, max_size=200))
def test_spread_is_ordered_and_of_values_that_occurred(values: list[float]) -> None:
    spread = Spread.of(values, (10, 50))
    told = [value for value in spread.percentiles.values() if value is not None]
    assert told == sorted(told)
    assert set(told) <= set(values)
    assert spread.max == max(values)


def test_nearest_rank_is_not_off_by_one_through_binary_fractions() -> None:
    assert rank(99.9, 1000) == 999
    assert rank(0.1, 10) == 1
    values = np.arange(1.0, 1001.0)
    assert percentiles(values, [99.9, 50, 100]).tolist() == [999.0, 500.0, 1000.0]

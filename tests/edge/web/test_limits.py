"""Token buckets: never more than was promised, in memory that is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.web.limits import Limiter, address_key


@given(
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=200),
    st.floats(0.1, 20),
    st.integers(1, 20),
)
def test_no_span_of_time_allows_more_than_the_burst_and_the_rate(
    gaps: list[float], rate: float, burst: int
) -> None:
    limiter, now_s, taken = Limiter(rate, burst), 0.0, []
    for gap in gaps:
        now_s += gap
        if limiter.take("somebody", now_s):
            taken.append(now_s)
    for first, begin_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - begin_s) + 1e-6


def test_what_has_to_wait_may_go_on_after_the_wait() -> None:
    limiter = Limiter(rate_per_s=0.5, burst=2)
    assert [limiter.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limiter.wait_s("a", 0.0) == pytest.approx(2.0)
    assert not limiter.take("a", 1.9)
    assert limiter.take("a", 2.1)
    assert limiter.take("b", 0.0)  # another one


def test_time_that_goes_back_gives_nothing() -> None:
    limiter = Limiter(1, 1)
    assert limiter.take("a", 100.0)
    assert not limiter.take("a", 0.0)


def test_the_address_that_was_quiet_for_longest_is_forgotten_and_may_be_given_back_to() -> None:
    limiter = Limiter(1e-9, 2, most_keys=2)
    for key in ("busy", "quiet", "busy", "new"):
        assert limiter.take(key, 0.0)
    limiter.give_back("quiet")  # forgotten, while its secret was compared
    assert not limiter.take("busy", 0.0)
    assert [limiter.take("quiet", 0.0) for _ in range(3)] == [True, True, False], "as a new one"


@given(st.lists(st.integers(0, 1000), max_size=300))
def test_addresses_are_forgotten_and_the_last_ones_are_not(keys: list[int]) -> None:
    limiter = Limiter(1e-9, 1, most_keys=8)
    for key in keys:
        limiter.take(str(key), 0.0)
        assert len(limiter) <= 8
        assert not limiter.take(str(key), 0.0)


@pytest.mark.parametrize(
    ("client", "key"),
    [
        (("192.168.1.5", 1), "192.168.1.5"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::"),
        (("2001:db8:1:2::9", 2), "2001:db8:1:2::"),
        (("fe80::1%eth0", 1), "fe80::"),
        (("::ffff:10.0.0.1", 1), "10.0.0.1"),
        (("testclient", 1), "None"),
        (None, "None"),
    ],
)
def test_whom_a_peer_counts_as(client: tuple[str, int] | None, key: str) -> None:
    assert address_key(client) == key

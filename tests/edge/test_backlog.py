"""The backlog detector: quiet while frames come on time, loud when they wait, whatever the clocks do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.backlog import JUMP_NS, Backlog, BacklogOptions

MS = 1_000_000
SECOND = 1000 * MS

periods_ms = st.sampled_from([10, 33, 40, 100, 1000])
origins = st.integers(-(10**18), 10**18)
delays_ms = st.lists(st.integers(0, 100), min_size=1, max_size=120)


def stream(delays: list[int], period_ms: int, origin: int, begin: int = 5 * SECOND) -> list[tuple[int, int]]:
    """(timestamp, arrival) of frames that come so many milliseconds late, none before the one ahead of it."""
    pairs, last = [], 0
    for index, delay in enumerate(delays):
        last = max(last, begin + (index * period_ms + delay) * MS)
        pairs.append((origin + index * period_ms * MS, last))
    return pairs


@given(delays_ms, periods_ms, origins)
def test_jitter_within_the_limit_is_no_backlog(delays: list[int], period_ms: int, origin: int) -> None:
    backlog = Backlog(BacklogOptions(limit_ms=101))
    verdicts = [backlog.observe(*pair) for pair in stream(delays, period_ms, origin)]
    assert {verdict.action for verdict in verdicts} == {"keep"}
    assert backlog.counts.flushed == backlog.counts.backlogs == backlog.counts.jumps == 0
    assert all(0 <= verdict.drift_ms <= 101 for verdict in verdicts)


@given(st.integers(200, 3000), periods_ms, origins, st.integers(1, 50))
def test_frames_that_waited_are_flushed_until_they_come_on_time(
    late_ms: int, period_ms: int, origin: int, before: int
) -> None:
    """After a stall the frames come at once, each less late than the one ahead of it."""
    backlog = Backlog(BacklogOptions(limit_ms=100))
    behind = [max(0, late_ms - index * period_ms) for index in range(late_ms // period_ms + 5)]
    delays = [0] * before + behind
    verdicts = [backlog.observe(*pair) for pair in stream(delays, period_ms, origin)]
    wanted = ["flush" if delay > 101 else "keep" for delay in delays]
    found = [verdict.action for verdict in verdicts]
    near = [index for index, delay in enumerate(delays) if 99 <= delay <= 101]
    assert [v for i, v in enumerate(found) if i not in near] == [
        v for i, v in enumerate(wanted) if i not in near
    ]
    counts = backlog.counts
    assert (counts.backlogs, counts.flushed, counts.reopened) == (1, found.count("flush"), 0)
    assert all(v.reason for v in verdicts if v.action == "flush")


@given(st.floats(-150, 150), origins)
def test_clocks_that_differ_by_quartz_are_no_backlog(ppm: float, origin: int) -> None:
    backlog = Backlog(BacklogOptions(limit_ms=100, skew_ppm=200))
    for index in range(0, 3600 * 10, 7):  # an hour of ten frames a second, each seventh
        media = round(index * 100 * MS * (1 + ppm * 1e-6))
        assert backlog.observe(origin + media, index * 100 * MS).action == "keep"


@given(delays_ms, st.integers(JUMP_NS + 200 * MS, 10**17), st.booleans())
def test_jump_of_the_timestamps_is_a_new_beginning(delays: list[int], jump: int, back: bool) -> None:
    backlog = Backlog(BacklogOptions(limit_ms=101))
    pairs = stream([0, *delays, *delays], 33, 0)
    middle = 1 + len(delays)
    for index, (media, arrival) in enumerate(pairs):
        moved = media + (-jump if back else jump) * (index >= middle)
        assert backlog.observe(moved, arrival).action == "keep"
    assert backlog.counts.jumps == 1
    assert backlog.counts.flushed == 0


@pytest.mark.parametrize("silent_s", [9, 11, 3600])
def test_frames_that_come_late_after_a_long_stall_are_no_new_beginning(silent_s: int) -> None:
    backlog = Backlog()
    backlog.observe(0, 0)
    assert backlog.observe(33 * MS, silent_s * SECOND).action == "flush"
    assert backlog.counts.jumps == 0


def test_a_pause_of_the_camera_itself_is_no_new_beginning() -> None:
    backlog = Backlog()
    backlog.observe(0, 0)
    assert backlog.observe(60 * SECOND, 60 * SECOND).action == "keep"
    assert backlog.observe(61 * SECOND, 62 * SECOND).action == "flush"
    assert backlog.counts.jumps == 0


def test_frames_of_one_timestamp_are_no_new_beginning() -> None:
    backlog = Backlog()
    for arrival in (0, 700 * MS):
        verdict = backlog.observe(5, arrival)
    assert (verdict.action, backlog.counts.jumps) == ("flush", 0)


def test_a_queue_that_grows_by_a_thousandth_is_no_skew_of_clocks() -> None:
    backlog = Backlog(BacklogOptions(limit_ms=100))
    actions = [backlog.observe(index * 100 * MS, round(index * 100.1 * MS)).action for index in range(3000)]
    assert "flush" in actions


def test_each_backlog_is_counted_and_has_its_own_patience() -> None:
    backlog = Backlog(BacklogOptions(patience_s=5))
    late = [0, 800, 0, 0, 0, 0, 0, 0, 800]
    actions = [backlog.observe(at * SECOND, at * SECOND + ms * MS).action for at, ms in enumerate(late)]
    assert actions == ["flush" if ms else "keep" for ms in late]
    assert backlog.counts.backlogs == 2


def test_single_wild_timestamp_does_not_condemn_those_after_it() -> None:
    backlog = Backlog()
    actions = []
    for index in range(100):
        media = index * 33 * MS + (3600 * SECOND if index == 50 else 0)
        actions.append(backlog.observe(media, index * 33 * MS).action)
    assert set(actions) == {"keep"}
    assert backlog.counts.jumps == 2


def test_delay_that_stays_asks_for_a_new_connection() -> None:
    backlog = Backlog(BacklogOptions(limit_ms=500, patience_s=2))
    backlog.observe(0, 0)
    actions = [backlog.observe(index * 100 * MS, (index * 100 + 800) * MS).action for index in range(1, 60)]
    assert actions.index("reopen") == pytest.approx(20, abs=1)
    assert set(actions[: actions.index("reopen")]) == {"flush"}
    backlog.restart()
    assert backlog.observe(0, 9 * SECOND).action == "keep"
    assert backlog.counts.reopened >= 1


def test_growing_queue_is_found_before_it_is_a_second_long() -> None:
    """A camera of 30 whose frames are read at 29 a second: the network's buffers fill."""
    backlog = Backlog(BacklogOptions(limit_ms=500))
    found = next(
        verdict
        for index in range(3000)
        if (verdict := backlog.observe(round(index * SECOND / 30), round(index * SECOND / 29))).action
        == "flush"
    )
    assert 500 < found.drift_ms < 600
    assert "500 ms are allowed" in found.reason

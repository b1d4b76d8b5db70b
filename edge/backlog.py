"""What waits upstream of us: the drift of a stream's own timestamps against the monotonic clock.

A frame that arrives late has spent the time somewhere: in the camera's encoder, in a socket's buffer, in a
decoder's queue. Its arrival stamp does not show it, the stream's timestamps do: of a frame that came as
quickly as one can, arrival minus timestamp is the least, and what another one has more than that it waited.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Action = Literal["keep", "flush", "reopen"]

JUMP_NS = 10_000_000_000
"""A step of the timestamps that differs by more than this from that of the clock is a new beginning."""


@dataclass(frozen=True)
class BacklogOptions:
    """When a backlog is one.

    Attributes:
        limit_ms: of waiting upstream, from which on frames are flushed.
        patience_s: of flushing in vain, after which the source is to be opened anew.
        skew_ppm: by how much the camera's clock may be slower than ours. Quartz clocks differ by less
            than 100; a backlog that grows more slowly than this (0.7 s an hour) is taken for such a skew.
    """

    limit_ms: float = 500.0
    patience_s: float = 5.0
    skew_ppm: float = 200.0


@dataclass(frozen=True)
class Verdict:
    """What to do with a frame: keep it; flush it, because newer ones wait behind it; or open anew.

    Attributes:
        drift_ms: how long it waited upstream, as far as the timestamps tell.
        reason: for people; empty for `keep`.
    """

    action: Action
    drift_ms: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class BacklogCounts:
    """What was found so far.

    Attributes:
        backlogs: how often one began.
        flushed: frames.
        reopened: how often flushing did not help.
        jumps: how often the timestamps began anew: by these nothing can be said of the frames before.
    """

    backlogs: int = 0
    flushed: int = 0
    reopened: int = 0
    jumps: int = 0


class Backlog:
    """Judges each frame of one source. Pure: it knows no clock but what it is told."""

    def __init__(self, options: BacklogOptions = BacklogOptions()) -> None:
        self._options = options
        self._backlogs = self._flushed = self._reopened = self._jumps = 0
        self.restart()

    def restart(self) -> None:
        """The source was opened anew: what was learnt of its timestamps does not hold; counts stay."""
        self._least_ns = math.inf  # arrival minus timestamp of a frame that did not wait; infinite before any
        self._media_ns = self._arrival_ns = 0
        self._since_ns: int | None = None  # when the present backlog was found
        self.drift_ms = 0.0

    def observe(self, media_ns: int, arrival_ns: int) -> Verdict:
        """Judge the next frame, from its own timestamp and the monotonic time of its arrival."""
        if self._least_ns < math.inf and self._jumped(media_ns, arrival_ns):
            self._jumps += 1
            self._least_ns = math.inf
        waited_ns = self._waited(media_ns, arrival_ns)
        self._media_ns, self._arrival_ns = media_ns, arrival_ns
        self.drift_ms = waited_ns / 1e6
        if self.drift_ms <= self._options.limit_ms:
            self._since_ns = None
            return Verdict("keep", self.drift_ms)
        return self._too_late(arrival_ns)

    @property
    def counts(self) -> BacklogCounts:
        """A snapshot."""
        return BacklogCounts(self._backlogs, self._flushed, self._reopened, self._jumps)

    def _jumped(self, media_ns: int, arrival_ns: int) -> bool:
        """The timestamps went back, or leapt ahead of the clock; a late arrival alone is no jump."""
        step_ns, took_ns = media_ns - self._media_ns, arrival_ns - self._arrival_ns
        return step_ns < 0 or step_ns - took_ns > JUMP_NS

    def _waited(self, media_ns: int, arrival_ns: int) -> float:
        """How much longer it took than the quickest; the mark rises by what a slow clock may lose."""
        offset_ns = float(arrival_ns - media_ns)
        risen_ns = self._least_ns + (arrival_ns - self._arrival_ns) * self._options.skew_ppm * 1e-6
        self._least_ns = min(risen_ns, offset_ns)
        return offset_ns - self._least_ns

    def _too_late(self, arrival_ns: int) -> Verdict:
        if self._since_ns is None:
            self._since_ns = arrival_ns
            self._backlogs += 1
        self._flushed += 1
        late = f"frames come {self.drift_ms:.0f} ms late by the stream's own timestamps"
        flushing_s = (arrival_ns - self._since_ns) / 1e9
        if flushing_s <= self._options.patience_s:
            limit = f"{self._options.limit_ms:.0f} ms are allowed"
            return Verdict("flush", self.drift_ms, f"{late}, {limit}: flushed until newer ones come")
        self._reopened += 1
        return Verdict(
            "reopen", self.drift_ms, f"{late}, after {flushing_s:.1f} s of flushing: it is opened anew"
        )

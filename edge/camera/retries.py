"""When a lost camera is tried again. Pure: it knows no clock but what it is told."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

FIRST_S, MOST_S = 0.05, 1.0
"""A connection costs the camera little and its return is to be seen soon: so the cap is low."""

DEGRADED_S, DEGRADED_MOST_S = 2.0, 30.0
"""Between tries of a degraded camera: a crashing decoder costs a process each time, and a camera that refuses
the password locks the account after some more."""

JITTER = 0.25
"""Up and down, so that many cameras behind one switch do not come back at the same moment."""

CRASHES = 5
"""In a row, each within `STEADY_S` of its first frame or before it, are a crash loop."""

STEADY_S = 0.3


@dataclass
class Retries:
    """Attributes:
    degraded: a crash loop, or a permanent refusal: tries are rare until frames come steadily.
    """

    degraded: bool = False
    _failures: int = 0
    _crashes: int = 0
    _slow: int = 0
    _streaming_since_s: float | None = None
    _random: Callable[[], float] = random.random

    def streams(self, now_s: float) -> None:
        """A frame came."""
        if self._streaming_since_s is None:
            self._streaming_since_s = now_s
        if now_s - self._streaming_since_s >= STEADY_S:
            self._failures = self._crashes = self._slow = 0
            self.degraded = False

    def failed(self, crashed: bool = False, refused: bool = False) -> float:
        """The camera was lost, or did not come back: seconds to wait before the next try.

        Args:
            crashed: its decoder ended by itself, or its stream did as soon as it had begun.
            refused: for a reason that another try alone does not change.
        """
        self._streaming_since_s = None
        self._failures += 1
        self._crashes = self._crashes + 1 if crashed else 0
        self.degraded = refused or self._crashes >= CRASHES or (self.degraded and crashed)
        if self.degraded:
            self._slow += 1
            delay_s = min(DEGRADED_MOST_S, DEGRADED_S * 2.0 ** min(self._slow - 1, 10))
        else:
            self._slow = 0
            delay_s = min(MOST_S, FIRST_S * 2.0 ** min(self._failures - 1, 10))
        return delay_s * (1 + JITTER * (2 * self._random() - 1))

"""Models of one frame side by side, on several threads, where that is quicker.

LiteRT, ONNX Runtime and TensorRT let Python go on while they infer, so that two models take two cores. What is
won depends on the models and on what else the cores do: a thread is woken for each frame, which takes longer
than the smallest networks. So both ways are tried on real frames, and the quicker one is kept.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Generic, Protocol, TypeVar

TRIES = 30
"""Frames each way before one is chosen."""

GAIN = 0.95
"""Side by side takes at most this part of the time of one after the other, or it is not worth a second core."""

AGAIN_S = 3600.0
"""After so long both ways are tried again: other programs come and go."""


class Part(Protocol):
    """What one job gives."""

    @property
    def end_ns(self) -> int:
        """When it had ended, on the monotonic clock."""


P = TypeVar("P", bound=Part)
Job = Callable[[int], P]
"""Told when its time begins (ns, monotonic): when the one before it on its thread ended."""


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


class Choice:
    """Whether the models of a frame run side by side.

    Args:
        wanted: True or False decides; None chooses by trying.

    Attributes:
        side_by_side: what was decided; None while both ways are tried.
    """

    def __init__(self, wanted: bool | None) -> None:
        self.side_by_side = wanted
        self._tries = wanted is None
        self._took_ns: dict[bool, list[int]] = {}
        self._chosen_s = float("-inf")

    def next(self) -> bool:
        """For the next frame. By chance while trying: in turn would give each camera a way of its own."""
        if self._tries and time.monotonic() - self._chosen_s > AGAIN_S:
            self.try_again()
        return random.random() < 0.5 if self.side_by_side is None else self.side_by_side

    def took(self, side_by_side: bool, ns: int) -> None:
        """How long a frame took that way."""
        if self.side_by_side is not None:
            return
        self._took_ns[side_by_side].append(ns)
        if all(len(took) >= TRIES for took in self._took_ns.values()):
            together, alone = (statistics.median(self._took_ns[way]) for way in (True, False))
            self.side_by_side = together <= GAIN * alone

    def try_again(self) -> None:
        """Choose anew, unless it was told: a model runs on another backend, or it is long ago."""
        if self._tries:
            self.side_by_side, self._chosen_s = None, time.monotonic()
            self._took_ns = {True: [], False: []}


class Crew(Generic[P]):
    """The calling thread and its helpers, which do the jobs of a frame between them.

    Args:
        helpers: how many, at least one where jobs run side by side; their threads begin when they are needed,
            and end with `close`.
    """

    def __init__(self, helpers: int) -> None:
        self._helpers = helpers
        self._pool: ThreadPoolExecutor | None = None

    def run(self, jobs: Sequence[Job[P]], begin_ns: int, side_by_side: bool) -> list[list[P]]:
        """Do all jobs; returns when all have ended.

        Returns:
            By thread what its jobs gave, in the order in which it did them. On each thread time goes on without
            a gap: the first job's begins at `begin_ns`, the waking of the helper included.

        Raises:
            Whatever a job raises, once no other is under way.
        """
        todo = deque(jobs)
        if not side_by_side:
            return [_work(todo, begin_ns)]
        self._pool = self._pool or ThreadPoolExecutor(self._helpers, "model")
        helping = [self._pool.submit(_work, todo, begin_ns) for _ in range(min(self._helpers, len(jobs) - 1))]
        try:
            own = _work(todo, begin_ns)
        finally:
            wait(helping)
        return [own, *(future.result() for future in helping)]

    def close(self) -> None:
        """End the helpers' threads; harmless when called twice."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()


def _work(todo: deque[Job[P]], begin_ns: int) -> list[P]:
    """Do what no other thread has taken."""
    done: list[P] = []
    while True:
        try:
            job = todo.popleft()
        except IndexError:
            return done
        done.append(job(done[-1].end_ns if done else begin_ns))

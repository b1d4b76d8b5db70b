"""Who is who from frame to frame: boxes that overlap where they were expected belong together.

The idea is SORT's (Bewley et al. 2016, arXiv 1602.00763), with a velocity that is a running mean in
place of its Kalman filter, and with the best-overlapping pairs matched first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.boxes import Floats, iou

Ints = NDArray[np.int64]

_VELOCITY_SHARE = 0.5
"""Of the newest step in the velocity: detections tremble by a pixel or two."""


@dataclass(frozen=True)
class TrackOptions:
    """How faces are followed.

    Attributes:
        iou_threshold: a face belongs to a track when it overlaps the track's expected box by this much.
        confirm: frames in which a face must be seen before it gets a number; a false alarm seldom
            lasts for two.
        max_missed: frames that a confirmed track survives unseen: behind a hand, or two faces seen as one.
    """

    iou_threshold: float = 0.3
    confirm: int = 2
    max_missed: int = 8


@dataclass(frozen=True)
class _Tracks:
    """Some tracks, one a row.

    Attributes:
        boxes: float32 (m, 4), where they were last seen, or expected since.
        velocity: float32 (m, 4), pixels a frame, of each side of the box; a box keeps its size.
        seen, missed: int64 (m,), frames in all, and since they were last seen.
        numbers: int64 (m,), 0 before a track is confirmed.
    """

    boxes: Floats
    velocity: Floats
    seen: Ints
    missed: Ints
    numbers: Ints

    @classmethod
    def new(cls, boxes: Floats) -> _Tracks:
        """Of faces that are seen for the first time."""
        zeros = np.zeros(len(boxes), np.int64)
        return cls(boxes, np.zeros_like(boxes), zeros + 1, zeros, zeros.copy())

    def expected(self) -> Floats:
        """Where they should be in the next frame."""
        return self.boxes + self.velocity

    def missing(self, gone: NDArray[np.bool_], patience: int) -> _Tracks:
        """Those of `gone`, bool (m,), that may come back; the unconfirmed are given up at once."""
        rows = gone & (self.numbers > 0) & (self.missed < patience)
        return _Tracks(
            self.expected()[rows],
            self.velocity[rows],
            self.seen[rows],
            self.missed[rows] + 1,
            self.numbers[rows],
        )

    def and_(self, others: _Tracks) -> _Tracks:
        """Both, these first."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))


class Tracker:
    """Numbers faces from 1, in the order in which they are confirmed; a number is never used again."""

    def __init__(self, options: TrackOptions = TrackOptions()) -> None:
        self._options = options
        self._tracks = _Tracks.new(np.empty((0, 4), np.float32))
        self._numbered = 0

    def update(self, boxes: Floats) -> Ints:
        """Take the next frame's faces.

        Args:
            boxes: float32 (n, 4), x0, y0, x1, y1 in pixels.

        Returns:
            int64 (n,): each face's number; 0 where it has not been seen often enough.
        """
        if not len(boxes) and not len(self._tracks.boxes):  # most frames of most cameras
            return np.empty(0, np.int64)
        known, tracks = self._match(boxes)
        seen = _Tracks.new(boxes)
        self._continue(seen, known, tracks)
        gone = np.ones(len(self._tracks.boxes), np.bool_)
        gone[tracks] = False
        self._tracks = self._tracks.missing(gone, self._options.max_missed).and_(seen)
        return seen.numbers

    def _match(self, boxes: Floats) -> tuple[Ints, Ints]:
        """Indices of boxes, and of the track of each; the pair that overlaps most comes first."""
        overlaps = iou(boxes, self._tracks.expected())
        pairs = np.argwhere(overlaps >= self._options.iou_threshold)
        matched: dict[int, int] = {}
        taken: set[int] = set()
        # Stable, so that of equal pairs the better face wins, every time.
        for box, track in pairs[np.argsort(-overlaps[tuple(pairs.T)], kind="stable")].tolist():
            if box not in matched and track not in taken:
                matched[box] = track
                taken.add(track)
        return np.array([*matched], np.int64), np.array([*matched.values()], np.int64)

    def _continue(self, seen: _Tracks, known: Ints, tracks: Ints) -> None:
        """Write into the rows `known` of `seen` what their tracks have been so far, and number them."""
        before = self._tracks
        surprise = (seen.boxes[known] - before.expected()[tracks]).reshape(-1, 2, 2).mean(axis=1)
        # Over unseen frames the surprise has added up: each had its part of it.
        share = _VELOCITY_SHARE / (1 + before.missed[tracks, None])
        seen.velocity[known] = before.velocity[tracks] + np.tile(surprise * share, 2)
        seen.seen[known] += before.seen[tracks]
        seen.numbers[known] = before.numbers[tracks]
        confirmed = (seen.numbers == 0) & (seen.seen >= self._options.confirm)
        seen.numbers[confirmed] = self._numbered + 1 + np.arange(confirmed.sum())
        self._numbered += int(confirmed.sum())

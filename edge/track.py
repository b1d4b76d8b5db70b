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


_SEEN, _MISSED, _NUMBER = range(3)
"""Columns of `_Tracks.counts`."""


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
        counts: int64 (m, 3): frames in which they were seen in all, frames since they were last seen, and their
            number, 0 before a track is confirmed.
    """

    boxes: Floats
    velocity: Floats
    counts: Ints

    @classmethod
    def new(cls, boxes: Floats) -> _Tracks:
        """Of faces that are seen for the first time."""
        counts = np.zeros((len(boxes), 3), np.int64)
        counts[:, _SEEN] = 1
        return cls(boxes, np.zeros_like(boxes), counts)

    def missing(self, rows: list[int], expected: Floats, patience: int) -> _Tracks:
        """Those of `rows` that may come back; the unconfirmed are given up at once."""
        counts = self.counts[rows]
        stay = (counts[:, _NUMBER] > 0) & (counts[:, _MISSED] < patience)
        counts = counts[stay]
        counts[:, _MISSED] += 1
        return _Tracks(expected[rows][stay], self.velocity[rows][stay], counts)

    def and_(self, others: _Tracks) -> _Tracks:
        """Both, these first."""
        pairs = zip(vars(self).values(), vars(others).values(), strict=True)
        return _Tracks(*(np.concatenate(pair) for pair in pairs))


class Tracker:
    """Numbers faces from 1, in the order in which they are confirmed; a number is never used again.

    NumPy takes some microseconds a call however few the faces are, so `update` makes no call that it can spare.
    """

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
        before = self._tracks
        if not len(boxes) and not len(before.boxes):  # most frames of most cameras
            return np.empty(0, np.int64)
        expected = before.boxes + before.velocity
        matched = self._match(boxes, expected)
        seen = _Tracks.new(boxes)
        if matched:
            self._continue(seen, matched, expected)
        if not seen.counts[:, _NUMBER].all():
            self._number(seen.counts)
        gone = [row for row in range(len(expected)) if row not in matched.values()]
        self._tracks = before.missing(gone, expected, self._options.max_missed).and_(seen) if gone else seen
        return seen.counts[:, _NUMBER]

    def scale(self, x: float, y: float) -> None:
        """The pictures are of another size from now on, by these factors; what they show is the same."""
        factors, before = np.array([x, y, x, y], np.float32), self._tracks
        self._tracks = _Tracks(before.boxes * factors, before.velocity * factors, before.counts)

    def _match(self, boxes: Floats, expected: Floats) -> dict[int, int]:
        """The track of each box that has one; the pair that overlaps most comes first."""
        matched: dict[int, int] = {}
        if not len(boxes) or not len(expected):
            return matched
        overlaps = iou(boxes, expected)
        found, tracks = np.nonzero(overlaps >= self._options.iou_threshold)
        # Stable, so that of equal pairs the better face wins, every time.
        order = np.argsort(-overlaps[found, tracks], kind="stable") if len(found) > 1 else slice(None)
        taken: set[int] = set()
        for box, track in zip(found[order].tolist(), tracks[order].tolist(), strict=True):
            if box not in matched and track not in taken:
                matched[box] = track
                taken.add(track)
        return matched

    def _continue(self, seen: _Tracks, matched: dict[int, int], expected: Floats) -> None:
        """Write into the matched rows of `seen` what their tracks have been so far."""
        known, tracks = [*matched], [*matched.values()]
        before = self._tracks.counts[tracks]
        off = seen.boxes[known] - expected[tracks]
        # Over unseen frames the surprise has added up: each had its part of it.
        share = _VELOCITY_SHARE / 2 / (1 + before[:, _MISSED, None])
        surprise = (off[:, :2] + off[:, 2:]) * share
        seen.velocity[known] = self._tracks.velocity[tracks] + np.concatenate([surprise, surprise], axis=1)
        before[:, _SEEN] += 1
        before[:, _MISSED] = 0
        seen.counts[known] = before

    def _number(self, counts: Ints) -> None:
        """Confirm those that were seen often enough."""
        confirmed = (counts[:, _NUMBER] == 0) & (counts[:, _SEEN] >= self._options.confirm)
        n = int(confirmed.sum())
        counts[confirmed, _NUMBER] = self._numbered + 1 + np.arange(n)
        self._numbered += n

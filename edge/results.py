"""The typed results of the tasks, and what all models of a stream say of one frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Classification:
    """What a picture shows.

    Attributes:
        scores: float32 (classes,), probabilities that add up to 1, in the order of the labels.
        index: of the best class.
        label: its name.
    """

    scores: NDArray[np.float32]
    index: int
    label: str

    @property
    def score(self) -> float:
        """The probability of the best class, 0 to 1."""
        return float(self.scores[self.index])

    def summary(self) -> str:
        """A short text for a person: `cat 0.83`."""
        return f"{self.label} {self.score:.2f}"

    def as_json(self) -> dict[str, Any]:
        """The fields of a line of `predict`: `{"scores": [p0, p1, ...]}`."""
        return {"scores": [round(float(p), 6) for p in self.scores]}

    def as_record(self) -> dict[str, Any]:
        """The fields in the results of a stream: `label`, `score` and `index` of the best, and `scores`."""
        return {"label": self.label, "score": round(self.score, 6), "index": self.index, **self.as_json()}


@dataclass(frozen=True)
class Face:
    """One of `Faces`.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the source picture; score: 0 to 1.
        track: the person's number in this stream, from 1; None before a track is confirmed, and for
            single pictures.
        classes: by classifier, what it says of the face's crop.
    """

    box: tuple[float, float, float, float]
    score: float
    track: int | None
    classes: Mapping[str, Classification]

    def as_record(self) -> dict[str, Any]:
        """`box` and `score`, and where they are known `track` and `classes`."""
        classes = {
            name: {"label": found.label, "score": round(found.score, 6)}
            for name, found in self.classes.items()
        }
        return {
            "box": [round(side, 2) for side in self.box],
            "score": round(self.score, 6),
            **({"track": self.track} if self.track is not None else {}),
            **({"classes": classes} if classes else {}),
        }


BEYOND_DOUBT = 0.6
"""Of a face's score. The int8 detector at 320x192 gives 31 false alarms of that score in the 458 validation
pictures, and 56 from its threshold of 0.5 on."""


@dataclass(frozen=True)
class Faces:
    """The faces of a picture, best first.

    Attributes:
        boxes: float32 (n, 4), x0, y0, x1, y1 in pixels of the source picture, inside it.
        scores: float32 (n,), 0 to 1, descending.
        tracks: int64 (n,), see `edge.track`: from 1, and 0 before a track is confirmed; None for
            single pictures.
        classes: by classifier, what it says of the crops of the first faces; it may see fewer than all.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    tracks: NDArray[np.int64] | None = None
    classes: Mapping[str, tuple[Classification, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Face]:
        tracks = [0] * len(self) if self.tracks is None else self.tracks.tolist()
        rows = zip(self.boxes.tolist(), self.scores.tolist(), tracks, strict=True)
        for index, (box, score, track) in enumerate(rows):
            classes = {name: found[index] for name, found in self.classes.items() if index < len(found)}
            yield Face(tuple(box), score, track or None, classes)

    def tracked(self, tracks: NDArray[np.int64]) -> Faces:
        """The faces with the numbers of their tracks, int64 (n,).

        One that is not followed yet counts from the first frame on only when its score is at least
        `BEYOND_DOUBT`: a weak false alarm seldom lasts for two frames.
        """
        kept = (tracks > 0) | (self.scores >= BEYOND_DOUBT)
        return replace(self, boxes=self.boxes[kept], scores=self.scores[kept], tracks=tracks[kept])

    def classified(self, name: str, found: tuple[Classification, ...]) -> Faces:
        """The same faces with what the classifier `name` says of the first of them."""
        return replace(self, classes={**self.classes, name: found})

    def summary(self) -> str:
        """A short text for a person: `2 faces 0.91 0.64`; with classes `1 face 0.91 mask`."""
        words = [f"{len(self)} {'face' if len(self) == 1 else 'faces'}"]
        for face in islice(self, 4):
            words += [f"{face.score:.2f}", *(found.label for found in face.classes.values())]
        return " ".join(words)

    def as_json(self) -> dict[str, Any]:
        """The fields of a line of `predict`: `{"boxes": [[x0, y0, x1, y1, score], ...]}`."""
        return {"boxes": [[*(round(side, 2) for side in face.box), round(face.score, 6)] for face in self]}

    def as_record(self) -> dict[str, Any]:
        """The fields in the results of a stream: `faces`, a list of `Face.as_record`."""
        return {"faces": [face.as_record() for face in self]}


Result = Classification | Faces


@dataclass(frozen=True)
class FrameResult:
    """What all models of a stream say of one frame.

    Attributes:
        by_model: by the model's name, in the order in which they ran. A classifier of the faces' crops
            has no entry of its own: what it says stands with the faces.
        held_ms: of the models that did not see this frame, how much older the frame is whose result stands
            here; a model that sees every frame is not in it.
    """

    by_model: Mapping[str, Result]
    held_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def faces(self) -> tuple[Face, ...]:
        """Of all detectors."""
        return tuple(
            face for result in self.by_model.values() if isinstance(result, Faces) for face in result
        )

    @property
    def classification(self) -> Classification | None:
        """Of the first classifier that sees the whole frame."""
        return next((result for result in self.by_model.values() if isinstance(result, Classification)), None)

    def summary(self) -> str:
        """A short text for a person: `2 faces 0.91 0.64, cat 0.83`."""
        return ", ".join(result.summary() for result in self.by_model.values())

    def as_record(self) -> dict[str, Any]:
        """Of one model: `model` and its result's fields; of several: `models`, those fields by name.

        A result that was taken over from an earlier frame says by `held_ms` how much older that one is.
        """
        records = {name: result.as_record() | self._held(name) for name, result in self.by_model.items()}
        if len(records) == 1:
            ((name, record),) = records.items()
            return {"model": name, **record}
        return {"models": records}

    def _held(self, name: str) -> dict[str, float]:
        return {"held_ms": round(self.held_ms[name], 1)} if name in self.held_ms else {}

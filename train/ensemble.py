"""Several classifiers as one: the mean of their probabilities.

Members that err on different pictures outvote each other's mistakes; members that err alike, or one far
weaker than the rest, gain nothing. So an ensemble is measured beside its members, picture by picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from train.data import LabelledImages
from train.evaluate import (
    Advance,
    Subject,
    Top1,
    check_labels,
    evaluation_progress,
    keras_outputs,
    open_subject,
)


@dataclass(frozen=True)
class Member:
    """A classifier's answers to the images of a data set.

    Attributes:
        probabilities: float32 (N, classes), rows that add up to 1; labels: int64 (N,), what is right.
    """

    name: str
    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]

    @classmethod
    def measured(cls, subject: Subject, data: LabelledImages) -> Member:
        """Ask the classifier; raises InputError where the data has other classes."""
        check_labels(data, subject.labels, subject.name)
        ask = _keras if subject.backend == "keras" else _bundle
        with evaluation_progress(subject.name, len(data)) as advance:
            return cls(subject.name, ask(subject, data, advance), data.labels)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Which images were named correctly: (N,)."""
        named: NDArray[np.bool_] = self.probabilities.argmax(axis=1) == self.labels
        return named

    @property
    def top1(self) -> Top1:
        """Its accuracy."""
        return Top1(int(self.right.sum()), len(self.labels))

    def against(self, other: Member) -> tuple[int, int]:
        """How many images this one names correctly and the other does not, and the other way round."""
        return int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())


def members_of(models: Sequence[str]) -> Iterator[Subject]:
    """Open each model in turn.

    Raises:
        InputError: one is missing or damaged, or is no classifier.
    """
    for model in models:
        subject = open_subject(model)
        if subject.task != "classification":
            subject.close()
            raise InputError(f"{subject.name} is a model for {subject.task}; an ensemble is of classifiers.")
        yield subject


def joined(members: Sequence[Member]) -> Member:
    """The ensemble: the mean of all members' probabilities, each counting the same."""
    mean = np.mean([member.probabilities for member in members], axis=0)
    return Member("together", np.asarray(mean, np.float32), members[0].labels)


def _keras(subject: Subject, data: LabelledImages, advance: Advance) -> NDArray[np.float32]:
    import keras

    logits = keras_outputs(subject.model, data.images, advance)
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.softmax(logits)), np.float32)


def _bundle(subject: Subject, data: LabelledImages, advance: Advance) -> NDArray[np.float32]:
    rows, model = [], subject.model
    for picture in data.images:
        rows.append(model.decode(model.infer(model.prepare(picture)), picture).scores)
        advance(1)
    return np.stack(rows)

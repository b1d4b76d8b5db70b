"""Where a classifier errs: the confusion matrix, each class's accuracy, the pairs it mixes up, its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.ensemble import Member
from train.evaluate import Top1

Counts = NDArray[np.int64]
"""(classes, classes): how many images of the row's class were given the column's name."""


@dataclass(frozen=True)
class ClassAccuracy:
    """How many of a class's images were named correctly."""

    label: str
    top1: Top1


@dataclass(frozen=True)
class Pair:
    """`count` of the `n` images of class `truth` were taken for `answer`."""

    truth: str
    answer: str
    count: int
    n: int

    @property
    def per_cent(self) -> float:
        """Of the class's images."""
        return 100 * self.count / self.n


@dataclass(frozen=True)
class Mistake:
    """An image that was named wrongly.

    Attributes:
        index: of the image in its data; truth, answer: indices of the classes.
        confidence: the probability of the answer; for_truth: that of what is right; both 0 to 1.
    """

    index: int
    truth: int
    answer: int
    confidence: float
    for_truth: float


def confusion(answers: Member) -> Counts:
    """The matrix; its rows add up to the classes' images, its diagonal to those that were named correctly."""
    classes = answers.probabilities.shape[1]
    cells = answers.labels * classes + answers.probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def by_class(counts: Counts, labels: Sequence[str]) -> list[ClassAccuracy]:
    """Each class that has images, the worst first."""
    found = [
        ClassAccuracy(labels[index], Top1(int(row[index]), int(row.sum())))
        for index, row in enumerate(counts)
        if row.sum()
    ]
    return sorted(found, key=lambda part: part.top1.per_cent)


def pairs(counts: Counts, labels: Sequence[str], most: int) -> list[Pair]:
    """The `most` frequent mistakes by class and answer, by their share of the class's images."""
    n = counts.sum(axis=1)
    wrong = counts * (1 - np.eye(len(counts), dtype=np.int64))
    shares = wrong / np.maximum(n, 1)[:, None]
    order = np.argsort(-shares, axis=None, kind="stable")[:most]
    rows, columns = np.unravel_index(order, counts.shape)
    return [
        Pair(labels[row], labels[column], int(wrong[row, column]), int(n[row]))
        for row, column in zip(rows, columns, strict=True)
        if wrong[row, column]
    ]


def worst(answers: Member, most: int) -> list[Mistake]:
    """The wrong answers of which the network was surest, the surest first, at most so many."""
    named = answers.probabilities.argmax(axis=1)
    wrong = np.flatnonzero(named != answers.labels)
    sure = answers.probabilities[wrong, named[wrong]]
    chosen = wrong[np.argsort(-sure, kind="stable")][:most]
    return [
        Mistake(
            int(index),
            int(answers.labels[index]),
            int(named[index]),
            float(answers.probabilities[index, named[index]]),
            float(answers.probabilities[index, answers.labels[index]]),
        )
        for index in chosen
    ]

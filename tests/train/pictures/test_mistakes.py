"""Confusion, accuracy by class, pairs and worst mistakes, against scikit-learn and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from train.ensemble import Member
from train.pictures.mistakes import by_class, confusion, pairs, worst


@st.composite
def members(draw: st.DrawFn) -> Member:
    """Answers of some classifier; few different probabilities, so that ties occur."""
    n, classes = draw(st.integers(1, 40)), draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.integers(1, draw(st.sampled_from((3, 1000))), (n, classes)).astype(np.float32)
    # Some classes may have no image at all.
    labels = rng.integers(0, draw(st.integers(1, classes)), n)
    return Member("drawn", raw / raw.sum(axis=1, keepdims=True), labels)


@given(members())
def test_the_matrix_is_scikit_learns_and_adds_up(answers: Member) -> None:
    classes = answers.probabilities.shape[1]
    counts = confusion(answers)
    named = answers.probabilities.argmax(axis=1)
    assert (counts == confusion_matrix(answers.labels, named, labels=range(classes))).all()
    assert counts.sum() == len(answers.labels)
    assert np.trace(counts) == answers.top1.right
    parts = by_class(counts, [str(index) for index in range(classes)])
    assert sum(part.top1.n for part in parts) == len(answers.labels)
    assert sum(part.top1.right for part in parts) == answers.top1.right
    accuracies = [part.top1.per_cent for part in parts]
    assert accuracies == sorted(accuracies)


@given(members(), st.integers(1, 50))
def test_the_worst_mistakes_are_the_most_confident_wrong_answers(answers: Member, most: int) -> None:
    found = worst(answers, most)
    wrong = {
        index: max(row)
        for index, row in enumerate(answers.probabilities)
        if int(np.argmax(row)) != answers.labels[index]
    }
    assert len(found) == min(most, len(wrong))
    assert len({mistake.index for mistake in found}) == len(found)
    for mistake in found:
        row = answers.probabilities[mistake.index]
        assert mistake.confidence == wrong.pop(mistake.index) == row[mistake.answer]
        assert mistake.truth == answers.labels[mistake.index] != mistake.answer
        assert mistake.for_truth == row[mistake.truth]
    confidences = [mistake.confidence for mistake in found]
    assert confidences == sorted(confidences, reverse=True)
    assert all(left <= confidences[-1] for left in wrong.values())


@given(members())
def test_the_pairs_are_all_mistakes_by_share(answers: Member) -> None:
    counts = confusion(answers)
    labels = [str(index) for index in range(len(counts))]
    found = pairs(counts, labels, counts.size)
    assert sum(pair.count for pair in found) == answers.top1.n - answers.top1.right
    shares = [pair.per_cent for pair in found]
    assert shares == sorted(shares, reverse=True)
    for pair in found:
        truth, answer = int(pair.truth), int(pair.answer)
        assert truth != answer
        assert (pair.count, pair.n) == (counts[truth, answer], counts[truth].sum())
    assert pairs(counts, labels, 1) == found[:1]


def test_a_pair_counts_by_its_share_of_the_class() -> None:
    counts = np.array([[5, 5, 0], [20, 980, 0], [0, 1, 0]])
    first, second, third = pairs(counts, ("cat", "dog", "bird"), 9)
    assert (first.truth, first.answer, first.per_cent) == ("bird", "dog", 100)
    assert (second.truth, second.answer, second.per_cent) == ("cat", "dog", 50)
    assert (third.count, third.n, third.per_cent) == (20, 1000, pytest.approx(2))

"""A classifier that names the enrolled classes, in place of those it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge.enrolment.classifier import ExemplarClassifier, embedding
from edge.enrolment.store import Store
from edge.model import Model
from edge.pixels import Image
from edge.protocols import Heads
from edge.results import Classification


class EnrolledTask:
    """Embeds the heads and asks the enrolled classes; a `Task`.

    The store is read once: classes that are taught or forgotten later need another task.
    """

    def __init__(self, heads: tuple[str, ...], classifier: ExemplarClassifier) -> None:
        self._heads, self._classifier = heads, classifier

    def decode(self, heads: Heads, picture: Image) -> Classification:
        """The enrolled class that the first item is most like, or `unknown`."""
        return self._classifier.classify(embedding(heads, self._heads))


def with_enrolled(model: Model, store: Path, people: bool = False, may_be_empty: bool = False) -> Model:
    """The model with the classes of a store as its labels; both share one runner, close one of them.

    Args:
        people: use enrolled people, too.
        may_be_empty: without any class all is unknown.

    Raises:
        InputError: the model is no classifier, or the store holds no class for it.
    """
    enrolled = Store(store, model.manifest)
    classifier = enrolled.classifier(people, may_be_empty)
    return replace(
        model,
        manifest=model.manifest.model_copy(update={"labels": classifier.labels}),
        _task=EnrolledTask(enrolled.heads, classifier),
    )

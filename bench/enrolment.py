"""How well new classes are taught from a few pictures: right answers and false acceptance.

    python bench/enrolment.py BUNDLE DATA [--pictures 5] [--repeats 40] [--classes 2]

DATA is CIFAR-10 (classes that the shipped network was trained on) or `digits` (scikit-learn's, which it
never saw). Each repeat draws classes and pictures, enrols them, and asks the classifier about every other
picture of the split. Printed: of the enrolled classes' pictures, the share that got its right name; of all
others, the share that was taken for one of the classes instead of `unknown`; means over the repeats and
95% intervals of these means.
"""

from __future__ import annotations

import click
import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.enroll import embeddings
from edge.enrolment.classifier import Examples, ExemplarClassifier
from edge.model import Model
from train.data import load

Floats = NDArray[np.float32]


def trial(
    rows: Floats,
    labels: NDArray[np.int64],
    classes: int,
    pictures: int,
    accept: float,
    chance: np.random.Generator,
) -> tuple[float, float]:
    """Right names and false acceptance of one draw, shares from 0 to 1."""
    chosen = chance.choice(np.unique(labels), classes, replace=False).tolist()
    drawn = {
        label: chance.choice(np.flatnonzero(labels == label), pictures, replace=False) for label in chosen
    }
    classifier = ExemplarClassifier({str(label): Examples(rows[at], accept) for label, at in drawn.items()})
    rest = np.setdiff1d(np.arange(len(rows)), np.concatenate([*drawn.values()]))
    named = np.array([classifier.classify(row).label for row in rows[rest]])
    asked = labels[rest]
    enrolled = np.isin(asked, chosen)
    right = named[enrolled] == asked[enrolled].astype(str)
    return float(right.mean()), float((named[~enrolled] != "unknown").mean())


@click.command()
@click.argument("bundle")
@click.argument("data")
@click.option("--pictures", default=5, show_default=True, type=click.IntRange(min=2))
@click.option("--classes", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--accept", default=0.9, show_default=True)
@click.option("--repeats", default=40, show_default=True)
@click.option("--limit", default=2000, show_default=True, help="Pictures of the test split.")
@click.option("--seed", default=0, show_default=True)
def main(
    bundle: str, data: str, pictures: int, classes: int, accept: float, repeats: int, limit: int, seed: int
) -> None:
    """Measure enrolment with BUNDLE on the test split of DATA."""
    model = Model.open(Bundle.open(bundle))
    images = load(data, "test", model.manifest.input.height, model.manifest.input.width)
    rows = embeddings(model, list(images.images[:limit]))
    chance = np.random.default_rng(seed)
    found = np.array(
        [trial(rows, images.labels[:limit], classes, pictures, accept, chance) for _ in range(repeats)]
    )
    means, halves = found.mean(axis=0), 1.96 * found.std(axis=0, ddof=1) / repeats**0.5
    right, false = (f"{mean:.1%} ± {half:.1%}" for mean, half in zip(means, halves, strict=True))
    print(
        f"{model.name} {model.backend} {model.precision}, {images.source}, {len(rows)} pictures, "
        f"{classes} classes of {pictures}, {repeats} repeats: right {right}, false acceptance {false}"
    )


if __name__ == "__main__":
    main()

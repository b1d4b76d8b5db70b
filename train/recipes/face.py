"""The default face detector: under 100 k parameters.

Command: sightline train face --data DIR
Cost:    to be measured
Result:  to be measured
"""

from train.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe(
    name="face",
    model="train.models.face:face",
    epochs=105,
    large_every=4,
    learning_rate=0.004,
    warmup_epochs=1.0,
    smallest_crop=0.45,
    largest_crop=2.0,
    terms=(
        "Trained on FDDB, street-masks and masks-853: photographs for research use, not to be passed on. For a "
        "product, train on pictures whose terms allow it."
    ),
)

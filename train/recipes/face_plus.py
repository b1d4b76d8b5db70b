"""The larger face detector: as slow as YuNet_s at most.

Command: sightline train face_plus --data DIR
Cost:    to be measured
Result:  to be measured

Grows out of the trained `face`: five more residual pairs, which begin as identities.
"""

from train.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe(
    name="face-plus",
    model="train.models.face:face_plus",
    epochs=25,
    large_every=4,
    learning_rate=0.003,
    warmup_epochs=1.0,
    smallest_crop=0.45,
    largest_crop=2.0,
    grown_from="models/face.keras",
    terms=(
        "Trained on FDDB, street-masks and masks-853: photographs for research use, not to be passed on. For a "
        "product, train on pictures whose terms allow it."
    ),
)

"""The default face detector: under 100 k parameters.

Command: sightline train face --data DIR
Cost:    to be measured
Result:  to be measured
"""

from train.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe(
    name="face",
    model="train.models.face:face",
    epochs=110,
    learning_rate=0.005,
    smallest_crop=0.45,
    largest_crop=2.0,
)

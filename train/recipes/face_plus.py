"""The larger face detector: stages, necks and heads of the trained `face` twice as wide, 335,455 parameters.

Command: sightline train face_plus ignored_from=build/unlabelled.json --data DIR
Cost:    96 minutes on two x86 cores (AVX2 alone) that ran tests too (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  AP50 .839 of the 625 test pictures at 320x320 in float where `face` had .832, paired 95 % interval of the
         difference -0.4 to +1.7 points; .881 in place of .878 at 640x640; of the val split .849 in place of .848
         (seed 0, n = 1)

It begins as `face` was before it had a background, see `train.detection.lesson.grow`. Three times the parameters and
1.7 times the time win little: what is left is not for want of capacity.
"""

from train.detection.recipe import DetectorRecipe

RECIPE = DetectorRecipe(
    name="face-plus",
    model="train.models.face:face_plus",
    epochs=64,
    large_every=4,
    validate_every=8,
    learning_rate=0.003,
    warmup_epochs=0.5,
    smallest_crop=0.45,
    largest_crop=2.0,
    one_style=True,
    grown_from="models/face.keras",
    terms=(
        "Trained on FDDB, street-masks and masks-853: photographs for research use, not to be passed on. For a "
        "product, train on pictures whose terms allow it."
    ),
)

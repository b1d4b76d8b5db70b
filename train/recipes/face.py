"""The default face detector: 97,983 parameters, 103 M MACs at 320x320.

Command: sightline train face ignored_from=build/unlabelled.json grown_from=build/models/face-start.keras --data DIR
Cost:    59 minutes for these 105 epochs, 38 for the 61 before them, on two x86 cores that were busy with other
         work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  AP50 .785 of the 625 test pictures at 320x320 in float, 95 % interval .735 to .830 (seed 0, n = 1)

`build/unlabelled.json` is made by `python -m bench.peers.unlabelled`. `face-start.keras` holds the weights after
61 of 110 epochs of the same recipe with large_every=0, learning_rate=0.005 and warmup_epochs=2, broken off because
crops of 256 pixels alone left an input of 640 without large faces. The recipe runs from fresh weights too.
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

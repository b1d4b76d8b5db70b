"""The default face detector: 97,983 parameters, 103 M MACs at 320x320.

Command: sightline train face ignored_from=build/unlabelled.json grown_from=build/models/face-second.keras epochs=60
         learning_rate=0.003 validate_every=6 one_style=true --data DIR
Cost:    34 minutes for these 60 epochs, after 59 for the 105 and 38 for the 61 before them, on two x86 cores that were
         busy with other work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  AP50 .810 of the 625 test pictures at 320x320 in float, 95 % interval .759 to .853 (seed 0, n = 1)

`build/unlabelled.json` is made by `python -m bench.peers.unlabelled`. `face-second.keras` holds the weights after this
recipe's 105 epochs, `grown_from` those after 61 of 110 epochs with large_every=0, learning_rate=0.005 and
warmup_epochs=2, broken off because crops of 256 pixels alone left an input of 640 without large faces. Both were
trained on the sources' own boxes (one_style=false). The recipe runs from fresh weights too.
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
    one_style=True,
    terms=(
        "Trained on FDDB, street-masks and masks-853: photographs for research use, not to be passed on. For a "
        "product, train on pictures whose terms allow it."
    ),
)

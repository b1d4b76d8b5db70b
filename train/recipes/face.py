"""The default face detector: 99,263 parameters, 169 M MACs at 320x320.

Command: sightline train face ignored_from=build/unlabelled.json grown_from=models/face.keras background_from=cifar10
         epochs=52 learning_rate=0.0015 warmup_epochs=0.5 validate_every=4 --data DIR
Cost:    54 minutes for these 52 epochs on one of two x86 cores (AVX2 alone), other work on the other (TensorFlow 2.21,
         Keras 3.15, Python 3.11), after 34, 59, 38, 76 and 105 for the 60, 105, 61, 90 and 96 before them
Result:  AP50 .836 of the 625 test pictures at 320x320 in float, 95 % interval .785 to .880 (seed 0, n = 1)

`build/unlabelled.json` is made by `python -m bench.peers.unlabelled`; `cifar10` is a folder with that data set.
`grown_from` are the weights that stood at that path before: they had 96 epochs at 0.003 without a background, after
90 at 0.003 on a network without the pair at stride 4, whose pair at stride 32 had 32 inner channels and was begun
anew. That one had 60 epochs at 0.003 after 105 of this recipe, after 61 of 110 with large_every=0,
learning_rate=0.005 and warmup_epochs=2, broken off because crops of 256 pixels alone left an input of 640 without
large faces; the first two on the sources' own boxes (one_style=false). The recipe runs from fresh weights too.
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
        "Trained on FDDB, street-masks and masks-853: photographs for research use, not to be passed on; what is no "
        "face is from CIFAR-10. For a product, train on pictures whose terms allow it."
    ),
)

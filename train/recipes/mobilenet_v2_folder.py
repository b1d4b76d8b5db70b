"""MobileNetV2 at 224 pixels on a folder of class folders, from random weights or a file of yours.

Command: sightline train mobilenet_v2_folder weights=FILE --data DIR
Cost:    not yet measured
Result:  not yet trained

FILE is what Keras saved of its MobileNetV2 (`.weights.h5`, or an older `.h5`); without weights=FILE the
training starts from random ones, for which a few thousand pictures are too little. The other networks of
`train.models.imagenet` go the same way: `model=train.models.imagenet:resnet50`.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="mobilenet-v2",
    model="train.models.imagenet:mobilenet_v2",
    data="folder",
    epochs=20,
    height=224,
    width=224,
    batch_size=32,
    learning_rate=0.01,
    label_smoothing=0.1,
    flip=True,
)

"""Four inception modules of GoogLeNet on CIFAR-10: 354 k parameters, 51 M MACs.

Command: sightline train inception_cifar10 --data DIR
Cost:    not yet measured
Result:  not yet trained
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-inception",
    model="train.models.inception:inception",
    data="cifar10",
    epochs=25,
    batch_size=128,
    learning_rate=0.1,
    l2=0.0005,
    flip=True,
    shift_px=4,
    precision="mixed_bfloat16",
)

"""VGG-11 on CIFAR-10: 9.2 M parameters, 153 M MACs.

Command: sightline train vgg11_cifar10 --data DIR
Cost:    not yet measured
Result:  not yet trained

`model=train.models.vgg:vgg16` is the one of 13 convolutions, 313 M MACs.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-vgg11",
    model="train.models.vgg:vgg11",
    data="cifar10",
    epochs=15,
    batch_size=128,
    learning_rate=0.05,
    l2=0.0005,
    flip=True,
    shift_px=4,
    precision="mixed_bfloat16",
)

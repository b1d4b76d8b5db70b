"""LeNet-5 on CIFAR-10: 62,006 parameters, 0.65 M MACs.

Command: sightline train lenet_cifar10 --data DIR
Cost:    4 minutes on one x86 core, other work beside it
Result:  74.04 % of the 10,000 test images in float (seed 0, n = 1)
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-lenet",
    model="train.models.lenet:lenet5",
    data="cifar10",
    epochs=30,
    batch_size=128,
    learning_rate=0.02,
    l2=0.0005,
    flip=True,
    shift_px=2,
)

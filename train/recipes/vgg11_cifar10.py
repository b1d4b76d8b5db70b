"""VGG-11 on CIFAR-10: 9.2 M parameters, 153 M MACs.

Command: sightline train vgg11_cifar10 --data DIR
Cost:    76 minutes on one of two x86 cores, both busy with other work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  86.54 % of the 10,000 test images in float, 86.50 % in int8 (TFLite), one view each (seed 0, n = 1)

Eight epochs are too few for it: the loss still falls by 4.9 % of its whole fall in each of the last two.

`model=train.models.vgg:vgg16` is the one of 13 convolutions, 313 M MACs.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-vgg11",
    model="train.models.vgg:vgg11",
    data="cifar10",
    epochs=8,
    batch_size=128,
    learning_rate=0.05,
    l2=0.0005,
    flip=True,
    shift_px=4,
)

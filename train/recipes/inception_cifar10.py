"""Four inception modules of GoogLeNet on CIFAR-10: 354 k parameters, 51 M MACs.

Command: sightline train inception_cifar10 --data DIR
Cost:    38 minutes on one of two x86 cores, both busy with other work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  88.41 % of the 10,000 test images in float, 88.33 % in int8 (TFLite), one view each (seed 0, n = 1)
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-inception",
    model="train.models.inception:inception",
    data="cifar10",
    epochs=10,
    batch_size=128,
    learning_rate=0.1,
    l2=0.0005,
    flip=True,
    shift_px=4,
)

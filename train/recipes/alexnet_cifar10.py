"""Half an AlexNet on CIFAR-10: 1.8 M parameters, 77 M MACs.

Command: sightline train alexnet_cifar10 --data DIR
Cost:    43 minutes on one of two x86 cores, both busy with other work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  79.86 % of the 10,000 test images in float, 79.94 % in int8 (TFLite), one view each (seed 0, n = 1)

The original's choices: step schedule, dropout of one half, plain momentum. Without normalisation it needs a small rate.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-alexnet",
    model="train.models.alexnet:alexnet",
    data="cifar10",
    epochs=12,
    batch_size=64,
    learning_rate=0.01,
    schedule="step",
    nesterov=False,
    l2=0.0005,
    dropout=0.5,
    flip=True,
    shift_px=4,
)

"""AlexNet on CIFAR-10: 5.2 M parameters, 299 M MACs.

Command: sightline train alexnet_cifar10 --data DIR
Cost:    not yet measured
Result:  not yet trained

The original's choices: step schedule, dropout of one half, plain momentum. Without normalisation it needs a small rate.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-alexnet",
    model="train.models.alexnet:alexnet",
    data="cifar10",
    epochs=40,
    batch_size=128,
    learning_rate=0.01,
    schedule="step",
    nesterov=False,
    l2=0.0005,
    dropout=0.5,
    flip=True,
    shift_px=4,
)

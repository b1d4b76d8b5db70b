"""The ConvNetJS demo network on CIFAR-10: 22,634 parameters, 3.9 M MACs.

Command: sightline train convnetjs_cifar10 --data DIR
Cost:    25 minutes on a two-core x86 machine that was busy with other work as well; alone it does an
         epoch in 9 to 10 s (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  80.32 % of the 10,000 test images, 95 % interval 79.53 to 81.09 (seed 0, n = 1)

The original demo reports about 80 %. With 5,000 training images held out, 50 epochs gave 79.78 % on
them; the recipe trains for longer, and on all.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-convnetjs",
    model="train.models.convnetjs:convnetjs",
    data="cifar10",
    epochs=120,
    batch_size=128,
    learning_rate=0.1,
    weight_decay=0.0005,
    flip=True,
    shift_px=2,
)

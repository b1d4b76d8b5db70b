"""LeNet-5 on scikit-learn's 1,797 digits: the smallest complete training, no download.

Command: sightline train lenet_digits
Cost:    9 to 14 s of training on a two-core x86 machine that was busy with other work as well
         (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  99.17, 98.89 and 99.17 % of the 360 test images with seeds 0, 1 and 2; the 95 % interval of
         the first is 97.58 to 99.72
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="lenet-digits",
    model="train.models.lenet:lenet5",
    data="digits",
    epochs=30,
    batch_size=32,
    learning_rate=0.02,
    weight_decay=0.005,
    shift_px=2,
)

"""ResNet-20 on CIFAR-10: 274 k parameters, 41 M MACs.

Command: sightline train resnet20_cifar10 --data DIR
Cost:    56 minutes on one of two x86 cores, both busy with other work (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  87.85 % of the 10,000 test images, float and int8 (TFLite), one view each (seed 0, n = 1)

The paper's choices but for cosine in place of steps and 20 epochs in place of 164, which reach 91.25 % (He et al.
2015, table 6). `model=train.models.resnet:resnet56` is the one of 56 layers.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-resnet20",
    model="train.models.resnet:resnet20",
    data="cifar10",
    epochs=20,
    batch_size=128,
    learning_rate=0.1,
    nesterov=False,
    l2=0.0001,
    flip=True,
    shift_px=4,
)

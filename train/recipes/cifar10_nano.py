"""The small shipped classifier of CIFAR-10: 96,806 parameters, 11.9 M MACs, taught by cifar10-teacher.

Command: sightline train cifar10_nano --data DIR, in a folder that has models/cifar10-teacher.keras
Cost:    112 minutes on one of two x86 cores with AMX, another training beside it (TensorFlow 2.21, Keras 3.15,
         Python 3.11), the teacher's answers included
Result:  88.41 % of the 10,000 test images in float, 88.29 % in int8 (TFLite), one view each (seed 0, n = 1);
         JPEG of quality 75 costs the int8 model 2.8 points, noise of sigma 10 1.9

Of the 98 views of an image (shifts of up to three pixels, mirrored or not) the teacher is asked of 18, the nearest.
A network of this size learns little by heart: little decay, few of the pictures spoilt, many epochs.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-nano",
    model="train.models.nano:nano",
    data="cifar10",
    epochs=112,
    batch_size=128,
    learning_rate=0.1,
    warmup_epochs=2.0,
    l2=1e-4,
    flip=True,
    shift_px=3,
    jpeg=0.1,
    noise=0.05,
    blur=0.05,
    teacher="models/cifar10-teacher.keras",
    teacher_step=3,
    teacher_precision="mixed_bfloat16",
    teacher_share=0.9,
    temperature=2.0,
)

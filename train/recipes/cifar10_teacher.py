"""What cifar10_nano learns from: cifar10_base at half the widths, no label smoothing; 0.59 M parameters, 40 M MACs.

Command: sightline train cifar10_teacher --data DIR
Cost:    19 minutes on one of two x86 cores with AMX, another training beside it (TensorFlow 2.21, Keras 3.15,
         Python 3.11)
Result:  90.94 % of the 10,000 test images in float, one view each (seed 0, n = 1); 94 % of the training images

A network that learnt smoothed labels answers with a smoothed label, and teaches little more than it (Mueller et al.
2019, arXiv 1906.02629). One that is not far larger than its pupil, and has not learnt its images by heart, teaches
better than one that has (Cho and Hariharan 2019, arXiv 1910.01348). On a CPU without AMX or AVX512-BF16 say
precision=float32.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-teacher",
    model="train.models.airbench:airbench_half",
    data="cifar10",
    epochs=24,
    batch_size=256,
    learning_rate=0.3,
    warmup_epochs=3.0,
    momentum=0.85,
    l2=0.00133,
    norm_bias_rate=64.0,
    head_rate=1 / 81,
    whiten=True,
    alternate=True,
    shift_px=4,
    cutout=12,
    jpeg=0.2,
    noise=0.1,
    blur=0.1,
    precision="mixed_bfloat16",
)

"""The shipped classifier of CIFAR-10: 2.34 M parameters, 140 M MACs, a narrow airbench96 with ReLU.

Command: sightline train cifar10_base --data DIR
Cost:    47 minutes on two x86 cores with AMX, some tests beside it; 98 on one of two with AVX512-BF16, other work
         beside it (TensorFlow 2.21, Keras 3.15, Python 3.11)
Result:  93.99 % of the 10,000 test images in float, 93.97 % in int8 (TFLite), one view each (mean of seeds 0, 1, 2;
         int8 93.83 to 94.08). Shipped is seed 0: 94.15 and 94.08; JPEG of quality 75 costs it 3.0 points in int8, noise
         of sigma 10 2.2

Rates, shifts and the square cut out are airbench96's, decay and label smoothing airbench94's, for a batch of 256
(Jordan 2024, arXiv 2404.00498), without lookahead and six views at test time. A fifth of the images is compressed, a
tenth each noisy and blurred. On a CPU without AMX or AVX512-BF16 say precision=float32.
"""

from train.recipe import Recipe

RECIPE = Recipe(
    name="cifar10-base",
    model="train.models.airbench:airbench",
    data="cifar10",
    epochs=45,
    batch_size=256,
    learning_rate=0.3,
    warmup_epochs=3.0,
    momentum=0.85,
    l2=0.00133,
    norm_bias_rate=64.0,
    head_rate=1 / 81,
    label_smoothing=0.2,
    whiten=True,
    alternate=True,
    shift_px=4,
    cutout=12,
    jpeg=0.2,
    noise=0.1,
    blur=0.1,
    precision="mixed_bfloat16",
)

"""A detector's recipe: everything that decides a training, as one frozen value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from edge.bundle import InputSpec
from train.choices import PRECISIONS
from train.recipe import ABOVE_ZERO, RECIPE_NAME, AnyRecipe, Rules, at_least, check_fields, one_of, share


@dataclass(frozen=True)
class DetectorRecipe(AnyRecipe):
    """What detector to train, and how.

    Attributes:
        name: the name of the model's files.
        model: import string of a function `(height, width) -> keras.Model` whose input is float32
            (N, H, W, 3) in [-1, 127/128] and whose outputs are heads, see `train.models.face`.
        epochs: passes over the pictures; each gives one crop a pass.
        size: height and width of the square training crops, pixels, a multiple of 32.
        large_every: every so many batches the crops are `large` pixels high and wide, and as many fewer: a
            network that shall serve larger inputs must have seen faces as large; 0 for never.
        height, width: of the input that the card names, for validation and export.
        batch_size: crops a step.
        learning_rate: the peak of AdamW's; it rises linearly over `warmup_epochs` and falls to zero
            along a half cosine.
        weight_decay: decoupled (Loshchilov and Hutter 2019, arXiv 1711.05101).
        smallest_crop, largest_crop: the crop's side as parts of the picture's shorter side; drawn
            evenly by its logarithm. Above 1 the picture is padded with 128.
        mosaic: share of training pictures that are put together from four quarter-sized crops.
        rotate: share of crops that are turned, by up to `rotate_deg` degrees either way.
        dark, blur, jpeg, grey: shares of crops that are darkened, blurred, compressed or made grey.
        precision: see `train.recipe.Recipe`.
        validate_every: epochs between two measurements of AP50 on the val split.
        grown_from: path of a `.keras` file whose weights the layers of the same names start with; "" for none.
        ignored_from: path of a file of faces that the annotations leave out, see
            `train.detection.unlabelled`; "" for none.
        background_from: a data set without faces, as `--data` of a classifier names one, see
            `train.detection.background`; "" for none. background: share of crops that are made of it.
        one_style: redraw the boxes of sources that bound whole heads, see `train.detection.style`.
        terms: under which the training data, and so the weights, may be used; for the card.
        seed: of initial weights, order and augmentation.
    """

    name: str
    model: str
    epochs: int
    size: int = 256
    large_every: int = 0
    large: int = 512
    height: int = 320
    width: int = 320
    batch_size: int = 32
    learning_rate: float = 0.002
    warmup_epochs: float = 2.0
    weight_decay: float = 0.05
    smallest_crop: float = 0.35
    largest_crop: float = 1.8
    mosaic: float = 0.25
    rotate: float = 0.3
    rotate_deg: float = 30.0
    dark: float = 0.15
    blur: float = 0.15
    jpeg: float = 0.2
    grey: float = 0.1
    precision: str = "float32"
    validate_every: int = 10
    grown_from: str = ""
    ignored_from: str = ""
    background_from: str = ""
    background: float = 0.15
    one_style: bool = False
    terms: str = ""
    seed: int = 0

    data: ClassVar[str] = "faces"
    lesson: ClassVar[str] = "train.detection.lesson:DetectorLesson"

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    @property
    def input(self) -> InputSpec:
        """The network's input, for the card."""
        return InputSpec(height=self.height, width=self.width, resize="letterbox")


def _multiple_of_32() -> tuple[Callable[[Any], bool], str]:
    return lambda value: value > 0 and value % 32 == 0, "a multiple of 32 above 0"


_RULES: Rules = {
    "name": RECIPE_NAME,
    "epochs": at_least(1),
    "size": _multiple_of_32(),
    "large_every": at_least(0),
    "large": _multiple_of_32(),
    "height": _multiple_of_32(),
    "width": _multiple_of_32(),
    "batch_size": at_least(1),
    "learning_rate": ABOVE_ZERO,
    "warmup_epochs": at_least(0),
    "weight_decay": at_least(0),
    "smallest_crop": ABOVE_ZERO,
    "largest_crop": ABOVE_ZERO,
    "mosaic": share(),
    "rotate": share(),
    "rotate_deg": at_least(0),
    "dark": share(),
    "blur": share(),
    "jpeg": share(),
    "grey": share(),
    "background": share(),
    "precision": one_of(PRECISIONS),
    "validate_every": at_least(1),
    "seed": (lambda seed: 0 <= seed < 2**32, "at least 0 and below 2**32"),
}

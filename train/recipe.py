"""A recipe: everything that decides a training, as one frozen value.

A recipe file is Python: its docstring states command, cost and result, and it defines `RECIPE`.
Any field can be changed from the command line as KEY=VALUE.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, get_args, get_type_hints

from edge.bundle import InputSpec
from edge.errors import InputError
from edge.pixels import ResizeRule
from train.choices import (
    ACTIVATIONS,
    INITIALISERS,
    NORMS,
    OPTIMISERS,
    OWN,
    PRECISIONS,
    PREPROCESSES,
    SCHEDULES,
)

DATA = ("digits", "cifar10", "folder")
RECIPES_FOLDER = Path(__file__).parent / "recipes"


class AnyRecipe(ABC):
    """What every kind of recipe has.

    Attributes:
        name: the name of the model's files; model: import string of the architecture.
        data: what `--data` must name; lesson: import string of what trains it, see `train.fit.Lesson`.
        epochs, learning_rate, warmup_epochs, seed: see `Recipe`.
        terms: under which terms the training data may be used; "" where none are known.
    """

    name: str
    model: str
    data: str
    lesson: ClassVar[str]
    epochs: int
    learning_rate: float
    warmup_epochs: float
    seed: int
    terms: str = ""

    @property
    @abstractmethod
    def input(self) -> InputSpec:
        """The network's input, for the card."""

    def as_dict(self) -> dict[str, Any]:
        """All fields, for the model card."""
        return asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Recipe(AnyRecipe):
    """What classifier to train, on what, and how.

    Attributes:
        name: the name of the model's files.
        model: import string of a function `(height, width, classes) -> keras.Model` whose input
            is float32 (N, H, W, 3) in [-1, 127/128] and whose output is logits (N, classes).
        data: `digits`, or `cifar10` or `folder`, both of which need `--data DIR`.
        height, width: input size in pixels; resize: how other sizes are brought to it.
        epochs, batch_size: passes over the data, images a step.
        learning_rate: the peak; it rises linearly over `warmup_epochs` and falls as `schedule` says.
        schedule: `cosine`, half of one to zero (Loshchilov and Hutter 2017, arXiv 1608.03983, without
            restarts), or another of `train.choices.SCHEDULES`.
        optimiser: `sgd`, or another of `train.choices.OPTIMISERS`.
        momentum: of SGD, with Nesterov's correction unless `nesterov` is false.
        weights: a file with weights to start from, where the architecture takes one (`train.models.imagenet`).
        activation, initialiser, norm: in place of the architecture's `own`, see `train.choices`.
        preprocess: what a frozen first layer does to the pixels, from the training images' statistics.
        dropout: share of the units dropped before each dense layer, the others scaled up; 0 leaves the
            architecture's own.
        weight_decay: decoupled, a step subtracts learning_rate * weight_decay * weight.
        label_smoothing: share of the target spread over all classes.
        flip: mirror half the images left to right, drawn anew each epoch.
        alternate: in place of that mirror half of them in the first epoch, the other half in the second, and so
            on, so that two epochs show every image both ways (Jordan 2024, arXiv 2404.00498, section 3.6).
        cutout: side in pixels of a square that is made grey at a random place of each image (DeVries and Taylor
            2017, arXiv 1708.04552); 0 for none.
        patch: share of the images that get a rectangle of another one, with its share of the label, or what a
            teacher says of the two (CutMix, Yun et al. 2019, arXiv 1905.04899).
        shift_px: shift each image by up to that many pixels either way, padding with 128.
        jpeg, noise, blur: shares of the images that are compressed at a quality of 50 to 95, get Gaussian noise
            of a deviation up to 15 of 255, or are blurred by one of up to 1.2 pixels, as many cameras do.
        precision: `mixed_bfloat16` computes in bfloat16, which is faster on GPUs and on CPUs with AMX.
        whiten: the layer named `whiten` starts with kernels that whiten the patches, see `train.whiten`.
        l2: times a weight is added to its gradient, before momentum; every trained weight, but with an
            optimiser other than SGD the kernels alone.
        norm_bias_rate, head_rate: by how much the learning rate of batch normalisation's offsets, and of the
            last layer's weights (`logits`), is multiplied.
        teacher: path of a `.keras` classifier whose answers are learnt as well, see `train.distil`; "" for none.
        teacher_step: it is asked of shifts by multiples of so many pixels, the nearest to what the pupil sees.
        teacher_precision: what it computes in, as `precision`.
        teacher_share: of the target, the rest is the label; temperature: divides the teacher's logits.
        hold_out: that many training images, spread over the classes, are kept aside for
            validation; 0 trains on all. The test split is never used for choices.
        skip_corrupt: train without the pictures that cannot be decoded, where there are any.
        seed: of initial weights, order and augmentation.
    """

    name: str
    model: str
    data: str
    epochs: int
    height: int = 32
    width: int = 32
    resize: ResizeRule = "crop"
    batch_size: int = 128
    learning_rate: float = 0.1
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    optimiser: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weights: str = ""
    activation: str = OWN
    initialiser: str = OWN
    norm: str = OWN
    preprocess: str = "none"
    dropout: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flip: bool = False
    alternate: bool = False
    shift_px: int = 0
    cutout: int = 0
    patch: float = 0.0
    jpeg: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    precision: str = "float32"
    whiten: bool = False
    l2: float = 0.0
    norm_bias_rate: float = 1.0
    head_rate: float = 1.0
    teacher: str = ""
    teacher_step: int = 1
    teacher_precision: str = "float32"
    teacher_share: float = 0.9
    temperature: float = 1.0
    hold_out: int = 0
    skip_corrupt: bool = False
    seed: int = 0

    lesson: ClassVar[str] = "train.classifier:ClassifierLesson"

    def __post_init__(self) -> None:
        check_fields(self, _RULES)

    @property
    def input(self) -> InputSpec:
        """The network's input, for the card."""
        return InputSpec(height=self.height, width=self.width, resize=self.resize)


Rule = tuple[Callable[[Any], bool], str]
"""Whether a value will do, and what it must be in words."""

Rules = dict[str, Rule]


def check_fields(recipe: Any, rules: Rules) -> None:
    """Raises InputError for the first field that is of another type or breaks its rule."""
    for name, kind in get_type_hints(type(recipe)).items():
        if kind in _KINDS and not _is_a(kind, getattr(recipe, name)):
            raise InputError(
                f"Recipe {recipe.name}: {name} must be {_KINDS[kind]}, got {getattr(recipe, name)!r}."
            )
    for name, (holds, rule) in rules.items():
        value = getattr(recipe, name)
        if not holds(value):
            near = meant(value, rule.removeprefix(_ONE_OF).split(", ")) if rule.startswith(_ONE_OF) else ""
            raise InputError(f"Recipe {recipe.name}: {name} must be {rule}, got {value!r}.{near}")


_KINDS: dict[Any, str] = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def meant(word: str, known: Iterable[str]) -> str:
    """` Did you mean X?` with the nearest of the known words; empty where none is near."""
    near = get_close_matches(word, list(known), n=2)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def at_least(least: float) -> Rule:
    """A number from `least` on."""
    return lambda value: value >= least, f"at least {least}"


ABOVE_ZERO: Rule = (lambda value: value > 0, "above 0")


_ONE_OF = "one of "


def one_of(choices: tuple[str, ...]) -> Rule:
    """One of the words."""
    return lambda value: value in choices, _ONE_OF + ", ".join(choices)


def share() -> Rule:
    """A part of a whole."""
    return lambda value: 0 <= value < 1, "at least 0 and below 1"


RECIPE_NAME: Rule = (
    lambda name: re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) is not None,
    "a plain file name",
)

_RULES: Rules = {
    "name": RECIPE_NAME,
    "data": one_of(DATA),
    "resize": one_of(get_args(ResizeRule)),
    "epochs": at_least(1),
    "height": at_least(1),
    "width": at_least(1),
    "batch_size": at_least(1),
    "learning_rate": ABOVE_ZERO,
    "warmup_epochs": at_least(0),
    "schedule": one_of(SCHEDULES),
    "optimiser": one_of(OPTIMISERS),
    "momentum": share(),
    "activation": one_of((OWN, *ACTIVATIONS)),
    "initialiser": one_of((OWN, *INITIALISERS)),
    "norm": one_of((OWN, *NORMS)),
    "preprocess": one_of(PREPROCESSES),
    "dropout": share(),
    "weight_decay": at_least(0),
    "label_smoothing": share(),
    "shift_px": at_least(0),
    "cutout": at_least(0),
    "patch": share(),
    "jpeg": share(),
    "noise": share(),
    "blur": share(),
    "precision": one_of(PRECISIONS),
    "l2": at_least(0),
    "norm_bias_rate": ABOVE_ZERO,
    "head_rate": ABOVE_ZERO,
    "teacher_step": at_least(1),
    "teacher_precision": one_of(PRECISIONS),
    "teacher_share": (lambda part: 0 <= part <= 1, "from 0 to 1"),
    "temperature": ABOVE_ZERO,
    "hold_out": at_least(0),
    "seed": (lambda seed: 0 <= seed < 2**32, "at least 0 and below 2**32"),
}


def load_recipe(name_or_path: str) -> AnyRecipe:
    """The recipe of a file, or of a name in `train/recipes`.

    Raises:
        InputError: there is none, it cannot be run, or it defines no `RECIPE`.
    """
    path = Path(name_or_path)
    if path.suffix != ".py":
        path = RECIPES_FOLDER / f"{name_or_path}.py"
    if not path.is_file():
        known = sorted(p.stem for p in RECIPES_FOLDER.glob("[a-z]*.py"))
        raise InputError(
            f"No recipe '{name_or_path}'.{meant(name_or_path, known)} The known ones are {', '.join(known)}; "
            "a path to a .py works too."
        )
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    own = str(path.resolve().parent)
    if path.parent != RECIPES_FOLDER and own not in sys.path:  # an architecture may lie beside it
        sys.path.append(own)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:  # A recipe is Python: it may fail in any way.
        raise InputError(f"{path} cannot be run: {type(error).__name__}: {error}.") from error
    recipe = getattr(module, "RECIPE", None)
    if not isinstance(recipe, AnyRecipe):
        raise InputError(f"{path} defines no RECIPE = Recipe(...) or DetectorRecipe(...).")
    return recipe


def changed(recipe: AnyRecipe, assignments: tuple[str, ...]) -> AnyRecipe:
    """The recipe with `KEY=VALUE` applied, each value of the field's own type.

    Raises:
        InputError: no such field, or a value of another type or outside the field's range.
    """
    kinds = {field.name: get_type_hints(type(recipe))[field.name] for field in fields(recipe)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or key not in kinds:
            raise InputError(
                f"'{assignment}' is not KEY=VALUE with a KEY of: {', '.join(kinds)}.{meant(key, kinds)}"
            )
        values[key] = _parsed(key, text, kinds[key])
    return replace(recipe, **values)  # type: ignore[type-var]


def _parsed(key: str, text: str, kind: Any) -> Any:
    try:
        return _PARSERS.get(kind, str)(text)
    except (ValueError, KeyError) as error:
        raise InputError(f"{key} takes {_KINDS[kind]}, got '{text}'.") from error


_PARSERS: dict[Any, Callable[[str], Any]] = {
    int: int,
    float: float,
    bool: lambda text: {"true": True, "false": False}[text.lower()],
}

"""What is searched: a range or a choice for each of a recipe's fields, how it is drawn, narrowed, and has edges.

Random draws beat a grid where few of the fields matter (Bergstra and Bengio 2012, JMLR 13, 281-305), and what acts by
its ratio, such as a learning rate, is drawn evenly by its logarithm.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from edge.errors import InputError
from train.recipe import AnyRecipe, changed, meant

# It would tell of every study that is made, and each draw makes one.
optuna.logging.set_verbosity(optuna.logging.WARNING)

Value = float | int | str | bool
Values = dict[str, Value]
Scale = Literal["linear", "log", "from one"]
End = Literal["lower", "upper"]

DIGITS = 3
"""Significant digits of a drawn number: what a table shows is then the very value that was trained with."""

EDGE = 0.05
"""The outermost part of a range, on its scale, that counts as its edge."""

WIDER = 0.1
"""By so much of itself, each way, a narrowed range is wider than the best trials' values."""

NEARLY = 0.1
"""So much of the way is left to a bound that the recipe's rules leave out themselves."""

NARROWEST = 0.25
"""The part of a range, on its scale, that is left of it at least: a few trials may be alike by chance."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both among them.

    Attributes:
        scale: `linear`; `log`, drawn evenly by the logarithm; `from one`, by that of the distance from 1, which is
            what counts in a momentum.
        whole: whole numbers alone.
    """

    low: float
    high: float
    scale: Scale = "linear"
    whole: bool = False

    def distribution(self) -> BaseDistribution:
        """Of positions on the scale; a whole number has half a step to either side."""
        half = 0.5 if self.whole else 0.0
        return FloatDistribution(self.axis(self.low - half), self.axis(self.high + half))

    def declared(self) -> BaseDistribution:
        """Of the values themselves, for Optuna's own tools."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.scale == "log")
        return FloatDistribution(self.low, self.high, log=self.scale == "log")

    def axis(self, value: float) -> float:
        """Where on the scale a value lies."""
        return _AXES[self.scale][0](value)

    def value(self, position: float) -> Value:
        """The value at a position of the scale, rounded and inside the range."""
        value = _AXES[self.scale][1](position)
        rounded = round(value) if self.whole else self._short(value, DIGITS)
        inside = min(max(rounded, self.low), self.high)
        return int(inside) if self.whole else float(inside)

    def narrowed(self, best: Sequence[Any]) -> Range:
        """The part in which the values of the best trials lie, a little wider, and a quarter of the range at least."""
        bottom, top = self.axis(self.low), self.axis(self.high)
        positions = [self.axis(value) for value in best]
        width, least = max(positions) - min(positions), NARROWEST * (top - bottom)
        more = max(WIDER * width, (least - width) / 2)
        first, last = max(min(positions) - more, bottom), min(max(positions) + more, top)
        # What an end of the range cuts off is added at the other side.
        last = max(last, min(first + least, top))
        first = min(first, max(last - least, bottom))
        if self.whole:
            return self._around(first, last)
        return Range(float(self.value(first)), float(self.value(last)), self.scale)

    def edge(self, value: Any) -> End | None:
        """At which end of the range a value lies, None for neither."""
        low, high = self.axis(self.low), self.axis(self.high)
        margin = EDGE * (high - low)
        position = self.axis(value)
        return "lower" if position <= low + margin else "upper" if position >= high - margin else None

    def _around(self, first: float, last: float) -> Range:
        """The whole numbers from one position to the other, rounded outwards: the nearest may be a single one."""
        low, high = (_short(_AXES[self.scale][1](position), 9) for position in (first, last))
        return Range(max(math.floor(low), self.low), min(math.ceil(high), self.high), self.scale, whole=True)

    def moved(self, value: Any) -> Range:
        """As wide on its scale, with `value` in the middle: where to search next. May break the recipe's rules."""
        half, middle = (self.axis(self.high) - self.axis(self.low)) / 2, self.axis(value)
        low, high = (_AXES[self.scale][1](middle + sign * half) for sign in (-1, 1))
        if self.whole:
            return Range(math.floor(low), math.ceil(high), self.scale, whole=True)
        for digits in range(1, DIGITS + 3):
            part = Range(self._short(low, digits), self._short(high, digits), self.scale)
            # Of a narrow range one digit may leave nothing, or nothing beyond its end.
            if part.low < value < part.high and (part.low < self.low or part.high > self.high):
                break
        return part

    def _short(self, value: float, digits: int) -> float:
        # 0.987 and 0.9987 differ more than their digits say: of a value near one the distance is rounded.
        return _short(1 - _short(1 - value, digits), 6) if self.scale == "from one" else _short(value, digits)

    def __str__(self) -> str:
        return f"{_text(self.low, self.whole)}..{_text(self.high, self.whole)}"


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]

    def distribution(self) -> BaseDistribution:
        """Each as likely as the others."""
        return CategoricalDistribution(self.values)

    declared = distribution

    def value(self, drawn: Value) -> Value:
        """The drawn value itself."""
        return drawn

    def narrowed(self, best: Sequence[Any]) -> Choice:
        """Those that a best trial has."""
        return Choice(tuple(value for value in self.values if value in best))

    def edge(self, value: Any) -> End | None:
        """A choice has no edge."""
        return None

    def __str__(self) -> str:
        return ",".join(_word(value) for value in self.values)


Space = dict[str, Range | Choice]

SPACE: dict[str, Range] = {
    "learning_rate": Range(1e-4, 1.0, "log"),
    "weight_decay": Range(1e-6, 0.1, "log"),
    "l2": Range(1e-6, 0.01, "log"),
    "momentum": Range(0.5, 0.99, "from one"),
    "batch_size": Range(16, 512, "log", whole=True),
    "warmup_epochs": Range(0.0, 5.0),
    "dropout": Range(0.0, 0.7),
    "label_smoothing": Range(0.0, 0.3),
    "shift_px": Range(0, 4, whole=True),
    "cutout": Range(0, 16, whole=True),
    "patch": Range(0.0, 0.9),
    "jpeg": Range(0.0, 0.5),
    "noise": Range(0.0, 0.5),
    "blur": Range(0.0, 0.5),
    "norm_bias_rate": Range(1.0, 128.0, "log"),
    "head_rate": Range(0.001, 1.0, "log"),
    "teacher_share": Range(0.0, 1.0),
    "temperature": Range(1.0, 10.0, "log"),
    "smallest_crop": Range(0.1, 0.8, "log"),
    "largest_crop": Range(1.0, 3.0, "log"),
    "mosaic": Range(0.0, 0.6),
    "rotate": Range(0.0, 0.6),
    "rotate_deg": Range(0.0, 45.0),
    "dark": Range(0.0, 0.6),
    "grey": Range(0.0, 0.6),
}
"""The range of each number of a recipe that can be searched."""

CHOICES = ("model", "schedule", "optimiser", "activation", "initialiser", "norm", "preprocess")
"""Fields of words, and `SWITCHES` of true or false: searched where the values to try are named."""

SWITCHES = ("nesterov", "flip", "alternate", "whiten")

WHERE_USED = ("weight_decay", "l2", "dropout", "label_smoothing")
"""Searched by default where the recipe has them above zero, beside the learning rate."""


def space_of(recipe: AnyRecipe, wanted: Sequence[str], fixed: Sequence[str] = ()) -> Space:
    """What to search.

    Args:
        recipe: by default its learning rate, and those of `WHERE_USED` that it uses.
        wanted: `KEY=LOW..HIGH`, `KEY=VALUE,VALUE` or `KEY` alone for the range of `SPACE`, in addition.
        fixed: fields that were given a value, and so are not searched.

    Raises:
        InputError: a field that there is not or that is not searched, or values that the recipe does not take.
    """
    used = [name for name in WHERE_USED if getattr(recipe, name, 0) > 0] or ["weight_decay"]
    space: Space = {name: SPACE[name] for name in ("learning_rate", *used) if name not in fixed}
    for text in wanted:
        name, _, values = text.partition("=")
        if name in fixed:
            raise InputError(f"--space {text}: {name} was also given a value, so it is not searched.")
        space[name] = _parsed(recipe, name, values)
    if not space:
        raise InputError("Nothing is left to search: every field has a value. Name one with --space KEY.")
    return space


def draw(space: Mapping[str, Range | Choice], *seed: int | str) -> Values:
    """Values for every field by Optuna's random sampler; the same ones for the same seed, on any machine."""
    number = hashlib.sha256("/".join(map(str, seed)).encode()).digest()
    sampler = optuna.samplers.RandomSampler(seed=int.from_bytes(number[:4], "big"))
    trial = optuna.create_study(sampler=sampler).ask(
        {name: part.distribution() for name, part in space.items()}
    )
    return {name: part.value(trial.params[name]) for name, part in space.items()}


def narrowed(space: Space, best: Sequence[Values]) -> Space:
    """The space around the best trials' values."""
    return {name: part.narrowed([values[name] for values in best]) for name, part in space.items()}


def edge_warning(recipe: AnyRecipe, space: Space, name: str, value: Value) -> str | None:
    """What to say where the best value lies at an end of its range; None where it does not.

    Where the recipe's own rules end there as well, as a dropout does at 0, there is nothing beyond.
    """
    part = space[name]
    end = part.edge(value)
    if end is None or isinstance(part, Choice):
        return None
    where = f"{name} = {_word(value)} lies at the {end} end of {part}"
    moved, which = part.moved(value), "low" if end == "lower" else "high"
    bound = _furthest(
        partial(_takes, recipe, name, part.whole), getattr(part, which), getattr(moved, which), part.whole
    )
    if bound is None:
        return f"{where}, beyond which the recipe takes none."
    beyond = replace(moved, **{which: bound})
    return f"{where}: a better one may lie beyond. Search on with --space {name}={beyond}"


def assignments(values: Values) -> tuple[str, ...]:
    """`KEY=VALUE` for a command line, which gives the very same values again."""
    return tuple(f"{name}={_word(value)}" for name, value in values.items())


def _takes(recipe: AnyRecipe, name: str, whole: bool, number: float) -> bool:
    try:
        changed(recipe, (f"{name}={_text(number, whole)}",))
    except InputError:
        return False
    return True


def _furthest(takes: Callable[[float], bool], old: float, new: float, whole: bool) -> float | None:
    """The last number from the old bound to the new that the recipe takes; None where it takes none beyond the old."""
    if takes(new):
        return new
    if whole:
        return next((n for n in range(int(new), int(old), 1 if new < old else -1) if takes(n)), None)
    last, refused = old, new
    for _ in range(40):
        middle = (last + refused) / 2
        last, refused = (middle, refused) if takes(middle) else (last, middle)
    # The rule's end itself where it is taken; a little before it where it is not, as a share of less than 1.
    for target in (last, last + NEARLY * (old - last)):
        for digits in range(6):
            number = round(target, digits)
            if abs(number - target) < abs(last - old) * NEARLY / 2 and takes(number):
                return number
    return None


# -- parsing --------------------------------------------------------------------------------------


def _parsed(recipe: AnyRecipe, name: str, text: str) -> Range | Choice:
    known = [key for key in (*SPACE, *CHOICES, *SWITCHES) if hasattr(recipe, key)]
    if name not in known:
        raise InputError(
            f"--space: '{name}' is not searched; known are {', '.join(known)}.{meant(name, known)}"
        )
    low, dots, high = text.partition("..")
    if not text and name in SPACE:
        return SPACE[name]
    if dots and name in SPACE:
        return _range(name, _value(recipe, name, low), _value(recipe, name, high))
    values = tuple(_value(recipe, name, word) for word in text.split(",") if word)
    if len(set(values)) < 2:
        form = f"{name}=LOW..HIGH, such as {name}={SPACE[name]}" if name in SPACE else f"{name}=VALUE,VALUE"
        raise InputError(f"--space {name}={text}: expected {form}.")
    return Choice(values)


def _range(name: str, low: Any, high: Any) -> Range:
    default = SPACE[name]
    if low >= high:
        raise InputError(f"--space {name}={low}..{high}: the first must be below the second.")
    if default.scale == "log" and low <= 0:
        raise InputError(f"--space {name}={low}..{high}: it is drawn by its logarithm, so from above 0.")
    return Range(low, high, default.scale, default.whole)


def _value(recipe: AnyRecipe, name: str, text: str) -> Value:
    value: Value = getattr(changed(recipe, (f"{name}={text}",)), name)
    return value


# -- numbers --------------------------------------------------------------------------------------

_AXES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "linear": (float, float),
    "log": (math.log10, lambda position: 10.0**position),
    "from one": (lambda value: -math.log10(1 - value), lambda position: 1 - 10.0**-position),
}


def _short(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _text(number: float, whole: bool) -> str:
    return str(int(number)) if whole else f"{number:g}"


def _word(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and _short(value, 6) == value else str(value)

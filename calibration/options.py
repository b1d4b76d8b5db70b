"""The options of a calibration, as `python -m calibration` and `sightline export` both take them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from typing import Any

import click

from calibration.plan import Plan
from calibration.ranges import CHOICES
from calibration.samples import RULES, By
from calibration.settings import METHOD_OF_TASK, Settings
from edge.bundle import TaskName

Command = Callable[..., Any]


SAMPLES = 512


@dataclass(frozen=True)
class Choices:
    """What was asked for; None and False where nothing was."""

    method: str | None = None
    equalise: bool = False
    through_swish: bool = False
    bias_correction: bool = False
    adaround: bool = False
    samples: int | None = None
    sample: By | None = None
    skip_corrupt: bool = False

    def settings(self, task: TaskName, made: Plan | None = None) -> Settings:
        """Of the calibration of a task's model; raises InputError for an unknown method.

        Args:
            made: a plan that is followed: what no option names, training and layers in float, is as it has it.
        """
        return Settings(
            method=self.method or METHOD_OF_TASK[task],
            sample=self.sample or "balanced",
            equalise=self.equalise or self.through_swish,
            through_swish=self.through_swish,
            bias_correction=self.bias_correction,
            adaround=self.adaround,
            **(made.settings.model_dump(include={"qat", "float_layers"}) if made else {}),
        )

    @property
    def count(self) -> int:
        """How many images to watch."""
        return SAMPLES if self.samples is None else self.samples

    def or_those_of(self, plan: Plan) -> Choices:
        """With a plan's where nothing else was asked for."""
        made = plan.settings
        asked = any(getattr(self, name) for name in _REPAIRS)
        kept = {} if asked else made.model_dump(include=set(_REPAIRS))
        return replace(
            self,
            method=self.method or made.method,
            samples=plan.samples if self.samples is None else self.samples,
            sample=self.sample or made.sample,
            **kept,
        )


_REPAIRS = ("equalise", "through_swish", "bias_correction", "adaround")

_OPTIONS = (
    click.option(
        "--method", "--ranges", "method", metavar="NAME", help=f"{CHOICES}; by default what suits the task."
    ),
    click.option("--equalise", is_flag=True, help="Balance the channels of neighbouring layers."),
    click.option("--through-swish", is_flag=True, help="Also through swish, which costs a layer each."),
    click.option("--bias-correction", is_flag=True, help="Take each layer's mean error out of its bias."),
    click.option("--adaround", is_flag=True, help="Learn which way each weight rounds; seconds a layer."),
    click.option(
        "--samples", type=int, metavar="N", help=f"Training images to calibrate on. [default: {SAMPLES}]"
    ),
    click.option("--sample", type=click.Choice(RULES), help="How to choose them. [default: balanced]"),
    click.option("--skip-corrupt", is_flag=True, help="Of a classifier: leave out broken pictures."),
)


def calibration_options(command: Command) -> Command:
    """Give a click command the options; the function gets them as one argument, `choices`."""
    names = [field.name for field in fields(Choices)]

    @wraps(command)
    def with_choices(**arguments: Any) -> Any:
        choices = Choices(**{name: arguments.pop(name) for name in names})
        return command(choices=choices, **arguments)

    decorated: Command = with_choices
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated

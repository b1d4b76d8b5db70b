"""The repair loop: where int8 loses too much, try what may help, the cheapest first, and stop when it is enough.

Each attempt is judged on training images that were not calibrated on, by the target's simulation against the
float model, on the task's own metric. The images that prove the artefacts have no part in it: the gate sees one
plan, the last one, so its figure is not the best of many.

The attempts: what was asked for; ranges by squared error; equalised channels and corrected biases; the same
through swish, where there is any; ranges by squared error now; AdaRound; then layers kept in float, one more at a
time, each the one that takes the most error out of the heads. Each attempt goes on from the best so far.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from calibration.gates import gates_apart
from calibration.plan import Plan
from calibration.sensitivity import most_relieving
from calibration.settings import Settings
from calibration.simulate import simulate
from edge.bundle import Format
from edge.files import write_text
from export.job import Job, Progress
from export.proof import Judge

Say = Callable[[str], None]

SETTINGS: tuple[tuple[str, dict[str, str | bool]], ...] = (
    ("mse ranges", {"method": "mse"}),
    ("equalise, bias correction", {"equalise": True, "bias_correction": True}),
    ("equalise through swish", {"equalise": True, "through_swish": True, "bias_correction": True}),
    ("mse ranges, equalised", {"method": "mse"}),
    ("AdaRound", {"adaround": True}),
)
"""In order of cost: a pass over the images, two, a layer more in the network for each swish, and seconds a layer.

Ranges by squared error win nothing where channels are out of scale, and may where they no longer are.
"""

MOST_FLOAT = 2
"""More layers in float than this are no repair: the network wants to be trained with int8 in mind."""

SURER = 0.5
"""Of the loss allowed, what an attempt may lose on training images. A network is surer of those, int8 changes less
there. `models/cifar10-base.keras`, TFLite: another label for 0.3 % of 1,000; a `face-320` with ranges by minimum and
maximum lost less than 0.25 points on 600 of them, and 0.51 on the 625 test pictures."""

WATCHED = 64
"""Calibration images that tell which layer in float takes the most error out of the heads."""

REPAIRS, PLAN = "repairs.json", "plan.json"


class Attempt(BaseModel):
    """One attempt and what it gave.

    Attributes:
        name: what was tried; method: all of it, as reports name it; float_layers: kept in float.
        drop: by target, the loss of the metric against the float model, in points, on `images` training images.
        enough: no target lost more than was allowed.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    method: str
    float_layers: tuple[str, ...]
    drop: dict[Format, float]
    images: int
    enough: bool

    @property
    def worst(self) -> float:
        """The larger loss of the targets, in points."""
        return max(self.drop.values())


class Record(BaseModel):
    """`repairs.json`: every attempt, in order; the plan beside it is that of the best one.

    Attributes:
        allowed: points of the metric that an attempt may lose on the images that judge it.
    """

    model_config = ConfigDict(frozen=True)

    attempts: tuple[Attempt, ...] = ()
    allowed: float = 0.0

    def write(self, folder: Path, plan: Plan) -> None:
        """Into a bundle's folder, with the plan that the next export repeats exactly (--plan)."""
        write_text(folder / REPAIRS, self.model_dump_json(indent=2) + "\n")
        plan.write(folder / PLAN)

    @property
    def changed(self) -> bool:
        """Something was tried beyond what was asked for."""
        return len(self.attempts) > 1


def repaired(job: Job, first: Plan, progress: Progress, say: Say) -> tuple[Plan, Record]:
    """The first plan that is good enough, else the best, and all that was tried.

    Args:
        first: made as the settings ask.
        progress: told of each calibration; say: given a line for each attempt, once it takes more than one.
    """
    judge = job.proof.judge(job.reference) if job.repair else None
    if judge is None:
        return first, Record()
    climb = _Climb(job, judge, say)
    climb.attempt("as asked", first)
    for name, plan in _ladder(climb, progress):
        climb.attempt(name, plan)
    if not climb.enough:
        say(f"  None was enough. The best, '{climb.best[0].name}', goes to the gate.")
    return climb.best[1], climb.record


@dataclass
class _Climb:
    """The attempts so far."""

    job: Job
    judge: Judge
    say: Say

    def __post_init__(self) -> None:
        self.done: list[tuple[Attempt, Plan]] = []

    @property
    def best(self) -> tuple[Attempt, Plan]:
        """The attempt that lost least; of equals the cheapest."""
        return min(self.done, key=lambda one: one[0].worst)

    @property
    def allowed(self) -> float:
        """Points that an attempt may lose."""
        return SURER * self.job.max_drop

    @property
    def record(self) -> Record:
        """All of them."""
        return Record(attempts=tuple(attempt for attempt, _ in self.done), allowed=self.allowed)

    @property
    def enough(self) -> bool:
        return self.done[-1][0].enough

    def attempt(self, name: str, plan: Plan) -> None:
        """Judge a plan and say what it gave."""
        drop = {
            target: self.judge.drop(simulate(self.job.graph, plan, target)) for target in self.job.formats
        }
        attempt = Attempt(
            name=name,
            method=plan.method,
            float_layers=plan.float_layers,
            drop=drop,
            images=self.judge.images,
            enough=max(drop.values()) <= self.allowed,
        )
        before = self.best[0].worst if self.done else None
        self.done.append((attempt, plan))
        self._tell(attempt, before)

    def _tell(self, attempt: Attempt, before: float | None) -> None:
        if before is None:
            if attempt.enough:
                return  # nothing to repair, nothing to tell
            self.say(
                f"int8 loses too much; repairing. Drops on {attempt.images:,} training images that were not "
                f"calibrated on, {self.allowed:g} points are allowed:"
            )
        drops = "  ".join(f"{target} {drop:+6.2f}" for target, drop in attempt.drop.items())
        gained = "" if before is None else f"  gained {before - attempt.worst:+6.2f}"
        self.say(f"  {attempt.name:<28} {drops}{gained}{'  enough' if attempt.enough else ''}")


def _ladder(climb: _Climb, progress: Progress) -> Iterator[tuple[str, Plan]]:
    """What to try next, until it is enough or nothing is left."""
    gates = gates_apart(climb.job.graph) is not climb.job.graph
    for name, update in SETTINGS:
        if climb.enough:
            return
        if "through_swish" in update and not gates:
            continue
        best = climb.best[1].settings
        settings = Settings.model_validate({**best.model_dump(), **update})
        if settings != best:
            yield name, climb.job.calibrated(settings, progress, "repairing")
    if not climb.enough:
        yield from _in_float(climb, progress)


def _in_float(climb: _Climb, progress: Progress) -> Iterator[tuple[str, Plan]]:
    """The best plan so far with layers in float, one more at a time, each the one that relieves the heads most.

    Corrections of biases and rounding are made anew: they were for a network in which that layer erred too.
    """
    attempt, plan = climb.best
    worse = max(attempt.drop, key=lambda target: attempt.drop[target])
    images = climb.job.proof.samples.images
    images = images[:: -(-len(images) // WATCHED)]  # they stand by class, or by source
    while len(plan.float_layers) < MOST_FLOAT and not climb.enough:
        layer = most_relieving(climb.job.graph, plan, images, worse)
        if layer is None:
            return
        plan = plan.in_float(*plan.float_layers, layer)
        if plan.settings.bias_correction or plan.settings.adaround:
            plan = climb.job.calibrated(plan.settings, progress, "repairing")
        yield f"{layer} in float", plan

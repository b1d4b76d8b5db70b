"""How far a build is, and how long it may still take, from the phases that TensorRT tells."""

from __future__ import annotations

from dataclasses import dataclass, field

ENOUGH = 0.05
"""Of a build, before its own speed says something about the rest."""


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass
class Phases:
    """The phases under way, one inside another; TensorRT tells of them from several threads.

    Attributes:
        share: of the whole build, 0 to 1; never goes back, though a phase may come twice.
    """

    share: float = 0.0
    _open: dict[str, _Phase] = field(default_factory=dict)

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins inside another one, or as the outermost."""
        self._open[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, step: int) -> tuple[int, int]:
        """A step, counted from 0, is done; how many are and how many there are."""
        phase = self._open[name]
        phase.done = min(step + 1, phase.steps)
        self._update()
        return phase.done, phase.steps

    def finish(self, name: str) -> None:
        """The phase is over."""
        phase = self._open.pop(name, None)
        if phase is not None and phase.parent is None:
            self.share = 1.0

    def _update(self) -> None:
        phases = dict(self._open)
        outermost = [name for name, phase in phases.items() if phase.parent is None]
        if outermost:
            self.share = max(self.share, _share(phases, outermost[0]))


def _share(phases: dict[str, _Phase], name: str) -> float:
    """Steps that are done, and of the one under way what the phases inside have done."""
    inside = [_share(phases, child) for child, phase in phases.items() if phase.parent == name]
    phase = phases[name]
    return min(1.0, (phase.done + max(inside, default=0.0)) / phase.steps)


def remaining_s(elapsed_s: float, share: float, last_s: float | None) -> float | None:
    """Seconds that a build may still take; None while nothing can be said.

    The last build on this device is the better guide, until this one takes longer: TensorRT's steps
    differ in length by orders of magnitude.

    Args:
        share: of the build that is done, 0 to 1.
        last_s: what the last build took.
    """
    if last_s is not None and elapsed_s < last_s:
        return last_s - elapsed_s
    if share < ENOUGH:
        return None
    return elapsed_s * (1 - share) / share


def in_words(seconds: float | None) -> str:
    """`about 3 min left`."""
    if seconds is None:
        return "time left unknown"
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

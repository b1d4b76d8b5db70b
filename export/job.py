"""One export: what is to be made, of what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from calibration.calibrate import calibrate, work
from calibration.fold import fold
from calibration.graph import LOGITS, Graph, build, heads, read
from calibration.plan import Plan
from calibration.samples import preprocessing
from calibration.settings import Settings
from edge.bundle import Format, Precision
from export.proof import Proof
from export.reference import Compared
from train.card import Card

Progress = Callable[[str, int, int], None]
"""Told of a phase: its name, what was done since, and how much it is in all."""


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        model: Keras, float32 (N, H, W, 3) in [-1, 127/128] to its heads.
        model_sha256: of its file.
        name: the bundle's.
        card: task, labels and input, which the manifest repeats.
        proof: images to watch, from the training split, and images to prove the artefacts on.
        settings: how to calibrate.
        plan: one from an earlier calibration, used in place of a new one where it still holds.
        formats, precisions: what to make.
        max_drop: the largest loss of the task's metric against Keras, in points.
        compared: the float model that the artefacts are compared with; the model itself by default.
        repair: where int8 loses too much, try what may help, see `export.repair`.
    """

    model: Any
    model_sha256: str
    name: str
    card: Card
    proof: Proof
    settings: Settings
    formats: tuple[Format, ...]
    precisions: tuple[Precision, ...]
    max_drop: float
    plan: Plan | None = None
    compared: Compared | None = None
    repair: bool = True

    @cached_property
    def graph(self) -> Graph:
        """The folded network; raises InputError where int8 does not know a layer."""
        return fold(read(self.model))

    @cached_property
    def single(self) -> Any:
        """The float model with batch 1 that both float converters take."""
        import keras

        if "int8" in self.precisions:
            return build(self.graph, batch=1)
        pixels = keras.Input(self.model.input_shape[1:], batch_size=1, name="pixels")
        names, outputs = list(heads(self.model)), self.model(pixels)
        if names == [LOGITS]:
            return keras.Model(pixels, keras.tree.flatten(outputs)[0])
        if isinstance(outputs, dict):
            return keras.Model(pixels, outputs)
        return keras.Model(pixels, dict(zip(names, keras.tree.flatten(outputs), strict=True)))

    @property
    def reference(self) -> Any:
        """The float Keras model that the artefacts are compared with."""
        return self.compared.model if self.compared else self.model

    @property
    def wanted(self) -> tuple[tuple[Format, Precision], ...]:
        """The artefacts to make."""
        return tuple((f, p) for f in self.formats for p in self.precisions)

    def calibrated(self, settings: Settings, progress: Progress, phase: str) -> Plan:
        """A plan made anew, told to `progress` as that phase."""
        samples = self.proof.samples
        total = work(self.graph, len(samples.images), settings)
        return calibrate(
            self.graph,
            samples,
            settings,
            preprocessing(self.card.input),
            lambda done: progress(phase, done, total),
        )

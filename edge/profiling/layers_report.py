"""What a layer is, what it cost and what it could cost; as JSON and as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from rich.table import Table

    from edge.profiling.roofline import Roofline

SHOWN = 25
"""Rows of the table: an int8 ONNX graph has two hundred nodes, most of them of a few microseconds."""

MORE_THAN_THE_WHOLE = (
    "The layers' sum is more than 10 % above the whole: the steps are so short that the profiler itself is the "
    "difference. Read the order of the layers, not their milliseconds."
)
LESS_THAN_THE_WHOLE = (
    "More than 10 % of the whole is in no layer: something else ran on this machine, or the runtime spends that "
    "time between the layers. Measure again on an idle machine."
)

_KERAS_LAYER = re.compile(r"(?:functional|sequential|model)[^/;]*_1/([^/;]+?)_1(?=[/:;]|$)")
"""Keras's export calls the model a second time, and TensorFlow adds `_1` to the scopes' names then."""


@dataclass(frozen=True)
class Operation:
    """One operation as the artefact states it.

    Attributes:
        name: the operation's, or its output tensor's where operations have no names (TFLite).
        kind: `CONV_2D`, `Conv`.
        keras: the Keras layers that it stands for, as far as its name tells.
        macs: multiplications and additions of a pair; 0 where it multiplies nothing by weights.
        bytes: of its weights, inputs and outputs, in their stored types.
    """

    name: str
    kind: str
    keras: tuple[str, ...]
    macs: int
    bytes: int


@dataclass(frozen=True)
class Layer:
    """One step of the runtime: an operation, or several that it has fused.

    Attributes:
        kernel: what the runtime calls what it ran.
        ms: the middle of its durations over the runs.
        macs, bytes: as in `Operation`; None where they are not known.
        bound_ms: what the roofline allows; None without one.
    """

    name: str
    kernel: str
    keras: tuple[str, ...]
    ms: float
    macs: int | None = None
    bytes: int | None = None
    bound_ms: float | None = None

    @property
    def macs_per_s(self) -> float | None:
        """Achieved; None where it has no multiplications."""
        return self.macs / self.ms * 1e3 if self.macs and self.ms else None

    @property
    def over_bound(self) -> float | None:
        """Measured over bound: at 1 there is nothing to gain, at 10 the kernel wastes nine tenths."""
        return self.ms / self.bound_ms if self.bound_ms else None

    def as_json(self) -> dict[str, Any]:
        """All that is known of it."""
        derived = {"macs_per_s": self.macs_per_s, "over_bound": self.over_bound}
        return {name: _rounded(value) for name, value in {**asdict(self), **derived}.items()}


@dataclass(frozen=True)
class LayerReport:
    """Where the time of one inference goes.

    Attributes:
        method: how the times were taken.
        whole_ms: median of the same inference without a profiler; profiled_ms: with it. The two kinds
            of runs take turns.
        layers: in the order of execution.
        notes: what a reader must know, and what could not be found.
        roofline: that the layers' bounds are from.
    """

    backend: str
    precision: str
    method: str
    runs: int
    threads: int
    whole_ms: float
    profiled_ms: float
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()
    roofline: Roofline | None = None

    @property
    def sum_ms(self) -> float:
        """Of all layers."""
        return sum(layer.ms for layer in self.layers)

    @property
    def rest_ms(self) -> float:
        """Not in any layer: copies in and out, scheduling. Negative where the profiler slows the layers."""
        return self.whole_ms - self.sum_ms

    @property
    def adds_up(self) -> bool:
        """Whether the layers' sum is within 10 % of the whole."""
        return abs(self.rest_ms) <= 0.1 * self.whole_ms

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, the roofline in words, and a warning where the sum misses the whole."""
        roof = self.roofline
        told = roof and (
            f"Bound: {roof.macs_per_s / 1e9:.0f} GMAC/s or {roof.bytes_per_s / 1e9:.1f} GB/s ({roof.source}); "
            "a layer below it finds its data in a cache."
        )
        warning = LESS_THAN_THE_WHOLE if self.rest_ms > 0 else MORE_THAN_THE_WHOLE
        return tuple(text for text in (*self.notes, told, "" if self.adds_up else warning) if text)

    def bounded(self, roofline: Roofline) -> LayerReport:
        """The same with each layer's bound; a layer of unknown traffic has none."""
        return replace(
            self, layers=tuple(_bounded(layer, roofline) for layer in self.layers), roofline=roofline
        )

    def as_json(self) -> dict[str, Any]:
        """The section `layers` of a profile's report."""
        return {
            "backend": self.backend,
            "precision": self.precision,
            "method": self.method,
            "runs": self.runs,
            "threads": self.threads,
            "whole_ms": _rounded(self.whole_ms),
            "profiled_ms": _rounded(self.profiled_ms),
            "sum_ms": _rounded(self.sum_ms),
            "rest_ms": _rounded(self.rest_ms),
            "adds_up": self.adds_up,
            "notes": list(self.remarks),
            "roofline": asdict(self.roofline) if self.roofline else None,
            "layers": [layer.as_json() for layer in self.layers],
        }

    def table(self) -> Table:
        """For people: the slowest layers in the order of execution, the sum, the whole and the rest."""
        from rich.table import Table

        table = Table(
            title=f"Time by layer, ms ({self.backend} {self.precision}, {self.runs} runs; {self.method})",
            title_justify="left",
            caption="\n".join(self.remarks) or None,
            caption_justify="left",
        )
        for name in ("layer", "kernel", "ms", "share", "MMAC", "KB", "GMAC/s", "bound", "over\nbound"):
            left = name in ("layer", "kernel")
            table.add_column(name, justify="left" if left else "right", overflow="fold", no_wrap=not left)
        shown = slowest(self.layers, SHOWN)
        for layer in shown:
            table.add_row(*_cells(layer, self.sum_ms))
        self._add_totals(table, shown)
        return table

    def _add_totals(self, table: Table, shown: Sequence[Layer]) -> None:
        table.add_section()
        if others := len(self.layers) - len(shown):
            left = self.sum_ms - sum(layer.ms for layer in shown)
            table.add_row(f"{others} others", "", f"{left:.3f}", f"{left / self.sum_ms:.1%}")
        table.add_row(
            "sum of layers, of whole", "", f"{self.sum_ms:.3f}", f"{self.sum_ms / self.whole_ms:.1%}"
        )
        table.add_row("not in any layer", "", f"{self.rest_ms:.3f}", f"{self.rest_ms / self.whole_ms:.1%}")
        table.add_row("whole, not profiled", "", f"{self.whole_ms:.3f}")
        table.add_row("whole, profiled", "", f"{self.profiled_ms:.3f}")


def keras_layers(*names: str) -> tuple[str, ...]:
    """The Keras layers in names that TensorFlow's exporters made, in order, each once.

    >>> keras_layers("functional_5_1/stem1_relu_1/Relu;functional_5_1/stem1_1/BiasAdd")
    ('stem1_relu', 'stem1')
    """
    return tuple(dict.fromkeys(found for name in names for found in _KERAS_LAYER.findall(name)))


def middle_mean(values: Sequence[float]) -> float:
    """The interquartile mean: as deaf to outliers as a median, but finer than the clock's whole steps."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return float(ordered[cut : len(ordered) - cut].mean())


def slowest(layers: Sequence[Layer], most: int) -> list[Layer]:
    """The `most` slowest, still in the order of execution."""
    kept = {id(layer) for layer in sorted(layers, key=lambda layer: -layer.ms)[:most]}
    return [layer for layer in layers if id(layer) in kept]


def _bounded(layer: Layer, roofline: Roofline) -> Layer:
    if layer.bytes is None:
        return layer
    return replace(layer, bound_ms=roofline.bound_ms(layer.macs or 0, layer.bytes))


def _cells(layer: Layer, sum_ms: float) -> list[str]:
    return [
        " + ".join(layer.keras) or layer.name,
        layer.kernel,
        f"{layer.ms:.3f}",
        f"{layer.ms / sum_ms:.1%}" if sum_ms else "",
        _cell(layer.macs, 1e6, 2),
        _cell(layer.bytes, 1e3, 1),
        _cell(layer.macs_per_s, 1e9, 1),
        _cell(layer.bound_ms, 1, 3),
        _cell(layer.over_bound, 1, 1),
    ]


def _cell(value: float | None, unit: float, digits: int) -> str:
    return f"{value / unit:.{digits}f}" if value else ""


def _rounded(value: Any) -> Any:
    """To six digits that say something; NumPy and lists pass."""
    return float(f"{value:.6g}") if isinstance(value, float) else value

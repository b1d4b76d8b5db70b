"""What a model would take on a device that is not here: a prediction on paper, never a measurement.

    t = sum over layers of max(MACs / peak, bytes / bandwidth)  +  kernels * cycles / clock

The first term is the device's roofline. The second is what a kernel takes however little it does (its
launch, filling and draining the GPU), counted in the GPU's cycles; `cycles` is the one figure that is
fitted, by family of GPU, to the published latencies in `edge.profiling.published`. Each device is
predicted from a fit that has not seen it, and the errors of that are shown with every prediction.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edge.bundle import Bundle, Precision
from edge.errors import InputError
from edge.profiling.devices import Device, device
from edge.profiling.published import FIGURES, NETWORKS, Figure, Work
from edge.profiling.roofline import ITEM_BYTES, Roofline

if TYPE_CHECKING:
    from rich.table import Table

    from edge.profiling.layers_report import Operation

WARNING = "A prediction on paper. No device was run."

KERNEL_KINDS = re.compile("POOL|MEAN|RESIZE|SOFTMAX|TRANSPOSE|SUM|REDUCE|GATHER")
"""TFLite operations without multiplications that stay a kernel of their own in TensorRT; it fuses the
others (activations, additions, reshaping) into the one before."""


@dataclass(frozen=True)
class Error:
    """A published figure beside what is predicted for it from the other devices of its family."""

    figure: Figure
    predicted_ms: float

    @property
    def relative(self) -> float:
        """Predicted over published, less one: +0.1 is 10 % too slow."""
        return self.predicted_ms / self.figure.ms - 1


@dataclass(frozen=True)
class Prediction:
    """A latency on paper.

    Attributes:
        key: of the device; device: what its maker says of it.
        bound_ms: of the roofline alone, which nothing can beat; ms: with the kernels' own time.
        cycles: of a kernel, as fitted; kernels: of the model.
        fitted_to: the figures that the fit has seen: of this family, never of this device.
        errors: of all figures, each predicted without its device.
        layers: name, MACs, bound in milliseconds and what limits it.
    """

    key: str
    device: Device
    precision: Precision
    ms: float
    bound_ms: float
    cycles: float
    kernels: int
    fitted_to: tuple[Figure, ...]
    errors: tuple[Error, ...]
    layers: tuple[tuple[str, int, float, str], ...]

    @property
    def range_ms(self) -> tuple[float, float]:
        """Where the truth would lie if this error is no larger than those of the published figures."""
        relative = [error.relative for error in self.errors]
        return self.ms / (1 + max(*relative, 0.0)), self.ms / (1 + min(*relative, 0.0))

    def as_json(self) -> dict[str, Any]:
        """All figures, marked as a prediction."""
        return {
            "prediction": True,
            "warning": WARNING,
            "device": self.key,
            "precision": self.precision,
            "ms": round(self.ms, 4),
            "range_ms": [round(ms, 4) for ms in self.range_ms],
            "bound_ms": round(self.bound_ms, 4),
            "kernels": self.kernels,
            "cycles_a_kernel": round(self.cycles),
            "fitted_to": [f"{f.device} {f.network} {f.ms} ms" for f in self.fitted_to],
            "left_out_errors": {
                f"{e.figure.device} {e.figure.network}": round(e.relative, 4) for e in self.errors
            },
            "layers": [
                {"name": name, "macs": macs, "bound_ms": round(ms, 5), "limit": limit}
                for name, macs, ms, limit in self.layers
            ],
        }


def predict(works: Sequence[Work], key: str, precision: Precision = "int8") -> Prediction:
    """Predict one inference of a model's layers.

    Raises:
        InputError: no such device, or one for which there is nothing to predict from.
    """
    target = device(key)
    roofline = target.roofline(precision)
    if roofline is None:
        raise InputError(
            f"No data sheet gives {target.name} a rate in {precision}, so nothing can be predicted from one. "
            f"Known: {_known_precisions(target) or 'no precision'}."
        )
    seen = figures_for(key)
    if not seen:
        raise InputError(
            f"There is no published figure of another device with a {target.family} processor to fit to, so "
            f"nothing is predicted for {target.name}. Measure there: sightline profile BUNDLE."
        )
    cycles = fit_cycles(seen)
    return Prediction(
        key=key,
        device=target,
        precision=precision,
        ms=latency_ms(works, target, roofline, precision, cycles),
        bound_ms=bound_ms(works, roofline, precision),
        cycles=cycles,
        kernels=kernels(works),
        fitted_to=seen,
        errors=left_out_errors(),
        layers=tuple(_layer(work, roofline, precision) for work in works if work.elements),
    )


def _known_precisions(target: Device) -> str:
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return ", ".join(precision for precision in precisions if target.roofline(precision))


def _layer(work: Work, roofline: Roofline, precision: Precision) -> tuple[str, int, float, str]:
    traffic = work.elements * ITEM_BYTES[precision]
    return work.name, work.macs, roofline.bound_ms(work.macs, traffic), roofline.limit(work.macs, traffic)


# -- the model ------------------------------------------------------------------------------------


def bound_ms(works: Iterable[Work], roofline: Roofline, precision: Precision) -> float:
    """The sum of the layers' bounds."""
    item = ITEM_BYTES[precision]
    return sum(roofline.bound_ms(work.macs, work.elements * item) for work in works)


def kernels(works: Iterable[Work]) -> int:
    """How many are started."""
    return sum(work.launches for work in works)


def kernels_ms(works: Iterable[Work], target: Device, cycles: float) -> float:
    """What the kernels take however little they do."""
    return kernels(works) * cycles / (target.ghz * 1e6)


def latency_ms(
    works: Sequence[Work], target: Device, roofline: Roofline, precision: Precision, cycles: float
) -> float:
    """Of one inference."""
    return bound_ms(works, roofline, precision) + kernels_ms(works, target, cycles)


# -- the fit --------------------------------------------------------------------------------------


def figures_for(key: str) -> tuple[Figure, ...]:
    """The published figures of a device's family, those of the device itself left out."""
    family = device(key).family
    return tuple(f for f in FIGURES if f.device != key and device(f.device).family == family)


def fit_cycles(figures: Sequence[Figure]) -> float:
    """The cycles of a kernel with the least squared relative error; never below none.

    With r the roofline's and x the kernels' milliseconds for one cycle, minimise the sum of
    ((r + c x - t) / t)^2 over c: c = sum((x/t) (1 - r/t)) / sum((x/t)^2).
    """
    above = below = 0.0
    for figure in figures:
        bound, one_cycle = _published(figure)
        above += one_cycle / figure.ms * (1 - bound / figure.ms)
        below += (one_cycle / figure.ms) ** 2
    return max(above / below, 0.0)


def left_out_errors() -> tuple[Error, ...]:
    """Each published figure, predicted from the other devices of its family, where there are any."""
    errors = []
    for figure in FIGURES:
        if seen := figures_for(figure.device):
            bound, one_cycle = _published(figure)
            errors.append(Error(figure, bound + fit_cycles(seen) * one_cycle))
    return tuple(errors)


def _published(figure: Figure) -> tuple[float, float]:
    """Milliseconds of the roofline, and of the kernels for one cycle each. All figures are int8."""
    target, works = device(figure.device), NETWORKS[figure.network]()
    roofline = target.roofline("int8")
    assert roofline is not None, f"{figure.device} has a published int8 latency but no int8 rate"
    return bound_ms(works, roofline, "int8"), kernels_ms(works, target, 1.0)


# -- a bundle -------------------------------------------------------------------------------------


def works_of(bundle: Bundle) -> tuple[Work, ...]:
    """A bundle's layers, from any .tflite it holds; LiteRT's reader of the format is enough for that.

    Raises:
        InputError: the bundle holds no .tflite. MissingPackageError: LiteRT is not installed.
    """
    from edge.profiling.layers_tflite import operations

    artefacts = [a for a in bundle.manifest.artefacts if a.format == "tflite"]
    if not artefacts:
        raise InputError(
            f"{bundle.folder} holds no .tflite, and a prediction takes the layers' sizes from one. "
            "Export the bundle with --formats tflite,onnx."
        )
    artefact = artefacts[0]
    item = ITEM_BYTES[artefact.precision]
    return tuple(
        _work(found.operation, item)
        for found in operations(bundle.content(artefact))
        if found.operation.bytes
    )


def _work(operation: Operation, item_bytes: int) -> Work:
    """Numbers moved are bytes over the size of one; int32 biases count a little too much."""
    elements = operation.bytes // item_bytes
    if operation.macs or KERNEL_KINDS.search(operation.kind):
        return Work(operation.name, operation.macs, elements)
    # Fused into the layer before it: of an addition the second input still has to be read.
    return Work(operation.name, 0, elements // 3 if operation.kind == "ADD" else 0, launches=0)


def predict_command_output(
    bundle: Bundle, key: str, precision: Precision = "int8"
) -> tuple[Prediction, Table]:
    """What `sightline profile BUNDLE --predict DEVICE` says: the prediction, and a table for people.

    Raises:
        InputError: see `predict` and `works_of`.
    """
    prediction = predict(works_of(bundle), key, precision)
    return prediction, prediction_table(prediction, bundle.manifest.name)


def prediction_table(prediction: Prediction, model: str) -> Table:
    """For people: the figure, its range, and how wrong such figures were where the truth is published."""
    from rich.table import Table

    target, (low, high) = prediction.device, prediction.range_ms
    table = Table(title=f"PREDICTION, not a measurement: {model} on {target.name}", title_justify="left")
    for heading in ("", "predicted ms", "published ms", "error"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row(f"{model}, {prediction.precision}", f"{prediction.ms:.3f}")
    table.add_row("  if wrong by no more than below", f"{low:.3f} to {high:.3f}")
    table.add_row("  of it the roofline", f"{prediction.bound_ms:.3f}")
    table.add_row(f"  of it {prediction.kernels} kernels", f"{prediction.ms - prediction.bound_ms:.3f}")
    table.add_section()
    for error in prediction.errors:
        figure = error.figure
        what = f"{figure.network}, {figure.device}{' *' if figure in prediction.fitted_to else ''}"
        table.add_row(what, f"{error.predicted_ms:.3f}", f"{figure.ms:.3f}", f"{error.relative:+.0%}")
    table.caption = "\n".join(_caption(prediction))
    table.caption_justify = "left"
    return table


def _caption(prediction: Prediction) -> Iterable[str]:
    yield f"{WARNING} TensorRT on the GPU, highest clocks, cool, nothing else running;"
    yield "one picture, without camera, resizing and decoding of the outputs."
    yield "* fitted to these. Each published figure is predicted without having seen its device."
    macs = sum(layer[1] for layer in prediction.layers)
    least, *_, most = sorted(sum(work.macs for work in network()) for network in NETWORKS.values())
    if not least <= macs <= most:
        yield f"{macs / 1e6:.3g} M MACs; those have {least / 1e6:.0f} to {most / 1e6:.0f} M: expect more error."
    if prediction.precision != "int8":
        yield f"All published figures are int8: none of them checks a prediction in {prediction.precision}."
    if not prediction.device.supported:
        yield f"Sightline does not run on {prediction.device.name}: the floor is JetPack 6.1."

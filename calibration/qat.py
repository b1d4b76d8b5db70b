"""Quantization-aware training: a few epochs in which the network already rounds as the int8 file will.

A trained float model is folded and its ranges are watched once, as for any plan; then a recipe's own data,
loss and optimiser train it on. Forward, kernels and activations are rounded; backward, the rounding counts as the
identity (the straight-through estimator: Bengio et al. 2013, arXiv 1308.3432; Jacob et al. 2018, arXiv 1712.05877).
Ranges stay as they were watched. A kernel's scales follow the kernel, by the rule of
`calibration.quantize.kernel_scales`, so that a plan made of the trained kernels holds the very scales of the last step.

Activations are rounded where TFLite rounds them. The integers of the kernels are the same for both targets.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from calibration.fold import fold
from calibration.graph import Graph, Node, build, call_layer, read
from calibration.options import SAMPLES
from calibration.plan import Plan, provenance, range_plan, scales_of
from calibration.quantize import PIXELS, SMALLEST_SCALE
from calibration.rounding import rounded_nodes
from calibration.samples import Samples, preprocessing, read_samples
from calibration.settings import METHOD_OF_TASK, Settings
from edge.errors import InputError
from edge.files import sha256
from edge.tables import resolve
from train.card import Card, QatStart, card_if_any
from train.evaluate import shortened
from train.fit import Lesson, Metrics, Trained
from train.job import Job
from train.recipe import AnyRecipe, Recipe
from train.weights import load_network

LEAST_NORMAL = 2.0**-14
"""The smallest float16 with a full mantissa; below it the steps are equal, 2**-24."""


# -- layers that round ----------------------------------------------------------------------------


def straight_through(rounded: Any, values: Any) -> Any:
    """`rounded`, exactly, with the gradient of `values`."""
    return ops.stop_gradient(rounded) + (values - ops.stop_gradient(values))


def rounded_kernel(kernel: Any, axes: tuple[int, ...]) -> Any:
    """A kernel at the real values of its integers; `axes` are those that share a scale.

    The same as `calibration.quantize.rounded_kernel` with the kernel's own scales, as a tensor.
    """
    scales = _float16_below(ops.max(ops.abs(kernel), axis=axes, keepdims=True) / 127)
    integers = ops.clip(ops.round(kernel / scales), -127, 127)
    return straight_through(integers * scales, kernel)


def _float16_below(values: Any) -> Any:
    """The nearest float16 that is not larger, as float32; never zero."""
    half = ops.cast(ops.cast(values, "float16"), "float32")
    # Half a step to a whole one less, which rounds to the float16 before.
    before = ops.cast(ops.cast(half * (1 - 2.0**-11), "float16"), "float32")
    normal = ops.where(half > values, before, half)
    tiny = ops.floor(values / SMALLEST_SCALE) * SMALLEST_SCALE
    return ops.maximum(ops.where(values < LEAST_NORMAL, tiny, normal), SMALLEST_SCALE)


@keras.saving.register_keras_serializable("sightline")
class RoundedConv2D(layers.Conv2D):  # type: ignore[misc]
    """A convolution with its kernel rounded, a scale an output channel."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """Keras's own, of the rounded kernel."""
        return super().convolution_op(inputs, rounded_kernel(kernel, (0, 1, 2)))


@keras.saving.register_keras_serializable("sightline")
class RoundedDepthwiseConv2D(layers.DepthwiseConv2D):  # type: ignore[misc]
    """A depthwise convolution with its kernel rounded, a scale an output channel."""

    def call(self, inputs: Any) -> Any:
        """Keras's own, of the rounded kernel; an activation is a layer of its own in a folded network."""
        kernel = rounded_kernel(self.kernel, (0, 1))
        window = {"strides": self.strides, "padding": self.padding, "dilation_rate": self.dilation_rate}
        outputs = ops.depthwise_conv(inputs, kernel, **window)
        return outputs + self.bias if self.use_bias else outputs


@keras.saving.register_keras_serializable("sightline")
class Rounded(layers.Layer):  # type: ignore[misc]
    """Values rounded to a grid; where they lie outside it they saturate and have no gradient.

    Args:
        scale, low, high: see `calibration.quantize.TensorParams`, real units.
    """

    def __init__(self, scale: float, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale, self.low, self.high = scale, low, high

    def call(self, inputs: Any) -> Any:
        """float32 of any shape to the same."""
        inside = ops.clip(inputs, self.low, self.high)
        return straight_through(
            ops.clip(ops.round(inputs / self.scale) * self.scale, self.low, self.high), inside
        )

    def get_config(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {**super().get_config(), "scale": self.scale, "low": self.low, "high": self.high}


_ROUNDED: dict[str, Any] = {"Conv2D": RoundedConv2D, "DepthwiseConv2D": RoundedDepthwiseConv2D}


# -- networks -------------------------------------------------------------------------------------


def rounding_network(graph: Graph, plan: Plan) -> keras.Model:
    """The folded network with rounding as TFLite has it, trainable; its weights are the float ones."""
    rounds = {node.name for node in rounded_nodes(graph)}
    (pixels,) = (node.name for node in graph.nodes if node.kind == "InputLayer")
    rounded: list[Any] = []

    def call(layer: Any, node: Node, inputs: list[Any]) -> Any:
        if pixels in node.inputs and not rounded:
            rounded.append(_grid(PIXELS, "input_round")(inputs[node.inputs.index(pixels)]))
        inputs = [rounded[0] if name == pixels else x for name, x in zip(node.inputs, inputs, strict=True)]
        kind = _ROUNDED.get(node.kind)
        output = call_layer(kind.from_config(node.config) if kind else _keras_layer(layer, node), inputs)
        if node.name not in rounds:
            return output
        return _grid(plan.params(graph, node, "tflite"), f"{node.name}_round")(output)

    return build(graph, call)


def plain_network(graph: Graph) -> keras.Model:
    """The folded network in Keras's own layers alone, so that any Keras loads its file."""
    return build(graph, lambda layer, node, inputs: call_layer(_keras_layer(layer, node), inputs))


def with_weights(graph: Graph, model: keras.Model) -> Graph:
    """The graph with the weights that a network of it has now."""
    nodes = (
        replace(node, weights=tuple(model.get_layer(node.name).get_weights())) if node.weights else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def _keras_layer(layer: Any, node: Node) -> Any:
    """Keras's own where `calibration.graph.make_layer` has one for converters, which no file could hold."""
    if node.kind == "HardSwish":
        return layers.Activation("hard_silu", name=node.name)
    return layers.UpSampling2D.from_config(node.config) if node.kind == "UpSampling2D" else layer


def _grid(params: Any, name: str) -> Rounded:
    return Rounded(params.scale, *params.limits, name=name)


# -- the lesson -----------------------------------------------------------------------------------


class QatLesson:
    """A `train.fit.Lesson`: what another lesson teaches, to a network that rounds.

    Args:
        lesson: has the data, the loss and the optimiser.
        graph: folded, trained in float.
        samples: whose ranges are watched, and which the plan records.
    """

    def __init__(self, lesson: Lesson, graph: Graph, samples: Samples) -> None:
        self._lesson, self._graph, self._samples = lesson, graph, samples
        self.recipe, self.about, self.steps = lesson.recipe, lesson.about, lesson.steps

    @cached_property
    def start(self) -> Plan:
        """The plan that the training begins with; its ranges stay."""
        return range_plan(self._graph, self._samples, Settings(method=METHOD_OF_TASK[self.about.task]))

    def compiled(self) -> keras.Model:
        """The rounding network, with the optimiser and the loss of the lesson."""
        fresh = self._lesson.compiled()
        model = rounding_network(self._graph, self.start)
        if model.output_shape != fresh.output_shape:
            raise InputError(
                f"The model to start from gives {model.output_shape}, recipe {self.recipe.name} trains "
                f"{fresh.output_shape}. Pass the recipe that the model was trained with."
            )
        model.compile_from_config(fresh.get_compile_config())
        return model

    def batches(self, epoch: int, done: int) -> Iterator[tuple[Any, Any]]:
        """Those of the lesson."""
        return self._lesson.batches(epoch, done)

    def validate(self, model: keras.Model, epoch: int) -> Metrics:
        """What the rounding network achieves."""
        return self._lesson.validate(model, epoch)

    def test(self, model: keras.Model) -> Metrics:
        """What the network achieves in float."""
        return self._lesson.test(model)

    def bare(self, model: keras.Model) -> keras.Model:
        """The trained weights in float, folded."""
        return plain_network(with_weights(self._graph, model))

    def plan(self, trained: keras.Model) -> Plan:
        """What `sightline export --plan` follows for a network that `bare` gave.

        The ranges that were trained with, the scales of the trained kernels, and the provenance of an
        export of this network with the same samples.
        """
        graph, start = fold(read(trained)), self.start
        pixels = preprocessing(self.recipe.input)
        settings = start.settings.model_copy(update={"qat": True})
        made_from = provenance(graph, self._samples, settings, pixels)
        update = {"settings": settings, "kernel_scales": scales_of(graph), "provenance": made_from}
        return start.model_copy(update=update)


# -- the job --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QatJob(Job):
    """One quantization-aware training from recipe and model to files: `train.job.Job` and a plan.

    Attributes:
        start: the `.keras` file of the float model.
    """

    start: Path = Path()

    @property
    def plan_path(self) -> Path:
        """The plan to come, beside the model."""
        return self.model_path.with_suffix(".plan.json")

    @property
    def checkpoint(self) -> Path:
        """Named after the model it started from too: of another one there is nothing to resume."""
        return self.out / f"{self.recipe.name}.{sha256(self.start)[:12]}.checkpoint.keras"

    def lesson(self) -> QatLesson:
        """Read model and data; raises InputError where they are wrong, or the network has no int8 form."""
        graph = fold(read(load_network(self.start)))
        lesson: Lesson = resolve(self.recipe.lesson).of(self.recipe, self.data, self.out)
        if lesson.about.task != "classification":
            raise InputError(
                f"--qat trains classifiers; recipe {self.recipe.name} is for {lesson.about.task}."
            )
        self._check_classes(lesson)
        spec = self.recipe.input
        if graph.nodes[0].shape != (spec.height, spec.width, 3):
            raise InputError(
                f"{self.start} takes {graph.nodes[0].shape}, recipe {self.recipe.name} has pictures of "
                f"({spec.height}, {spec.width}, 3). Pass the recipe that the model was trained with."
            )
        skip = isinstance(self.recipe, Recipe) and self.recipe.skip_corrupt
        samples = read_samples(self.data, spec, SAMPLES, skip_corrupt=skip)
        return QatLesson(lesson, graph, samples)

    def _check_classes(self, lesson: Lesson) -> None:
        """As many other classes would be learnt in place of those that the model knows."""
        card, wanted = card_if_any(self.start), lesson.about.labels
        if card and card.labels != wanted:
            raise InputError(
                f"{self.start} knows the classes {shortened(card.labels)}; {lesson.about.data.source} has "
                f"{shortened(wanted)}. --qat trains on with the same ones: pass the data that the model was trained "
                "with, or leave --qat away to learn new ones."
            )

    def _card(self, lesson: Lesson, trained: Trained, metrics: Metrics) -> Card:
        path = os.path.relpath(self.start.resolve(), self.out.resolve())
        start = QatStart(path=path, sha256=sha256(self.start))
        return super()._card(lesson, trained, metrics).model_copy(update={"qat_start": start})

    def written(self, lesson: Any, model: keras.Model) -> None:
        """The plan beside the model."""
        lesson.plan(model).write(self.plan_path)


EPOCHS, RATE = 3, 1 / 50
"""Unless the call says otherwise: so many epochs, at that part of the recipe's learning rate."""


def qat_recipe(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe for a short training from good weights, under a name of its own."""
    rate = recipe.learning_rate * RATE
    name = f"{recipe.name}-qat"
    return replace(recipe, name=name, epochs=EPOCHS, learning_rate=rate, warmup_epochs=0.0)  # type: ignore[type-var]

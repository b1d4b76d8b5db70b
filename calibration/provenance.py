"""What a plan was decided from: enough to tell whether it still holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from calibration.graph import Graph, Node
from edge.errors import InputError

TOOLS = ("sightline", "tensorflow", "keras", "numpy")
"""What decides the ranges, beside Python."""

_IRRELEVANT = ("initializer", "regularizer", "constraint", "trainable", "dtype", "momentum", "seed")
"""Parts of a layer's configuration that do not change what it computes at inference."""


class StalePlan(InputError):
    """A plan that was made from something else than it shall be used on, or was damaged."""


class Provenance(BaseModel):
    """Hashes and names.

    Attributes:
        model_sha256: of the folded network: its layers, their configuration and weights.
        samples_sha256: of the calibration images' pixels, in order; list_sha256: of their ids.
        preprocessing: what happens to a picture before the model sees it, in words.
        method: the range method and the repairs.
        versions: of Python and of the packages that decide.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_sha256: str
    samples_sha256: str
    list_sha256: str
    preprocessing: str
    method: str
    versions: dict[str, str]

    def check(self, now: Provenance) -> None:
        """Raises StalePlan, with everything that differs, where a plan from this is not one for `now`."""
        if found := list(self._differences(now)):
            raise StalePlan(
                f"This quantization plan is stale: {'; '.join(found)}. Nothing was reused. Calibrate anew, "
                "without --plan, or give the model, the data and the options that the plan was made with."
            )

    def _differences(self, now: Provenance) -> Iterator[str]:
        for name, what in _PARTS.items():
            made, found = getattr(self, name), getattr(now, name)
            if made != found:
                yield f"{what} (made with {_short(made)}, now {_short(found)})"
        for tool in sorted({*self.versions, *now.versions}):
            made, found = self.versions.get(tool, "none"), now.versions.get(tool, "none")
            if made != found:
                yield f"the version of {tool} (made with {made}, now {found})"


_PARTS = {
    "model_sha256": "another model",
    "samples_sha256": "other calibration images",
    "list_sha256": "another list of images",
    "preprocessing": "another preprocessing",
    "method": "another method",
}


def graph_sha256(graph: Graph) -> str:
    """The hash of a network: the same for the same layers and weights, however the file was written."""
    digest = hashlib.sha256(json.dumps(dict(graph.outputs)).encode())
    for node in graph.nodes:
        digest.update(_described(node).encode())
        for weight in node.weights:
            digest.update(weight.tobytes())
    return digest.hexdigest()


def list_sha256(ids: tuple[str, ...]) -> str:
    """The hash of a list of images."""
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _described(node: Node) -> str:
    config = {
        key: value for key, value in node.config.items() if not any(part in key for part in _IRRELEVANT)
    }
    shapes = [weight.shape for weight in node.weights]
    return json.dumps(
        [node.name, node.kind, config, node.inputs, node.shape, shapes], sort_keys=True, default=str
    )


def _short(value: str) -> str:
    is_hash = len(value) == 64 and set(value) <= set("0123456789abcdef")
    return f"{value[:12]}…" if is_hash else f"'{value}'"

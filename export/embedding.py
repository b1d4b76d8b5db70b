"""Gives a classifier's bundle a second head: the embedding that new classes are taught on.

    python -m export.embedding BUNDLE OUT

The embedding is what the network's last layer sees, before it decides among the classes of its
training: it tells far more of a picture that is of none of them (docs/enrolment.md has figures). Only the
ONNX artefacts can be changed afterwards; the new bundle has no TFLite ones.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from edge.bundle import MANIFEST, Absent, Artefact, Bundle, Manifest, OutputSpec
from edge.errors import InputError, SightlineError
from edge.files import whole_folder
from edge.runners.onnx import OnnxRunner

if TYPE_CHECKING:
    import onnx

EMBEDDING = "embedding"
NO_TFLITE = "a TFLite file cannot be given another output after its export"

_LAST_LAYERS = ("Conv", "Gemm", "MatMul")


@click.command()
@click.argument("bundle")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
def embed(bundle: str, out: Path) -> None:
    """Write BUNDLE, a classifier with ONNX artefacts, to OUT with the head `embedding` beside its logits."""
    made = with_embedding(Bundle.open(bundle), out)
    click.echo(f"{out}: an embedding of {made.manifest.outputs[-1].shape[1]} numbers")


def with_embedding(bundle: Bundle, out: Path) -> Bundle:
    """The bundle at `out`; its golden vectors of the new head are what ONNX Runtime computes here.

    Raises:
        InputError: it is no classifier, has no ONNX artefact, or one with a last layer that is not known.
    """
    held = [artefact for artefact in bundle.manifest.artefacts if artefact.format == "onnx"]
    if bundle.manifest.task != "classification" or not held:
        raise InputError(f"{bundle.folder} must be a classifier with ONNX artefacts; export it with onnx.")
    made = [_with_output(bundle.content(artefact)) for artefact in held]
    contents = {artefact.file: content for artefact, (content, _) in zip(held, made, strict=True)}
    with whole_folder(out) as folder:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        artefacts = tuple(_changed(artefact, contents[artefact.file]) for artefact in held)
        manifest = _without_tflite(bundle.manifest, out.name, artefacts, size=made[0][1])
        golden = _golden(bundle, Bundle(folder, manifest))
        packed = _packed(golden)
        manifest = _with_golden(manifest, golden, hashlib.sha256(packed).hexdigest())
        (folder / manifest.golden.file).write_bytes(packed)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
    return Bundle.open(out)


def _with_output(content: bytes) -> tuple[bytes, int]:
    """An ONNX file with the last layer's input as float32 (1, D) under the name `embedding`, and D."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load_from_string(content)
    seen = _seen_by_last_layer(model.graph)
    model.graph.node.extend(
        [
            helper.make_node("Flatten", [seen], ["embedding_flat"], axis=1),
            helper.make_node("Cast", ["embedding_flat"], [EMBEDDING], to=TensorProto.FLOAT),
        ]
    )
    output = helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, [1, None])
    model.graph.output.append(output)
    changed = onnx.shape_inference.infer_shapes(model)
    return changed.SerializeToString(), changed.graph.output[-1].type.tensor_type.shape.dim[1].dim_value


def _seen_by_last_layer(graph: onnx.GraphProto) -> str:
    """The tensor that the layer which makes the logits reads."""
    makers: dict[str, Any] = {name: node for node in graph.node for name in node.output}
    tensor = graph.output[0].name
    while (node := makers.get(tensor)) is not None:
        if node.op_type in _LAST_LAYERS:
            return str(node.input[0])
        tensor = node.input[0]
    raise InputError(f"No last layer was found: expected one of {', '.join(_LAST_LAYERS)} before the logits.")


def _changed(artefact: Artefact, content: bytes) -> Artefact:
    digest = hashlib.sha256(content).hexdigest()
    return artefact.model_copy(update={"sha256": digest, "size_bytes": len(content)})


def _without_tflite(manifest: Manifest, name: str, artefacts: tuple[Artefact, ...], size: int) -> Manifest:
    absent = [a for a in manifest.absent if a.format == "onnx"]
    absent += [
        Absent(format="tflite", precision=precision, reason=NO_TFLITE)
        for precision in ("fp32", "fp16", "int8")
    ]
    outputs = (*manifest.outputs, OutputSpec(name=EMBEDDING, shape=(1, size), role="embedding"))
    return manifest.model_copy(
        update={"name": name, "artefacts": artefacts, "absent": tuple(absent), "outputs": outputs}
    )


def _golden(before: Bundle, bundle: Bundle) -> dict[str, NDArray[Any]]:
    """The golden vectors of the ONNX artefacts, with those of the embedding."""
    with np.load(io.BytesIO(before.content(before.manifest.golden)), allow_pickle=False) as arrays:
        vectors = {name: array for name, array in arrays.items() if not name.startswith("tflite.")}
    for artefact in bundle.manifest.artefacts:
        runner = OnnxRunner(bundle, artefact.precision)
        rows = [runner.infer(pixels[None])[EMBEDDING][0] for pixels in vectors["inputs"]]
        runner.close()
        vectors[f"onnx.{artefact.precision}.{EMBEDDING}"] = np.stack(rows)
    return vectors


def _with_golden(manifest: Manifest, vectors: dict[str, NDArray[Any]], digest: str) -> Manifest:
    """The step of the embedding is that of 8 bits over its range."""
    found = [vectors[f"onnx.{artefact.precision}.{EMBEDDING}"] for artefact in manifest.artefacts]
    step = float(max(np.ptp(rows) for rows in found)) / 255
    golden = manifest.golden.model_copy(
        update={"sha256": digest, "step": manifest.golden.step | {EMBEDDING: step}}
    )
    return manifest.model_copy(update={"golden": golden})


def _packed(vectors: dict[str, NDArray[Any]]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **vectors)  # type: ignore[arg-type]  # no array is called allow_pickle
    return stream.getvalue()


if __name__ == "__main__":
    try:
        embed()
    except SightlineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)

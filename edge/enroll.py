"""`sightline enroll`: teach a bundle a new class from a few pictures, list what it was taught, forget it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.cascade import crops
from edge.enrolment.classifier import ACCEPT, embedding, embedding_heads, threshold
from edge.enrolment.store import DEFAULT_STORE, Store, all_files, forget, read_class
from edge.errors import InputError
from edge.model import Model
from edge.pixels import Image
from edge.results import Faces
from edge.sources.images import read_image

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("bundle", required=False)
@click.argument("label", required=False)
@click.argument("images", nargs=-1, type=FILE)
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=DEFAULT_STORE,
    show_default=True,
    help="Where the classes are kept.",
)
@click.option(
    "--accept",
    default=ACCEPT,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help='Of the pictures, left out in turn, so many pass as the class; less says "unknown" more often.',
)
@click.option(
    "--people", is_flag=True, help="LABEL is a person: each IMAGE shows one face, which is cut out."
)
@click.option(
    "--detector",
    metavar="BUNDLE",
    default="face-320x192",
    show_default=True,
    help="Finds the face, with --people.",
)
@click.option(
    "--backend", default="auto", show_default=True, help="tflite, onnx, onnx-cuda, tensorrt or auto."
)
@click.option("--precision", default="auto", show_default=True, help="fp32, fp16, int8 or auto.")
@click.option("--forget", "forgotten", metavar="LABEL", help="Delete this class.")
@click.option("--list", "listed", is_flag=True, help="Show what the store holds.")
def enroll(
    bundle: str | None,
    label: str | None,
    images: tuple[Path, ...],
    store: Path,
    accept: float,
    people: bool,
    detector: str,
    backend: str,
    precision: str,
    forgotten: str | None,
    listed: bool,
) -> None:
    """Teach BUNDLE, a classifier, the class LABEL from a few IMAGEs; more can follow later.

    The store keeps embeddings, not pictures. `enrolled = "STORE"` of a [[models]] table makes a stream
    name the enrolled classes, or "unknown".
    """
    if forgotten is not None:
        for path in forget(store, forgotten):
            click.echo(f"{path} is gone.")
    elif listed:
        _list(store)
    elif bundle is None or label is None or not images:
        raise InputError("Expected: sightline enroll BUNDLE LABEL IMAGE..., or --list, or --forget LABEL.")
    else:
        with closing(Model.open(Bundle.open(bundle), backend, precision)) as model:
            with face_of(detector) if people else nullcontext(_whole) as cut:
                rows = embeddings(model, [cut(_read(path), str(path)) for path in images])
            made = Store(store, model.manifest).add(label, rows, people, accept)
        examples = made.examples()
        click.echo(
            f"'{label}': {len(made.exemplars)} pictures, {examples.exemplars.shape[1]} numbers each; "
            f"accepted from a likeness of {threshold(examples.exemplars, accept):.3f}."
        )


def embeddings(model: Model, pictures: Sequence[Image]) -> NDArray[np.float32]:
    """float32 (n, D) of RGB pictures of any size; raises InputError where the model is no classifier."""
    names = embedding_heads(model.manifest)
    return np.stack([embedding(model.infer(model.prepare(picture)), names) for picture in pictures])


@contextmanager
def face_of(detector: str) -> Iterator[Callable[[Image, str], Image]]:
    """Cuts the one face out of a picture, as a stream does for models with `input = "faces"`.

    The function takes the picture and its name; it raises InputError where there is no face, or more than
    one.
    """
    with closing(Model.open(Bundle.open(detector))) as model:
        if not model.finds_faces:
            raise InputError(f"{detector} finds no faces: --detector needs a bundle of the task faces.")

        def cut(picture: Image, name: str) -> Image:
            found = model.predict(picture)
            assert isinstance(found, Faces)
            if len(found) != 1:
                raise InputError(
                    f"{name}: expected one face, found {len(found)}. Take a picture that shows the person alone, "
                    "large and from the front."
                )
            return next(crops(found, picture, 1))

        yield cut


def _whole(picture: Image, name: str) -> Image:
    return picture


def _read(path: Path) -> Image:
    return np.ascontiguousarray(read_image(path)[:, :, ::-1])


def _list(store: Path) -> None:
    if not store.is_dir():
        raise InputError(f"No store {store}: nothing was taught there. --store names another folder.")
    for path in all_files(store):
        one = read_class(path)
        kind = "person" if one.people else "thing"
        click.echo(f"{path.parent.name}  {one.label}  {kind}  {len(one.exemplars)} pictures")

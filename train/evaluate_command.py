"""The command `evaluate`: a classifier's accuracy, or a detector's, of a Keras model or a bundle."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.errors import InputError
from edge.files import check_options, write_text
from train.commands import DATA_HELP
from train.data import LabelledImages, few, load, tell_notes

if TYPE_CHECKING:
    from edge.bundle import InputSpec
    from train.evaluate import Subject, Top1
    from train.pictures.command import Reporter

EVALUATION_DATA_HELP = (
    f"{DATA_HELP} For a face detector: COCO's annotations.json and images/, or WIDER FACE's val split."
)


@click.command()
@click.argument("model")
@click.option("--data", required=True, metavar="DIR", help=EVALUATION_DATA_HELP)
@click.option(
    "--split",
    type=click.Choice(("train", "val", "test")),
    default="test",
    show_default=True,
    help="Of the data.",
)
@click.option("--backend", default="auto", show_default=True, help="Of a bundle: tflite, onnx or tensorrt.")
@click.option("--precision", default="auto", show_default=True, help="Of a bundle: fp32, fp16 or int8.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="That many images, spread over the classes."
)
@click.option(
    "--size", metavar="WxH", help="Of a Keras detector: another input size, such as 640x384 or 640."
)
@click.option(
    "--skip-corrupt", is_flag=True, help="Of a classifier: leave out pictures that cannot be decoded."
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the result there."
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of a detector: draw precision over recall.",
)
@click.option(
    "--corrupt", is_flag=True, help="Of a classifier: also under JPEG, blur, noise, light, coarse pixels."
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Of a classifier: a page with its mistakes, filters and layers.",
)
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Of --report: what the layers make of this picture.",
)
def evaluate(
    model: str,
    data: str,
    split: str,
    backend: str,
    precision: str,
    limit: int | None,
    size: str | None,
    skip_corrupt: bool,
    json_path: Path | None,
    plot: Path | None,
    corrupt: bool,
    report: Path | None,
    image: Path | None,
) -> None:
    """Measure MODEL, a .keras file (on Keras) or a bundle (as a device runs it).

    A classifier: top-1 accuracy. A face detector: AP50, AP50-95 and the recall at one false detection
    an image, with 95 % intervals, by source and by face size; on WIDER FACE's folder its own protocol.
    """
    from train.detection.command import DetectionOptions, evaluate_faces
    from train.evaluate import open_subject
    from train.pictures.command import ReportOptions

    wanted = ReportOptions(report, image)
    wanted.check()
    check_options(model, json=json_path, plot=plot)
    options = DetectionOptions(data, split, limit, size, plot)
    with closing(open_subject(model, backend, precision)) as subject:
        if subject.task == "faces":
            if corrupt:
                raise InputError(f"--corrupt: for classifiers only; {subject.name} is a face detector.")
            wanted.refuse_for(subject)
            result = evaluate_faces(subject, options)
        else:
            options.refuse_for(subject)
            reporter = wanted.reporter(subject, model)
            images = images_of(data, split, subject.input, limit, skip_corrupt)
            result = _evaluate_top1(subject, images, corrupt, reporter)
    if json_path:
        write_text(json_path, json.dumps(result, indent=2) + "\n")


def _evaluate_top1(
    subject: Subject, images: LabelledImages, corrupt: bool, reporter: Reporter | None
) -> dict[str, Any]:
    from train.ensemble import Member
    from train.evaluate import check_labels

    check_labels(images, subject.labels, subject.name)
    answers = Member.measured(subject, images) if reporter else None
    top1 = answers.top1 if answers else _measured(subject, images)
    low, high = top1.ci95
    click.echo(
        f"top-1 {top1.per_cent:.2f} % (95 % interval {low:.2f} to {high:.2f}) of {top1.n} images, "
        f"{images.source}; {subject.backend} {subject.precision}"
    )
    if reporter and answers:
        click.echo(reporter.write(images, answers))
    about = {"model": subject.name, "data": images.source}
    how = {"backend": subject.backend, "precision": subject.precision}
    return about | top1.as_json() | how | (_corruptions(subject, images, top1) if corrupt else {})


def _corruptions(subject: Subject, images: LabelledImages, clean: Top1) -> dict[str, Any]:
    """Measure again under each corruption and print what it costs."""
    from train.corrupt import CORRUPTIONS, corrupted

    found = {}
    for name, (words, _) in CORRUPTIONS.items():
        top1 = _measured(subject, corrupted(images, name))
        drop = clean.per_cent - top1.per_cent
        click.echo(f"  {top1.per_cent:6.2f} %  {0.0 - drop:+6.2f} points  {words}")
        found[name] = top1.as_json() | {"drop": drop}
    return {"corrupted": found}


def _measured(subject: Subject, images: LabelledImages) -> Top1:
    from train.evaluate import bundle_top1, evaluation_progress, keras_top1

    measure = keras_top1 if subject.backend == "keras" else bundle_top1
    with evaluation_progress(subject.name, len(images)) as advance:
        return measure(subject.model, images, advance)


def images_of(
    data: str, split: str, size: InputSpec, limit: int | None, skip_corrupt: bool, tell: bool = True
) -> LabelledImages:
    """A split as a network of that input sees it; what was mended in it is said on stderr, where `tell` wants it."""
    images = load(data, split, size.height, size.width, size.resize, skip_corrupt)
    if tell:
        tell_notes(images.source, images.notes)
    return few(images, limit)

"""From evidence to files: `NAME.html`, which needs nothing else, and the folder `NAME/` with its pictures as PNG."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import InputError
from edge.files import check_writable, whole_folder, write_text
from train.curves import hints
from train.detection.plot import figure_class
from train.pictures import draw
from train.pictures.evidence import Drawn, Evidence, Sheet
from train.pictures.mistakes import by_class, confusion, worst
from train.pictures.raster import MOST_TILES, filter_sheet, map_sheet, png

if TYPE_CHECKING:
    from train.pictures.inside import Filters, Maps

SUFFIXES = (".html", ".htm")
MISTAKES = 24
LAYERS = 40
"""So many layers are shown, evenly spread: a network of hundreds would make the page too large to open."""

BEST = 3
"""Labels that are named for the picture."""

OURS = re.compile(r"(curves|classes|confusion|mistakes|filters|activations-\d+-[\w-]*)\.png")
"""The files that a report writes into its folder."""


def folder_of(path: Path) -> Path:
    """Where the PNG files of the page at `path` lie."""
    return path.with_suffix("")


def check_report(path: Path) -> None:
    """Before minutes of measuring: can the report be written there?

    Raises:
        InputError: the name does not end in .html, the folder cannot be written, or the pictures' folder
            holds files that are not a report's.
        MissingPackageError: Matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"--report {path}: expected a name that ends in .html.")
    figure_class(draw.OPTION)
    folder = folder_of(path)
    if folder.is_dir():
        others = [entry.name for entry in sorted(folder.iterdir()) if not OURS.fullmatch(entry.name)]
        if others:
            raise InputError(
                f"--report {path}: its pictures would take the place of the folder {folder}, which holds "
                f"{others[0]} and {len(others) - 1} more files of another origin. Choose another name."
            )
    elif folder.exists() or path.is_dir():
        raise InputError(f"--report {path}: {folder if folder.exists() else path} is in the way.")
    check_writable(path.parent, draw.OPTION)


def write_report(path: Path, evidence: Evidence) -> int:
    """Draw everything, write the pictures, then the page; each whole or not at all. Returns how many pictures.

    Raises:
        InputError: the folder cannot be written, or it is another one's.
    """
    from train.pictures.page import page

    check_report(path)
    drawn = _drawn(evidence)
    files = _files(evidence, drawn)
    text = page(evidence, drawn)
    try:
        with whole_folder(folder_of(path)) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
        write_text(path, text)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}. Choose another {draw.OPTION}.") from error
    return len(files)


def _drawn(evidence: Evidence) -> Drawn:
    counts, found = confusion(evidence.answers), tuple(worst(evidence.answers, MISTAKES))
    network = evidence.network
    if network is None:
        return Drawn(counts, found, None, (), "", ())
    from train.pictures.inside import filters, maps

    first, seen = filters(network), maps(network, evidence.picture)
    shown = sorted({round(place) for place in np.linspace(0, len(seen) - 1, min(LAYERS, len(seen)))})
    sheets = tuple(_map_sheet(number + 1, seen[number]) for number in shown)
    left_out = (
        f"{len(seen) - len(shown)} layers between these are not shown." if len(shown) < len(seen) else ""
    )
    grey = bool((evidence.images.images == evidence.images.images[..., :1]).all())
    return Drawn(counts, found, _filter_sheet(first, grey), sheets, left_out, _best(network, evidence))


def _filter_sheet(first: Filters | None, grey: bool) -> Sheet | None:
    """Where all pictures are grey, a filter's colours mean nothing: only their sum counts."""
    if first is None:
        return None
    height, width, _, count = first.kernels.shape
    caption = f"{first.layer}: {_some(count, 'filters')}, {height} x {width} pixels"
    if grey:
        mean = first.kernels.mean(axis=2, keepdims=True)
        first = replace(first, kernels=np.broadcast_to(mean, first.kernels.shape))
        caption += ", the three colours added, as all pictures are grey"
    return Sheet("filters.png", caption, png(filter_sheet(first)))


def _map_sheet(number: int, maps: Maps) -> Sheet:
    height, width, channels = maps.values.shape
    low, high = float(maps.values.min()), float(maps.values.max())
    silent = f"; {maps.silent} of {channels} channels are zero everywhere" if maps.silent else ""
    caption = f"{maps.layer}: {_some(channels, 'channels')}, {height} x {width}, from {low:.2g} to {high:.2g}{silent}"
    name = re.sub(r"[^A-Za-z0-9_-]", "_", maps.layer)[:60]
    return Sheet(f"activations-{number:02d}-{name}.png", caption, png(map_sheet(maps)))


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count <= MOST_TILES else f"the first {MOST_TILES} of {count} {what}"


def _best(network: Any, evidence: Evidence) -> tuple[tuple[str, float], ...]:
    from train.evaluate import keras_outputs

    logits = keras_outputs(network, evidence.picture[None])[0].astype(np.float64)
    powers = np.exp(logits - logits.max())
    order = np.argsort(-logits, kind="stable")[:BEST]
    return tuple((evidence.labels[index], float(powers[index] / powers.sum())) for index in order)


def _files(evidence: Evidence, drawn: Drawn) -> dict[str, bytes]:
    """Content by name; there is no curve without a history, and no mistakes where there are none."""
    title, labels, counts = evidence.title, evidence.labels, drawn.counts
    overall = evidence.answers.top1.per_cent
    files = {
        "classes.png": draw.classes(title, by_class(counts, labels), overall),
        "confusion.png": draw.matrix(title, counts, labels),
    }
    if evidence.history:
        files["curves.png"] = draw.curves(evidence.name, evidence.history, hints(evidence.history))
    if drawn.worst:
        files["mistakes.png"] = draw.mistakes(title, evidence.images, drawn.worst)
    for sheet in (*((drawn.filters,) if drawn.filters else ()), *drawn.maps):
        files[sheet.file] = sheet.content
    return files

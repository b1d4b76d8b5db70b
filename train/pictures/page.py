"""The page: what a classifier has learnt and where it errs, in one HTML file that needs nothing else.

It has the look and the plots of a profile's page, so that words stay words on a phone and in the dark; only what is
pixels is a picture. Every text that a user may have chosen is escaped.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

from edge.profiling.page_plots import Plot, Scale, bar_row, legend, table
from edge.profiling.page_style import STYLE, document
from train.curves import FEWEST_EPOCHS, History, hints
from train.pictures.draw import LEVEL, shades
from train.pictures.evidence import Drawn, Evidence, Sheet
from train.pictures.mistakes import ClassAccuracy, Counts, Mistake, by_class, pairs
from train.pictures.raster import matrix_sheet, png, thumbnail

TABLE_CLASSES = 20
"""Classes up to which the matrix is a table with numbers; beyond it is a picture."""

OPEN_CLASSES = 25
"""So many of the worst classes are shown at once; the others unfold."""

PAIRS = 12
PICTURE_PX = 160
"""The longest side of an image on the page."""

LOOK = """
.c-train { --c: var(--decode); } .c-held { --c: var(--preprocess); } .c-answer { --c: var(--decode); }
.said { list-style: none; padding: 0; } .said b { color: var(--ink); font-weight: 600; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.5rem; }
.grid { display: grid; grid-template-columns: repeat(6, 1fr); gap: 1rem .8rem; }
figure { margin: 0 0 1.2rem; } figcaption { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere; }
.grid figure { margin: 0; }
.grid img, .seen img { width: 100%; border-radius: .3rem; display: block; background: var(--tile); }
.grid figcaption b { color: var(--ink); }
.sheets { display: grid; grid-template-columns: 1fr 1fr; gap: 0 1.5rem; align-items: end; }
.sheet img { width: 100%; max-width: 33rem; height: auto; image-rendering: pixelated; display: block;
             margin-top: .25rem; }
.seen { display: flex; gap: 1rem; align-items: center; margin-bottom: 1.2rem; } .seen img { width: 8rem; flex: none; }
.matrix th, .matrix td { padding: .25rem .3rem; text-align: center; border: 0; min-width: 2.4rem; font-size: .85rem; }
.matrix th { color: var(--soft); font-weight: 400; } .matrix tbody th { text-align: right; white-space: nowrap; }
.matrix tbody th { position: sticky; left: 0; background: var(--paper); }
.matrix thead th .up { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
.matrix td { background: rgb(66 133 205 / var(--a, 0)); border: 1px solid var(--paper); }
.matrix td.on { background: var(--line); font-weight: 600; } .matrix thead th { vertical-align: bottom; }
.classes .bar { grid-template-columns: minmax(6rem, 14rem) 1fr 9rem; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
@media (max-width: 34rem) { .classes .bar { grid-template-columns: 5.4rem 1fr 8.4rem; }
.two, .sheets { grid-template-columns: 1fr; } .grid { grid-template-columns: repeat(3, 1fr); } }
"""


def page(evidence: Evidence, drawn: Drawn) -> str:
    """The page of what was measured and drawn."""
    sections = (
        _head(evidence),
        _curves(evidence),
        _classes(drawn.counts, evidence.labels, evidence.answers.top1.per_cent),
        _matrix(drawn.counts, evidence.labels),
        _mistakes(evidence, drawn.worst),
        _filters(evidence, drawn.filters),
        _maps(evidence, drawn),
    )
    return document(f"{evidence.name}: what it has learnt", STYLE + LOOK, sections)


def _head(evidence: Evidence) -> str:
    top1, card = evidence.answers.top1, evidence.card
    low, high = top1.ci95
    about = f"{evidence.ran} on {evidence.images.source}, {top1.n:,} images{evidence.remark}."
    tiles = [
        (f"top-1 ({low:.2f} – {high:.2f})", f"{top1.per_cent:.2f} <small>%</small>"),
        ("images", f"{top1.n:,}"),
        ("mistakes", f"{top1.n - top1.right:,}"),
        ("parameters", f"{card.parameters:,}" if card and card.parameters else ""),
        ("MACs", f"{card.macs / 1e6:,.1f} <small>M</small>" if card and card.macs else ""),
    ]
    shown = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles if value)
    return (
        f"<h1>{escape(evidence.name)}</h1><p>{escape(about)}</p><div class='tiles'>{shown}</div>"
        + "".join(f"<p>{escape(note)}</p>" for note in evidence.images.notes)
    )


# -- curves ---------------------------------------------------------------------------------------


def _curves(evidence: Evidence) -> str:
    history = evidence.history
    if not history:
        return "<h2>Curves</h2><p>No history of its epochs is kept beside this model, so there are no curves.</p>"
    said = "".join(f"<li><b>{escape(h.sign)}</b> {escape(h.advice)}</li>" for h in hints(history))
    lines = {"training": "c-train"} | ({"held out": "c-held"} if _has(history, "validation_top1") else {})
    return (
        f'<h2>Curves</h2><ul class="said">{said}</ul>'
        + (legend(lines.items()) if len(history) > 1 else "")
        + f'<div class="two"><div>{_loss(history)}</div><div>{_accuracy(history)}</div></div>'
        + ("" if len(history) >= FEWEST_EPOCHS else _epochs(history))
    )


def _has(history: History, metric: str) -> bool:
    return any(metric in epoch for epoch in history)


def _points(history: History, metric: str, factor: float = 1.0) -> list[tuple[float, float]]:
    return [(e.get("epoch", i), factor * e[metric]) for i, e in enumerate(history, 1) if metric in e]


def _loss(history: History) -> str:
    points = _points(history, "loss")
    if len(points) < 2:
        return ""
    top = max(value for _, value in points)
    plot = Plot(_span(points), Scale(0, top * 1.05), "epoch", "loss")
    label = f"loss by epoch: {points[0][1]:.3g} after the first, {points[-1][1]:.3g} after the last"
    return plot.html(plot.curve(points, "c-train"), label=label)


def _accuracy(history: History) -> str:
    lines = {"c-train": _points(history, "accuracy", 100), "c-held": _points(history, "validation_top1")}
    every = [point for points in lines.values() for point in points]
    if len({x for x, _ in every}) < 2:
        return ""
    low = min(value for _, value in every)
    plot = Plot(_span(every), Scale(max(0.0, low - 3), 100), "epoch", "top-1, %")
    drawn = "".join(plot.curve(points, style) for style, points in lines.items() if len(points) > 1)
    ends = [
        f"{word} {p[-1][1]:.1f} %"
        for word, p in zip(("training", "held out"), lines.values(), strict=True)
        if p
    ]
    return plot.html(drawn, label=f"top-1 by epoch, at the end: {', '.join(ends)}")


def _span(points: Sequence[tuple[float, float]]) -> Scale:
    epochs = [x for x, _ in points]
    return Scale(min(epochs), max(epochs))


def _epochs(history: History) -> str:
    """Too few epochs for a shape: their figures."""
    names = [name for name in ("loss", "accuracy", "validation_top1") if _has(history, name)]
    rows = [
        (f"{e.get('epoch', i):.0f}", *(f"{e[name]:.4g}" if name in e else "–" for name in names))
        for i, e in enumerate(history, 1)
    ]
    return table(("epoch", *names), rows)


# -- classes and confusion ------------------------------------------------------------------------


def _classes(counts: Counts, labels: Sequence[str], overall: float) -> str:
    parts = by_class(counts, labels)
    floor = 10 * int(min(part.top1.ci95[0] for part in parts) // 10)
    rows = [_class_row(part, floor, overall) for part in parts]
    sizes = {part.top1.n for part in parts}
    number = f"{sizes.pop():,}" if len(sizes) == 1 else f"{min(sizes):,} to {max(sizes):,}"
    more = max(0, len(rows) - OPEN_CLASSES)
    missing = len(labels) - len(parts)
    return (
        "<h2>Accuracy by class</h2><p>The worst first; the line is the accuracy of all images. Each class's own "
        f"interval (95 %, Wilson), on an axis from {floor} to 100 %, of {number} images a class."
        + (f" {missing} classes have no image here." if missing else "")
        + f"</p>{_bars(rows[:OPEN_CLASSES])}"
        + (f"<details><summary>{more} more</summary>{_bars(rows[OPEN_CLASSES:])}</details>" if more else "")
    )


def _bars(rows: Sequence[str]) -> str:
    return f'<div class="wide classes">{"".join(rows)}</div>'


def _class_row(part: ClassAccuracy, floor: int, overall: float) -> str:
    low, high = part.top1.ci95
    span = 100 - floor or 1

    def x(per_cent: float) -> float:
        return (per_cent - floor) / span

    whisker = (x(low), x(high) - x(low), "c-answer faint")
    point = (min(max(0.0, x(part.top1.per_cent) - 0.006), 0.988), 0.012, "c-answer")
    value = f"{part.top1.per_cent:.1f}  ({low:.1f} – {high:.1f})"
    return bar_row(escape(part.label), value, [whisker, point], mark=x(overall))


def _matrix(counts: Counts, labels: Sequence[str]) -> str:
    said = (
        "<h2>Confusion</h2><p>Rows: what it is. Columns: the answer. The stronger a mistake's blue, the larger its "
        "share of the row; what was right is grey.</p>"
    )
    shaded = _matrix_table if len(labels) <= TABLE_CLASSES else _matrix_picture
    return said + shaded(counts, labels) + _pairs(counts, labels)


def _matrix_table(counts: Counts, labels: Sequence[str]) -> str:
    opacity = 0.75 * shades(counts)
    turned = ' class="up"' if max(map(len, labels)) > LEVEL else ""
    head = "".join(f'<th scope="col"><span{turned}>{escape(label)}</span></th>' for label in labels)
    body = []
    for row, label in enumerate(labels):
        cells = "".join(
            f'<td class="on">{count:,}</td>'
            if row == column
            else f'<td style="--a:{opacity[row, column]:.2f}">{count:,}</td>'
            if count
            else "<td></td>"
            for column, count in enumerate(counts[row])
        )
        body.append(f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="matrix"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _matrix_picture(counts: Counts, labels: Sequence[str]) -> str:
    content = png(matrix_sheet(np.asarray(shades(counts))))
    alt = f"confusion matrix of {len(labels)} classes; the most frequent mistakes are in the table below"
    caption = (
        "<figcaption>In the order of the labels; confusion.png, beside this page, names them.</figcaption>"
    )
    return f'<figure class="sheet">{caption}{_image(content, alt)}</figure>'


def _pairs(counts: Counts, labels: Sequence[str]) -> str:
    found = pairs(counts, labels, PAIRS)
    if not found:
        return ""
    rows = [
        (f"{escape(p.truth)} taken for {escape(p.answer)}", f"{p.count:,} of {p.n:,}", f"{p.per_cent:.1f}")
        for p in found
    ]
    return "<h3>Most often mixed up</h3>" + table(("mistake", "images", "%"), rows)


# -- pictures -------------------------------------------------------------------------------------


def _mistakes(evidence: Evidence, found: Sequence[Mistake]) -> str:
    title = "<h2>The worst mistakes</h2>"
    if not found:
        return f"{title}<p>There are none.</p>"
    top1 = evidence.answers.top1
    return (
        f"{title}<p>Wrong answers of which it was surest, out of {top1.n - top1.right:,}. "
        "Look whether the label is right before you blame the network; below each stands its file, or its place in the "
        f'split, from 0: {escape(evidence.images.source)}.</p><div class="grid">'
        + "".join(_mistake(evidence, mistake) for mistake in found)
        + "</div>"
    )


def _mistake(evidence: Evidence, mistake: Mistake) -> str:
    answer, truth = (evidence.labels[index] for index in (mistake.answer, mistake.truth))
    alt = f"{truth}, taken for {answer} with {100 * mistake.confidence:.1f} %"
    picture = png(thumbnail(evidence.images.images[mistake.index], PICTURE_PX))
    return (
        f"<figure>{_image(picture, alt)}<figcaption><b>{escape(answer)}</b>, {100 * mistake.confidence:.1f}&nbsp;%"
        f"<br>is {escape(truth)}, {100 * mistake.for_truth:.1f}&nbsp;%<br>"
        f"{escape(evidence.images.name(mistake.index))}</figcaption></figure>"
    )


def _filters(evidence: Evidence, sheet: Sheet | None) -> str:
    title = "<h2>First-layer filters</h2>"
    if evidence.network is None:
        return f"{title}<p>{escape(evidence.no_network)}</p>"
    if sheet is None:
        return f"{title}<p>The first layer is no convolution of red, green and blue: there is nothing to draw.</p>"
    return (
        f"{title}<p>Grey is a weight of zero, each filter in its own scale. A trained first layer looks for edges and "
        "patches of colour; large filters like noise were trained too briefly, or regularised too little.</p>"
        + _figure(sheet)
    )


def _maps(evidence: Evidence, drawn: Drawn) -> str:
    if not drawn.maps:
        return ""
    best = ", ".join(f"{label} ({100 * p:.1f} %)" for label, p in drawn.seen)
    picture = _image(png(thumbnail(evidence.picture, PICTURE_PX)), f"the picture: {evidence.picture_name}")
    return (
        "<h2>What the layers make of a picture</h2>"
        f'<div class="seen">{picture}<p>{escape(evidence.picture_name)}: {escape(best)}. Each layer in one scale, dark '
        "its least value and light its largest. A channel that is dark for every picture does nothing.</p></div>"
        + f'<div class="sheets">{"".join(_figure(sheet) for sheet in drawn.maps)}</div>'
        + (f"<p>{escape(drawn.left_out)}</p>" if drawn.left_out else "")
    )


def _figure(sheet: Sheet) -> str:
    caption = f"<figcaption>{escape(sheet.caption)}</figcaption>"
    return f'<figure class="sheet">{caption}{_image(sheet.content, sheet.caption)}</figure>'


def _image(content: bytes, alt: str) -> str:
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'

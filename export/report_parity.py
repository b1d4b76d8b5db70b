"""The report's figures by artefact: parity with Keras, and sizes."""

from __future__ import annotations

from html import escape

from edge.bundle import Artefact, Manifest, Metrics
from export.proof import METRIC_NAMES
from export.report_html import bar, table

_AGREEMENT = {"top1": "same label", "ap50": "same faces"}
_EXPLAINED = {
    "top1": "",
    "ap50": " Same faces: of Keras's with a score of at least 0.5, those that the artefact finds with one too, "
    "at an IoU of at least 0.5.",
}


def parity(manifest: Manifest, proven: tuple[Artefact, ...]) -> str:
    """Each artefact's metric beside Keras's, and what the gate said."""
    kept = {artefact.file for artefact in manifest.artefacts}
    measured = [(artefact, artefact.metrics) for artefact in proven if artefact.metrics is not None]
    if not measured:
        return "<h2>Parity</h2><p>No artefact was made.</p>"
    reach = max(0.25, *(abs(bound) for _, m in measured for bound in (*m.drop_ci95, m.drop)))
    rows = [_parity_row(artefact, metrics, artefact.file in kept, reach) for artefact, metrics in measured]
    first = measured[0][1]
    interval = "drop with its 95 % interval, points"
    metric = METRIC_NAMES[first.metric]
    head = ("artefact", "size", metric, "drop", interval, _AGREEMENT[first.metric], "error max", "mean")
    return (
        "<h2>Parity with Keras, and the gate</h2>"
        f"<p>Each file ran through the edge runtime on the same {first.n:,} images, on which the Keras model "
        f"reaches {first.reference:.2f} % {metric}. Drop: Keras minus artefact. Error: of the raw outputs. "
        f"Intervals: paired bootstrap over images.{_EXPLAINED[first.metric]}</p>"
        + table(head, rows)
        + "".join(
            f'<p class="bad">{a.format} {a.precision}: {escape(a.reason)}.</p>' for a in manifest.absent
        )
        + "".join(
            f"<p>{a.format} {a.precision}: {escape(a.undecided)}.</p>"
            for a in manifest.artefacts
            if a.undecided
        )
    )


def _parity_row(artefact: Artefact, metrics: Metrics, kept: bool, reach: float) -> tuple[str, ...]:
    verdict = "good" if kept else "bad"
    return (
        f"{artefact.format} <b>{artefact.precision}</b>",
        f"{artefact.size_bytes / 1024:,.1f} KiB",
        f"{metrics.value:.2f} %",
        f'<span class="{verdict}">{metrics.drop:+.2f}</span>',
        _interval(metrics, reach),
        f"{metrics.agreement:.2f} %",
        f"{metrics.max_error:.3g}",
        f"{metrics.mean_error:.3g}",
    )


def _interval(metrics: Metrics, reach: float) -> str:
    """A whisker on a common axis from -reach to +reach points."""
    width, height, middle = 220, 26, 11

    def x(points: float) -> float:
        return width / 2 + points / reach * (width / 2 - 14)

    low, high = metrics.drop_ci95
    label = f"drop {metrics.drop:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{label}"><title>{label}</title>'
        f'<line class="axis" x1="6" x2="{width - 6}" y1="{middle}" y2="{middle}"/>'
        f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="3" y2="{2 * middle - 3}"/>'
        f'<line class="whisker" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle class="dot" cx="{x(metrics.drop):.1f}" cy="{middle}" r="3.5"/>'
        f'<text x="6" y="{height - 1}">{-reach:+.1f}</text>'
        f'<text x="{width - 6}" y="{height - 1}" text-anchor="end">{reach:+.1f}</text></svg>'
    )


def sizes(proven: tuple[Artefact, ...]) -> str:
    """The files, and each as a share of the fp32 one of its format."""
    if not proven:
        return ""
    whole = {artefact.format: artefact.size_bytes for artefact in proven if artefact.precision == "fp32"}
    largest = max(artefact.size_bytes for artefact in proven)
    rows = [
        (
            f"{artefact.format} <b>{artefact.precision}</b>",
            f"{artefact.size_bytes:,} bytes",
            f"{artefact.size_bytes / whole[artefact.format]:.0%}" if artefact.format in whole else "–",
            bar(artefact.size_bytes / largest),
        )
        for artefact in proven
    ]
    return "<h2>Sizes</h2>" + table(("artefact", "file", "of fp32", ""), rows)

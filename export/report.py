"""The bundle's report: one self-contained HTML page with the evidence."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from calibration.graph import Graph
from calibration.plan import Plan
from calibration.quantize import asymmetric, symmetric
from edge.bundle import Artefact, Manifest, Metrics
from edge.profiling.page_style import document
from export.proof import METRIC_NAMES

_TASKS = {"classification": "classification into {classes} classes", "faces": "face detection"}
_AGREEMENT = {"top1": "same label", "ap50": "same faces"}
_EXPLAINED = {
    "top1": "",
    "ap50": " Same faces: of Keras's with a score of at least 0.5, those that the artefact finds with one too, "
    "at an IoU of at least 0.5.",
}

_STYLE = """
:root { --ink: #1c2430; --soft: #5b6676; --line: #dfe4ea; --good: #14804a; --bad: #c2341d; --paper: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ecf1; --soft: #9aa6b5; --line: #323b47; --good: #4cc38a; --bad: #ff8a73; --paper: #161b22; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p, .soft { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .7rem .38rem 0; border-bottom: 1px solid var(--line);
         text-align: right; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); } th:first-child, td:first-child { text-align: left; }
td.left, th.left { text-align: left; white-space: normal; }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
svg text { fill: var(--soft); font-size: 10px; } .axis { stroke: var(--line); } .zero { stroke: var(--soft); }
.whisker { stroke: var(--ink); stroke-width: 1.5; } .dot { fill: var(--ink); }
"""


def report(manifest: Manifest, proven: tuple[Artefact, ...], graph: Graph | None, plan: Plan | None) -> str:
    """The page.

    Args:
        manifest: of the bundle, its failed artefacts already absent.
        proven: every artefact that was made, with its metrics.
        graph, plan: what int8 was made from, where there is an int8.
    """
    sections = [
        _title(manifest),
        _parity(manifest, proven),
        _provenance(manifest),
        _ranges(graph, plan) if graph and plan else "",
    ]
    return document(f"{manifest.name}: export report", _STYLE, sections)


def _title(manifest: Manifest) -> str:
    spec = manifest.input
    return (
        f"<h1>{escape(manifest.name)}</h1>"
        f"<p>{_TASKS[manifest.task].format(classes=len(manifest.labels))} from {spec.width}×{spec.height} "
        f"{spec.color} pixels ({spec.resize}), exported by Sightline {escape(manifest.sightline)}.</p>"
    )


def _parity(manifest: Manifest, proven: tuple[Artefact, ...]) -> str:
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
        "<h2>Parity with Keras</h2>"
        f"<p>Each file ran through the edge runtime on the same {first.n:,} images, on which the Keras model "
        f"reaches {first.reference:.2f} % {metric}. Drop: Keras minus artefact. Error: of the raw outputs. "
        f"Intervals: paired bootstrap over images.{_EXPLAINED[first.metric]}</p>"
        + _table(head, rows)
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


def _provenance(manifest: Manifest) -> str:
    facts = [("labels", ", ".join(manifest.labels))]
    if manifest.calibration is not None:
        calibration = manifest.calibration
        facts += [
            ("model", f"SHA-256 {calibration.model_sha256}"),
            (
                "calibration",
                f"{calibration.method} over {calibration.samples} images of {calibration.source}",
            ),
            ("images", f"SHA-256 {calibration.samples_sha256}"),
            ("preprocessing", calibration.preprocessing),
            ("tools", ", ".join(f"{name} {version}" for name, version in calibration.tools.items())),
        ]
    facts += [(a.file, f"SHA-256 {a.sha256}") for a in manifest.artefacts]
    items = "".join(f"<dt>{escape(term)}</dt><dd><code>{escape(text)}</code></dd>" for term, text in facts)
    return f"<h2>Provenance</h2><dl>{items}</dl>"


def _ranges(graph: Graph, plan: Plan) -> str:
    rows = []
    for name, (low, high) in plan.ranges.items():
        tflite, tensorrt = asymmetric(low, high), symmetric(low, high)
        rows.append(
            (
                escape(name),
                " × ".join(map(str, graph[name].shape)),
                f"{low:.3f}",
                f"{high:.3f}",
                f"{tflite.scale:.5f}",
                str(tflite.zero_point),
                f"{tensorrt.scale:.5f}",
            )
        )
    head = ("tensor", "shape", "low", "high", "TFLite scale", "zero point", "TensorRT scale")
    return (
        "<h2>Quantization plan</h2><p>One set of ranges for both targets: asymmetric int8 for TFLite, symmetric "
        "for TensorRT. Kernels are symmetric by output channel.</p>" + _table(head, rows)
    )


def _table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'

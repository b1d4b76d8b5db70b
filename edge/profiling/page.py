"""A profile as one HTML page that needs nothing else: no script, no network, no other file.

It draws what the report holds and leaves out what it does not; every text of the report is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from edge.frame import MODEL_STAGES, STAGES
from edge.profiling.page_facts import conditions, load, part, what_was_run
from edge.profiling.page_layers import layers
from edge.profiling.page_plots import Plot, Scale, bar_row, legend, log_scale, ms, table
from edge.profiling.page_style import STYLE, document

Report = Mapping[str, Any]

CURVE_POINTS = 300
COLUMNS = 400
"""Of the timeline: more strokes than a screen has room for only make the file large."""

OUTLIERS = 5


def page(report: Report) -> str:
    """The page of a report, as `sightline profile --json` writes it."""
    timings = _Timings.of(report)
    sections = (
        _head(report),
        _percentiles(report),
        _distribution(timings),
        _timeline(timings),
        _waterfall(report, timings),
        layers(part(report, "layers")),
        _cold_start(report),
        load(report),
        conditions(report),
        what_was_run(report),
    )
    return document(f"{_name(report)}: latency", STYLE, sections)


class _Timings:
    """The frames' rows: columns in nanoseconds, without those that are no use for plots."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = {name: np.asarray(values, np.float64) for name, values in columns.items()}
        self.stages = [stage for stage in STAGES if stage in self.columns]
        self.n = len(self.columns[self.stages[0]]) if self.stages else 0
        self.ages = np.sum([self.columns[stage] for stage in self.stages], axis=0) / 1e6
        self.steady = self.columns.get("steady", np.ones(self.n)) > 0

    @classmethod
    def of(cls, report: Report) -> _Timings | None:
        """None where the report keeps no frames, or too few to draw."""
        found = cls(part(report, "rows"))
        return found if found.n > 1 and found.steady.any() else None

    def ms(self, name: str) -> Any:
        """A column in milliseconds, of the steady frames; `age` is the stages' sum."""
        values = self.ages if name == "age" else self.columns[name] / 1e6
        return values[self.steady]

    def index(self, row: int) -> int:
        """The number of a frame in its stream."""
        return int(self.columns["index"][row]) if "index" in self.columns else row

    def seconds(self) -> Any:
        """When each frame was captured, from the first."""
        return self.columns["at"] / 1e9 if "at" in self.columns else np.arange(self.n)


def _name(report: Report) -> str:
    settings = part(report, "settings")
    models = settings.get("models")
    names = [str(m.get("model", m.get("bundle", "?"))) for m in models] if isinstance(models, list) else []
    return " + ".join(names) or str(settings.get("model", "Sightline"))


def _head(report: Report) -> str:
    machine, settings = part(report, "machine"), part(report, "settings")
    age, memory = part(report, "stages_ms").get("age", {}), part(report, "memory_mb")
    kind = " ".join(str(settings[key]) for key in ("backend", "precision") if settings.get(key))
    told = [str(text) for text in (kind, machine.get("cpu"), report.get("taken_at")) if text]
    tiles = [
        ("age, median", _figure(age.get("p50"), "ms")),
        ("age, p99", _figure(age.get("p99"), "ms")),
        ("frames a second", _figure(report.get("fps") or part(report, "streaming").get("fps"), "")),
        ("frames measured", f"{report.get('n') or 0:,}"),
        ("memory", _figure(memory.get("steady"), "MB")),
    ]
    shown = "".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in tiles if value)
    return (
        f"<h1>{escape(_name(report))}</h1><p>{escape(' · '.join(told))}</p><div class='tiles'>{shown}</div>"
    )


def _figure(value: Any, unit: str) -> str:
    return f"{ms(float(value))} <small>{unit}</small>" if isinstance(value, int | float) else ""


def _percentiles(report: Report) -> str:
    stages, models = part(report, "stages_ms"), part(report, "models_ms")
    if not stages:
        return ""
    columns = list(dict.fromkeys(column for figures in stages.values() for column in figures))
    rows = []
    for stage, figures in stages.items():
        intervals = part(report, "ci95_ms").get(stage) or {}
        rows.append((_swatch(stage), *(_cell(figures.get(c), intervals.get(c)) for c in columns)))
        for model, of_model in models.items() if len(models) > 1 else ():
            if stage in of_model:
                cells = (_cell(of_model[stage].get(column)) for column in columns)
                rows.append((f'<span class="soft sub">{escape(str(model))}</span>', *cells))
    return (
        f"<h2>Latency by stage, ms</h2><p>{escape(_about(report))}</p>"
        + table(("stage", *columns), rows)
        + "".join(f'<p class="warn">{escape(text)}</p>' for text in _warnings(report))
    )


def _about(report: Report) -> str:
    warm_up, clock = part(report, "warm_up"), report.get("capture_clock")
    said = [f"Of {report.get('n') or 0:,} frames."]
    if frames := warm_up.get("frames"):
        said.append(f"{frames:,} frames of warm-up came before them and are in no figure.")
    if clock:
        said.append(f"The age counts from: {clock}.")
    if report.get("ci95_ms"):
        said.append("Small: 95 % intervals, by a bootstrap of blocks of frames.")
    return " ".join(said)


def _warnings(report: Report) -> list[str]:
    needed = part(report, "frames_needed")
    said = [f"{name} needs {frames:,} frames: too few were measured." for name, frames in needed.items()]
    if part(report, "warm_up").get("settled") is False:
        said.append("The run did not settle on one level: its figures mix several states of the machine.")
    measured = part(report, "conditions")
    if throttled := measured.get("throttled"):
        said.append(f"The machine was throttled: {', '.join(map(str, throttled))}.")
    return said + [str(note) for note in measured.get("notes") or ()]


def _cell(value: Any, interval: Sequence[float] | None = None) -> str:
    text = ms(value)
    return f"{text}<small>{ms(interval[0])} – {ms(interval[1])}</small>" if interval else text


def _swatch(stage: str) -> str:
    return f'<i class="swatch s-{escape(stage)}"></i>{escape(stage)}'


def _distribution(timings: _Timings | None) -> str:
    """How many frames took longer than so long: the tail, where a histogram has only empty bins."""
    if timings is None:
        return ""
    names = [name for name in (*timings.stages, "age") if timings.ms(name).max() > 0]
    curves = {name: np.sort(timings.ms(name)) for name in names}
    n = len(curves[names[-1]]) if names else 0
    if not n:
        return ""
    x = log_scale([float(values[k]) for values in curves.values() for k in (n // 50, n - 1)], decades=6)
    plot = Plot(x, Scale(1 / n, 1, log=True), "took longer than, ms", "share of frames", percent=True)
    drawn = "".join(plot.curve(_exceeded(values), f"s-{name}") for name, values in curves.items())
    return (
        "<h2>Distribution</h2><p>How many frames took longer than a time, both on logarithmic scales: a "
        "curve that falls steeply is steady, one with a long foot has outliers.</p>"
        + legend((name, f"s-{name}") for name in names)
        + plot.html(drawn, label="share of frames that took longer than a time, by stage")
    )


def _exceeded(ordered: Any) -> list[tuple[float, float]]:
    """(duration, share of frames that took at least as long), thinned out evenly on the logarithmic scale."""
    n = len(ordered)
    ranks = np.unique(np.geomspace(1, n, min(n, CURVE_POINTS)).astype(int))
    return [(float(ordered[n - rank]), rank / n) for rank in ranks[::-1]]


def _timeline(timings: _Timings | None) -> str:
    if timings is None:
        return ""
    at, ages = timings.seconds(), timings.ages
    high = float(ages.max())
    spread = high > 10 * float(np.median(ages))
    y = log_scale([float(ages.min()), high], decades=4) if spread else Scale(0, high * 1.08)
    plot = Plot(Scale(float(at[0]), float(at[-1])), y, "captured after, s", "age, ms")
    worst = _worst(timings)
    named = _apart([plot.x.at(float(at[row])) for row in worst])
    dots = "".join(
        plot.dot(
            float(at[row]),
            float(ages[row]),
            _guilt(timings, row),
            style="worst",
            word=str(timings.index(row)) if name else "",
        )
        for row, name in zip(worst, named, strict=True)
    )
    settled = float(at[int(np.argmax(timings.steady))])
    warm_up = plot.band(float(at[0]), settled, "warmup") if settled > at[0] else ""
    guilty = "".join(f"<li>{escape(_guilt(timings, row))}</li>" for row in worst)
    return (
        "<h2>Timeline</h2><p>The age of every frame"
        + (", the warm-up shaded" if warm_up else "")
        + ". The slowest, and what made them slow:</p>"
        + f"<ol>{guilty}</ol>"
        + plot.html(
            warm_up + plot.bars(_columns(at, ages), "s-age ticks"), dots, "age of every frame over time"
        )
    )


def _apart(places: Sequence[float]) -> list[bool]:
    """Which dots have room for their number: those that no earlier, slower one lies close to."""
    return [
        all(abs(place - other) > 0.07 for other in places[:position]) for position, place in enumerate(places)
    ]


def _columns(at: Any, ages: Any) -> list[tuple[float, float, float]]:
    """Each frame; where there are too many, the least and the largest age of each slice of time."""
    if len(ages) <= COLUMNS:
        return [(float(t), float(age), float(age)) for t, age in zip(at, ages, strict=True)]
    slices = zip(np.array_split(at, COLUMNS), np.array_split(ages, COLUMNS), strict=True)
    return [(float(t.mean()), float(of.min()), float(of.max())) for t, of in slices]


def _worst(timings: _Timings) -> list[int]:
    """Rows of the slowest steady frames, slowest first."""
    rows = np.flatnonzero(timings.steady)
    return [int(row) for row in rows[np.argsort(-timings.ages[rows])][:OUTLIERS]]


def _guilt(timings: _Timings, row: int) -> str:
    """`frame 213: 303 ms, of which decode 301 ms (usually 7.3 ms)`: the stage most above its median."""
    excess = {s: timings.columns[s][row] / 1e6 - float(np.median(timings.ms(s))) for s in timings.stages}
    stage = max(excess, key=lambda name: excess[name])
    usual = float(np.median(timings.ms(stage)))
    took = float(timings.columns[stage][row]) / 1e6
    return (
        f"frame {timings.index(row)}: {ms(float(timings.ages[row]))} ms, of which {stage} {ms(took)} ms "
        f"(usually {ms(usual)} ms)"
    )


def _waterfall(report: Report, timings: _Timings | None) -> str:
    """The stages of the frame with the median age; without rows, of medians, which need not add up."""
    if timings is not None:
        rows = np.flatnonzero(timings.steady)
        row = int(rows[np.argsort(timings.ages[rows])[len(rows) // 2]])
        took = {stage: float(timings.columns[stage][row]) / 1e6 for stage in timings.stages}
        text = f"Frame {timings.index(row)}, whose age is the median."
        models = {n: float(c[row]) / 1e6 for n, c in timings.columns.items() if "." in n}
    else:
        stages = part(report, "stages_ms")
        took = {s: float(stages[s]["p50"]) for s in STAGES if part(stages, s).get("p50") is not None}
        text, models = "The median of each stage; medians of parts need not add up to that of the whole.", {}
    whole = sum(took.values())
    if not whole:
        return ""
    return f"<h2>The median frame</h2><p>{text}</p>" + "".join(_bars_of(took, models, whole))


def _bars_of(took: Mapping[str, float], models: Mapping[str, float], whole: float) -> list[str]:
    bars, begin = [], 0.0
    several = len({name.rpartition(".")[0] for name in models}) > 1
    for stage, value in took.items():
        bars.append(_bar(stage, begin, value, whole, f"s-{stage}"))
        inner = begin
        for name, took_ms in models.items() if several and stage in MODEL_STAGES else ():
            model, _, of_stage = name.rpartition(".")
            if of_stage == stage:
                bars.append(_bar(model, inner, took_ms, whole, f"s-{stage} faint", "soft sub"))
                inner += took_ms
        begin += value
    return [*bars, bar_row("<b>age</b>", f"{ms(whole)} ms", [(0, 1, "s-age")])]


def _bar(name: str, begin: float, value: float, whole: float, style: str, label: str = "") -> str:
    text = f'<span class="{label}">{escape(name)}</span>' if label else escape(name)
    return bar_row(text, f"{ms(value)} ms", [(begin / whole, value / whole, style)])


def _cold_start(report: Report) -> str:
    parts = {
        name: float(value)
        for name, value in part(report, "cold_start_ms").items()
        if isinstance(value, int | float) and name != "second_inference"
    }
    whole = sum(parts.values())
    if not whole:
        return ""
    bars, begin = [], 0.0
    for name, value in parts.items():
        bars.append(_bar(name.replace("_", " "), begin, value, whole, "s-infer"))
        begin += value
    second = part(report, "cold_start_ms").get("second_inference")
    after = f" The second inference took {ms(second)} ms." if second is not None else ""
    return (
        f"<h2>Cold start</h2><p>From starting a process to its first result, {ms(whole)} ms.{after}</p>"
        + "".join(bars)
    )

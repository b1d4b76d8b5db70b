"""The page: self-contained, well formed, escaped, tolerant of what is missing, right about the outliers."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from edge.frame import STAGES
from edge.profiling.page import page
from edge.profiling.page_plots import Plot, Scale, log_scale, ms

VOID = {"meta", "path", "rect", "line", "circle", "br"}
HOSTILE = "<script>alert('x')</script>\"&"
USUAL_MS = dict(zip(STAGES, (5.0, 1.0, 2.0, 3.0, 0.5, 0.1), strict=True))


def rows_of(n: int) -> dict[str, list[int]]:
    """Frames with a little noise; the first ten are warm-up, number 1000 + 50 waits 200 ms for its inference."""
    random = np.random.default_rng(1)
    columns = {s: (m * 1e6 * random.uniform(0.9, 1.1, n)).astype(int) for s, m in USUAL_MS.items()}
    columns["infer"][50] = 200_000_000
    meta = {
        "index": np.arange(1000, 1000 + n),
        "round": np.zeros(n, int),
        "steady": (np.arange(n) >= 10).astype(int),
        "at": np.arange(n) * 33_000_000,
    }
    models = {f"{m}.{s}": columns[s] // 2 for m in ("faces", "masks") for s in STAGES[2:5]}
    return {name: column.tolist() for name, column in (meta | columns | models).items()}


def report_of(n: int = 300) -> dict[str, Any]:
    figures = {"p50": 3.0, "p99": 9.5, "p99.9": None, "mean": 3.2, "max": 200.0, "jitter": 0.4}
    layer = {"name": "n1", "kernel": "Conv", "keras": ["conv1"], "ms": 2.0, "macs": 10**6, "bytes": 10**4,
             "bound_ms": 0.5, "over_bound": 4.0}  # fmt: skip
    return {
        "schema_version": 2,
        "taken_at": "2026-01-01 12:00:00 UTC",
        "machine": {"os": "Debian", "cpu": HOSTILE, "jetson": None},
        "versions": {"numpy": "2.4.6"},
        "settings": {"models": [{"model": "faces"}, {"model": HOSTILE}], "source": HOSTILE, "lossless": True},
        "capture_clock": "file",
        "n": n - 10,
        "fps": 88.8,
        "stages_ms": dict.fromkeys((*STAGES, "age"), figures),
        "models_ms": {m: {s: {"p50": 1.0} for s in STAGES[2:5]} for m in ("faces", HOSTILE)},
        "ci95_ms": {"age": {"p50": [2.9, 3.1], "p99": None}},
        "frames_needed": {"p99.9": 10_000},
        "warm_up": {"frames": 10, "settled": False},
        "streaming": {"fps": 88.8, "ratio": 0.91},
        "open_loop": {"offered_fps": 30.0, "achieved_fps": 29.9},
        "cold_start_ms": {"interpreter": 30.0, "imports": 200.0, "first_inference": 9.0, "second_inference": 1.0},
        "memory_mb": {"peak": 180.0, "steady": 160.0},
        "sweep": {"option": "threads", "points": [{"value": 1, "n": 9, "fps": 50.0, "stages_ms": {"age": figures}}]},
        "conditions": {
            "throttled": ["thermal: 3 events"],
            "clocks_mhz": {"cpu0": {"before": 2000.0, "least": 1500.0, "mean": 1800.0, "most": 2000.0, "after": None}},
            "timeline": [{"t_s": 0.0}] * 2000,
            "notes": [HOSTILE],
        },
        "layers": {
            "backend": "onnx", "precision": "int8", "method": "a test", "runs": 10,
            "whole_ms": 5.0, "sum_ms": 4.5, "rest_ms": 0.5, "notes": [HOSTILE],
            "roofline": {"macs_per_s": 1e10, "bytes_per_s": 1e9, "source": "invented"},
            "layers": [layer, {**layer, "name": HOSTILE, "keras": [], "macs": 10**5}, {"name": "cast", "ms": 0.5}],
        },
        "rows": rows_of(n),
    }  # fmt: skip


class _Balance(HTMLParser):
    """Fails at a tag that is closed without being open; keeps the texts and what attributes point to."""

    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        if tag not in VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


def checked(report: dict[str, Any]) -> str:
    html = page(report)
    parser = _Balance()
    parser.feed(html)
    assert parser.open_tags == []
    assert parser.links == []
    assert "script" not in parser.seen
    assert "url(" not in html
    assert "@import" not in html
    for number in re.findall(r'd="([^"]*)"|style="([^"]*)"', html):
        assert "nan" not in "".join(number)
        assert "inf" not in "".join(number)
    return html


def test_every_section_is_there() -> None:
    html = checked(report_of())
    titles = re.findall(r"<h[123]>(.*?)</h[123]>", html)
    assert titles[1:] == [
        "Latency by stage, ms", "Distribution", "Timeline", "The median frame", "Layers of one inference",
        "Roofline", "Cold start", "By threads", "Frames at fixed times", "Streaming against its parts",
        "Machine and conditions", "What was run",
    ]  # fmt: skip
    assert HOSTILE not in html
    assert "p99.9 needs 10,000 frames" in html
    assert "throttled: thermal: 3 events" in html
    assert "did not settle" in html
    assert "<small>2.90 – 3.10</small>" in html


@pytest.mark.parametrize("missing", sorted(report_of()))
def test_what_is_not_there_is_left_out(missing: str) -> None:
    report = report_of()
    del report[missing]
    checked(report)
    checked(report | {missing: None})


def test_an_empty_report_is_an_empty_page() -> None:
    assert "Sightline" in checked({})


def test_outliers_are_named_with_their_stage() -> None:
    html = checked(report_of())
    worst = re.search(r"<ol><li>(.*?)</li>", html)
    assert worst is not None
    assert worst[1].startswith("frame 1050: 209 ms, of which infer 200 ms (usually ")


def test_the_median_frame_adds_up() -> None:
    html = checked(report_of())
    section = html[html.index("The median frame") : html.index("Layers of one inference")]
    shown = {
        name: float(value) for name, value in re.findall(r"<span>(\w+)</span>.*?<span>([\d.]+) ms", section)
    }
    assert sum(shown[stage] for stage in STAGES) == pytest.approx(sum(USUAL_MS.values()), abs=0.6)
    assert section.count("masks") == 3


def test_without_rows_medians_are_drawn_and_said_to_be() -> None:
    html = checked(report_of() | {"rows": None})
    assert "medians of parts need not add up" in html
    assert "Timeline" not in html


def test_a_long_run_makes_no_large_page() -> None:
    assert len(checked(report_of(30_000))) < 200_000


@pytest.mark.parametrize("n", [1, 2, 11, 60])
def test_short_runs_are_drawn_as_far_as_they_go(n: int) -> None:
    report = report_of(60)
    report["rows"] = {name: column[:n] for name, column in report["rows"].items()}
    checked(report)


def test_times_of_zero_have_no_place_on_a_logarithm() -> None:
    report = report_of()
    report["rows"]["wait"] = [0] * 300
    report["rows"]["publish"] = [0] * 299 + [5]
    checked(report)


def test_scales() -> None:
    assert Scale(0, 10).ticks() == [0, 2, 4, 6, 8, 10]
    assert (
        Scale(0.9, 120, log=True).ticks()[:4] == [1, 10, 100][:4]
        or len(Scale(0.9, 120, log=True).ticks()) > 3
    )
    assert Scale(1, 100, log=True).at(10) == pytest.approx(0.5)
    assert Scale(1, 100, log=True).at(0.001) == 0
    assert Scale(3, 3).at(3) == 0
    assert log_scale([0.0, 0.0]).high > log_scale([0.0]).low > 0
    assert log_scale([1e-12, 1.0], decades=3).low == pytest.approx(1.15e-3)
    assert len(Scale(0, 66.6).ticks()) in range(4, 9)


def test_curves_stay_inside() -> None:
    plot = Plot(Scale(0, 1), Scale(0, 1), "x", "y")
    assert plot.curve([(0, 0), (2, 2)], "a") == '<path class="curve a" d="M0.0 1000.0 L1000.0 0.0"/>'
    assert plot.curve([], "a") == ""


def test_figures_have_three_digits_that_count() -> None:
    assert [ms(v) for v in (1234.5, 99.94, 9.876, 0.01234, None, "?")] == [
        "1,234",
        "99.9",
        "9.88",
        "0.012",
        "–",
        "–",
    ]

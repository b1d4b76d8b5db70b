"""`/metrics` for Prometheus: the snapshot's figures, in base units, in a bounded number of series.

The names of cameras and models are the only labels that a user chooses. There are at most
`MOST_CAMERAS` and `MOST_MODELS` of them; `sightline_series_left_out` counts those beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from edge.web.live import LiveSink
from edge.web.state import CameraView, Latency, Percentiles, SinkView, Snapshot, Snapshots

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_CAMERAS = 32
MOST_MODELS = 16
QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "p99_9": "0.999", "max": "1"}

_Families = Iterator[Metric]

_COUNTERS: tuple[tuple[str, str, Callable[[CameraView], int]], ...] = (
    ("frames_captured", "Frames that came from the camera.", lambda c: c.captured),
    ("frames_processed", "Frames with a result.", lambda c: c.processed),
    ("frames_dropped", "Frames without a result, for whatever reason.", lambda c: c.dropped),
    ("frames_lost_before", "Frames lost in the decoder's process.", lambda c: c.lost_before),
    ("camera_reconnects", "Times that the camera came back.", lambda c: c.reconnects),
)
_GAUGES: tuple[tuple[str, str, Callable[[CameraView], float | None]], ...] = (
    ("camera_up", "1 while results come.", lambda c: float(c.is_live)),
    ("camera_state_seconds", "Since the camera's state changed.", lambda c: c.since_s),
    ("camera_results_per_second", "Results a second.", lambda c: c.fps),
    (
        "frame_age_seconds",
        "From capture to publication, of the last frame.",
        lambda c: None if c.age_ms is None else c.age_ms / 1e3,
    ),
)


class Exposition:
    """The text of `/metrics`. Each one has a registry of its own: several servers do not meet."""

    def __init__(self, snapshots: Snapshots, live: LiveSink) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_StreamCollector(snapshots, live))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """In Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)


class _StreamCollector(Collector):
    """Reads everything when it is asked, so that what is scraped cannot differ from what the page shows."""

    def __init__(self, snapshots: Snapshots, live: LiveSink) -> None:
        self._snapshots = snapshots
        self._live = live

    def describe(self) -> Iterable[Metric]:
        """Nothing: it must not ask a daemon that has yet to start."""
        return ()

    def collect(self) -> _Families:
        """All families of one snapshot."""
        seen = self._snapshots.newest()
        cameras, models = seen.cameras[:MOST_CAMERAS], seen.models[:MOST_MODELS]
        yield from _of_process(seen, self._live)
        yield from _of_cameras(cameras)
        yield from _of_sinks(seen.sinks)
        names = {model.name for model in models}
        yield from _of_stages(
            {c.name: seen.latency[c.name] for c in cameras if c.name in seen.latency}, names
        )
        left_out = len(seen.cameras) - len(cameras) + len(seen.models) - len(models)
        yield _gauge("series_left_out", "Cameras and models beyond the bound of the labels.", left_out)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"sightline_{name}", text, value=value)


def _of_process(seen: Snapshot, live: LiveSink) -> _Families:
    yield _gauge("uptime_seconds", "Since the daemon started.", seen.uptime_s)
    yield _gauge("ready", "1 while a model is loaded and a camera gives results.", seen.ready)
    build = GaugeMetricFamily("sightline_build_info", "The version that runs.", labels=("version",))
    build.add_metric((seen.version,), 1)
    yield build
    info = GaugeMetricFamily(
        "sightline_model_info",
        "The backend that each model runs on.",
        labels=("model", "backend", "precision"),
    )
    for model in seen.models[:MOST_MODELS]:
        info.add_metric((model.name, model.backend, model.precision), 1)
    yield info
    yield _gauge("viewers", "Who watch live pictures.", live.viewers)
    yield CounterMetricFamily("sightline_live_pictures", "Encoded for viewers.", value=live.encoded)


def _of_sinks(sinks: Sequence[SinkView]) -> _Families:
    lost = CounterMetricFamily(
        "sightline_sink_lost", "Results or events that a sink did not take.", labels=("sink",)
    )
    up = GaugeMetricFamily(
        "sightline_sink_up", "0 while something is wrong with it; the page says what.", labels=("sink",)
    )
    for sink in sinks:
        lost.add_metric((sink.name,), sink.lost)
        up.add_metric((sink.name,), float(not sink.last_error))
    yield lost
    yield up


def _of_cameras(cameras: Sequence[CameraView]) -> _Families:
    for name, text, count in _COUNTERS:
        counter = CounterMetricFamily(f"sightline_{name}", text, labels=("camera",))
        for camera in cameras:
            counter.add_metric((camera.name,), count(camera))
        yield counter
    reasons = CounterMetricFamily(
        "sightline_frames_dropped_for", "The dropped frames by reason.", labels=("camera", "reason")
    )
    for camera in cameras:
        for reason, count_of in sorted(camera.dropped_for.items()):
            reasons.add_metric((camera.name, reason), count_of)
    yield reasons
    for name, text, read in _GAUGES:
        gauge = GaugeMetricFamily(f"sightline_{name}", text, labels=("camera",))
        for camera in cameras:
            if (reading := read(camera)) is not None:
                gauge.add_metric((camera.name,), reading)
        yield gauge


def _of_stages(latency: Mapping[str, Latency], models: set[str]) -> _Families:
    stages = Metric(
        "sightline_stage_seconds",
        "Duration of each stage since the start; stage 'age' is the whole.",
        "summary",
    )
    parts = Metric("sightline_model_stage_seconds", "Each model's part of the stages.", "summary")
    for camera, of_camera in latency.items():
        _add(stages, {"camera": camera}, of_camera.stages)
        for model in sorted(models & of_camera.models.keys()):
            _add(parts, {"camera": camera, "model": model}, of_camera.models[model])
    yield stages
    yield parts


def _add(family: Metric, labels: dict[str, str], stages: Mapping[str, Percentiles]) -> None:
    for stage, of_stage in stages.items():
        for field, quantile in QUANTILES.items():
            value = getattr(of_stage, field)
            if value is not None:
                place = {**labels, "stage": stage, "quantile": quantile}
                family.add_sample(family.name, place, value / 1e3)

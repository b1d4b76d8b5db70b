"""What the pipeline takes of memory: next to nothing anew for each frame, and little in all."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from edge.cascade import Cascade
from edge.config import StreamSettings
from edge.frame import Frame
from edge.pipeline import Limits, Pipeline
from edge.profiler import StageRecorder
from edge.profiling import memory
from edge.profiling.sources import Repeated
from edge.protocols import SourceInfo
from edge.results import FrameResult
from edge.sinks.jsonl import JsonlSink
from edge.sources import open_source

MOST_A_FRAME = 80_000
"""Bytes that a frame may take for the time of its processing; it was 52,000. The heads of the face detector are
25,000 of them, and so is what is gathered from them. A frame has 2,764,800, the detector's input 184,320."""

MOST_THAT_STAY = 40_000
"""Bytes after 300 frames that were not there before: lines and packets in flight, and nothing of each frame."""

WARM_UP, FRAMES = 30, 300


class Watch:
    """A sink, the last one: the most that was allocated at once between two frames, and what there is after each."""

    def __init__(self) -> None:
        self.frames = 0
        self.peaks, self.after = np.zeros((2, WARM_UP + FRAMES), np.int64)

    def open(self, source: SourceInfo) -> None: ...

    def write(self, frame: Frame, result: FrameResult) -> None:
        present, peak = tracemalloc.get_traced_memory()
        if self.frames + 1 in (WARM_UP, WARM_UP + FRAMES):
            gc.collect()
            present = tracemalloc.get_traced_memory()[0]
        before = self.after[self.frames - 1] if self.frames else 0
        self.peaks[self.frames], self.after[self.frames] = peak - before, present
        self.frames += 1
        tracemalloc.reset_peak()

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 frames of the demo's pictures as H.264, 1280x720 at 120 a second."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    source, frame = open_source("demo://?frames=20"), Frame()
    info = source.open()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=120, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, "yuv420p"
        while source.read(frame):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")))
        container.mux(stream.encode(None))
    source.close()
    return path


@pytest.mark.parametrize("lossless", [True, False])
def test_no_frame_allocates_more_than_its_heads(clip: Path, tmp_path: Path, lossless: bool) -> None:
    """The real way: H.264, both shipped int8 models, the histograms and a file of results."""
    watch = Watch()
    sinks = [JsonlSink(tmp_path / "results.jsonl"), StageRecorder(), watch]
    source = Repeated(open_source(str(clip)))
    with closing(Cascade.open(StreamSettings().chosen())) as models:
        pipeline = Pipeline(source, models, sinks, Limits(frames=WARM_UP + FRAMES), lossless)
        tracemalloc.start()
        try:
            pipeline.run()
        finally:
            tracemalloc.stop()
    assert watch.frames == WARM_UP + FRAMES
    assert watch.peaks[WARM_UP:].max() <= MOST_A_FRAME
    assert watch.after[-1] - watch.after[WARM_UP - 1] <= MOST_THAT_STAY


MOST_MB = 200.0
"""Resident, MB of 10^6 bytes, of the daemon with both shipped models and one camera of 1280x720."""

_SERVE = """
import sys
from edge.profiling.memory import resident_mb
from sightline import main
sys.argv = ["sightline", "run", sys.argv[1], "--quiet"]
try:
    main()
finally:
    print(resident_mb()[0])
"""


@pytest.mark.skipif(not memory.STATUS.is_file(), reason="the system tells no memory")
def test_a_daemon_is_small(clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "door.toml"
    config.write_text(f"""
frames = 60
[[cameras]]
name = "door"
source = "{clip}"
reopen = true
[web]
port = 0
[sinks.events]
path = "{tmp_path / "events.sqlite"}"
""")
    done = subprocess.run([sys.executable, "-c", _SERVE, str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) <= MOST_MB

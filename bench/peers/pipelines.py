"""The pipelines that users come from, as they are commonly written: one process, one loop, one face model.

    PYTHON bench/peers/pipelines.py ENTRANT CLIP MODEL FRAMES

Run by `bench/pipelines.py`, each entrant with the interpreter of an environment of its own; so nothing of Sightline
is imported here but by `ours`. Prints one JSON object: frames a second as fast as it goes, milliseconds of
processor time a frame meanwhile, the 99th percentile of the age at 30 frames a second, and the peak of memory.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

RATE = 30.0
WARM_UP = 30
LONG_SIDE = 320


class OpenCvReader:
    """`cv2.VideoCapture` as everybody writes it, from the beginning again at the end."""

    def __init__(self, clip: str) -> None:
        import cv2

        self._cv2, self._clip = cv2, clip
        self._capture = cv2.VideoCapture(clip)

    def read(self) -> Any:
        """The next picture, BGR."""
        ok, picture = self._capture.read()
        if not ok:
            self._capture = self._cv2.VideoCapture(self._clip)
            _, picture = self._capture.read()
        return picture


class FaceDetectorYn(OpenCvReader):
    """OpenCV's own: YuNet through cv2.dnn, of the picture at 320x180."""

    def __init__(self, clip: str, model: str) -> None:
        super().__init__(clip)
        self._detector = self._cv2.FaceDetectorYN.create(model, "", (LONG_SIDE, LONG_SIDE * 9 // 16), 0.5)

    def step(self) -> int:
        """Read and detect; how many faces."""
        small = self._cv2.resize(self.read(), (LONG_SIDE, LONG_SIDE * 9 // 16))
        _, faces = self._detector.detect(small)
        return 0 if faces is None else len(faces)


class OnnxLoop(OpenCvReader):
    """YuNet through ONNX Runtime with its default options, and cv2's suppression."""

    def __init__(self, clip: str, model: str) -> None:
        super().__init__(clip)
        import numpy
        import onnxruntime

        self._np = numpy
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def step(self) -> int:
        """Read and detect; how many faces."""
        np, cv2 = self._np, self._cv2
        padded = np.zeros((192, LONG_SIDE, 3), np.float32)
        padded[:180] = cv2.resize(self.read(), (LONG_SIDE, 180))
        found = self._session.run(None, {"input": padded.transpose(2, 0, 1)[None]})
        heads, boxes, scores = dict(zip(self._names, found, strict=True)), [], []
        for stride in (8, 16, 32):
            score = np.sqrt(heads[f"cls_{stride}"] * heads[f"obj_{stride}"]).reshape(-1)
            cell = np.arange(len(score))
            corner = np.column_stack([cell % (LONG_SIDE // stride), cell // (LONG_SIDE // stride)])
            delta = heads[f"bbox_{stride}"].reshape(-1, 4)
            centre, size = (corner + delta[:, :2]) * stride, np.exp(delta[:, 2:]) * stride
            boxes.append(np.concatenate([centre - size / 2, size], axis=1))
            scores.append(score)
        kept = cv2.dnn.NMSBoxes(np.concatenate(boxes).tolist(), np.concatenate(scores).tolist(), 0.5, 0.45)
        return len(kept)


class MediaPipe(OpenCvReader):
    """MediaPipe's short-range face detector, which its wheel brings along (to 0.10.21)."""

    def __init__(self, clip: str, model: str) -> None:
        super().__init__(clip)
        import mediapipe

        self._detector = mediapipe.solutions.face_detection.FaceDetection(min_detection_confidence=0.5)

    def step(self) -> int:
        """Read and detect; how many faces."""
        found = self._detector.process(self._cv2.cvtColor(self.read(), self._cv2.COLOR_BGR2RGB))
        return len(found.detections or ())


LOOPS = {"FaceDetectorYN": FaceDetectorYn, "ONNX Runtime": OnnxLoop, "MediaPipe": MediaPipe}


def measure_loop(loop: Any, frames: int) -> dict[str, float]:
    """As fast as it goes, then with frames that are due at fixed times."""
    for _ in range(WARM_UP):
        loop.step()
    begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
    faces = sum(loop.step() > 0 for _ in range(frames))
    seconds, cpu_s = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
    ages, begin_s = [], time.perf_counter()
    for number in range(frames):
        due_s = begin_s + number / RATE
        time.sleep(max(0.0, due_s - time.perf_counter()))
        loop.step()
        ages.append(time.perf_counter() - due_s)
    return figures(frames / seconds, cpu_s / frames, ages, faces / frames)


def measure_ours(clip: str, bundle: str, frames: int) -> dict[str, float]:
    """Sightline's own stream; in it a frame's age counts from when it was due, too."""
    from edge.cascade import Cascade
    from edge.config import StreamSettings
    from edge.profiling.measure import Wanted, stream

    settings = StreamSettings(source=clip).changed({}, (bundle,))
    models = Cascade.open(settings.chosen())
    stream(settings, models, Wanted(frames=WARM_UP))
    begin_cpu_s = time.process_time()
    fast = stream(settings, models, Wanted(frames=frames))
    cpu_s = time.process_time() - begin_cpu_s
    columns = stream(settings, models, Wanted(frames=frames, rate=RATE)).timings.columns
    stages = ("decode", "wait", "preprocess", "infer", "postprocess", "publish")
    ages = sum(columns[stage] for stage in stages) / 1e9
    return figures(fast.fps, cpu_s / frames, ages.tolist(), float("nan"))


def figures(fps: float, cpu_s: float, ages_s: list[float], faces: float) -> dict[str, float]:
    """What is printed; `faces` is the share of frames with one, to see that something was detected."""
    worst = sorted(ages_s)[-(-99 * len(ages_s) // 100) - 1]
    peak = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    megabytes = int(peak[1]) * 1024 / 1e6 if peak else float("nan")
    return {
        "frames a second": fps,
        "p99 age, ms": worst * 1e3,
        "memory, MB": megabytes,
        "processor, ms a frame": cpu_s * 1e3,
        "frames with a face": faces,
    }


def main(entrant: str, clip: str, model: str, frames: str) -> None:
    """Measure one entrant."""
    if entrant == "Sightline":
        found = measure_ours(clip, model, int(frames))
    else:
        found = measure_loop(LOOPS[entrant](clip, model), int(frames))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

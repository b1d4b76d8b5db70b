"""The literal registries of the edge: name -> import string, imported on use."""

from __future__ import annotations

import importlib
from typing import Any

RUNNERS = {
    "tflite": "edge.runners.tflite:TfliteRunner",
    "onnx": "edge.runners.onnx:OnnxRunner",
    "onnx-cuda": "edge.runners.onnx:OnnxCudaRunner",
    "tensorrt": "edge.runners.tensorrt:TensorrtRunner",
}

TASKS = {
    "classification": "edge.tasks.classification:ClassificationTask",
    "faces": "edge.tasks.faces:FacesTask",
}

SOURCES = {
    "demo": "edge.sources.demo:DemoSource",
    "video": "edge.sources.video:VideoSource",
    "images": "edge.sources.images:ImagesSource",
    "camera": "edge.camera.source:CameraSource",
    "fault": "edge.sources.fault:FaultSource",
}

SINKS = {
    "terminal": "edge.sinks.terminal:TerminalSink",
    "jsonl": "edge.sinks.jsonl:JsonlSink",
    "video": "edge.sinks.video:VideoSink",
    "events": "edge.sinks.events:EventsSink",
    "mqtt": "edge.sinks.mqtt:MqttSink",
    "snapshots": "edge.sinks.snapshots:SnapshotSink",
}


def resolve(import_string: str) -> Any:
    """The object that `module:name` names."""
    module, _, name = import_string.partition(":")
    return getattr(importlib.import_module(module), name)

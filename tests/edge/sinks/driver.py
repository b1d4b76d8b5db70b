"""A stream of events into a sink, as fast as it takes them, until killed.

    driver.py events|mqtt SETTINGS.json CAMERA

Prints how many events are stored, one number a line, whenever it has grown.
"""

from __future__ import annotations

import sys
import time
from itertools import count
from pathlib import Path

from stage import INFO, faces, frame_at

from edge.sinks.events import EventsSettings, EventsSink
from edge.sinks.mqtt import MqttSettings, MqttSink


def main(kind: str, settings: str, camera: str) -> None:
    text = Path(settings).read_text()
    sink: EventsSink | MqttSink
    if kind == "events":
        sink = EventsSink(EventsSettings.model_validate_json(text))
    else:
        sink = MqttSink(MqttSettings.model_validate_json(text))
    sink.open(INFO)
    told = 0
    for track in count(1):
        sink.write(frame_at(track / 100, camera), faces(track))
        if sink.stored > told:
            told = sink.stored
            print(told, flush=True)
        time.sleep(0.0005)


if __name__ == "__main__":
    main(*sys.argv[1:])

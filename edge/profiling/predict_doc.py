"""Writes docs/prediction.md:  python -m edge.profiling.predict_doc > docs/prediction.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from edge.profiling.devices import DEVICES, Device
from edge.profiling.predict import Error, figures_for, fit_cycles, left_out_errors
from edge.profiling.published import FIGURES, NETWORKS

HEAD = """# Predictions for devices that are not here

Written by `python -m edge.profiling.predict_doc > docs/prediction.md`; do not edit.

**No device was run for anything on this page.** `sightline profile BUNDLE --predict orin-nano` computes a
latency on paper, from the layers of the bundle and the data sheet of the device:

    t = sum over layers of max(MACs / peak, bytes / bandwidth)  +  kernels * cycles / clock

The first term is the roofline at dense peak rates, every weight, input and output moved once. The second
is what a kernel takes however little it does. `cycles` is the only figure that is fitted, one for each
family of GPUs, by least squares of the relative error over the published latencies below.
"""

ERRORS = """
## How wrong it is where the truth is published

Each figure is predicted from the other devices of its family alone. Published: MLPerf Inference, closed
division, edge, SingleStream, mean latency of one picture, int8, TensorRT on the GPU; read from the logs
in mlcommons/inference_results_* (`mlperf_log_summary.txt`).

| device | network | published ms | predicted ms | error | cycles of the fit | fitted to | source |
|---|---|--:|--:|--:|--:|---|---|
"""

LIMITS = """
What to make of these errors:

* They are six figures of four devices and two networks. The form of the model was chosen after a look at
  a dozen others (one launch time in microseconds, an efficiency of the roofline by family, arithmetic and
  memory added, and combinations) for having the least mean error left out, so it flatters itself.
* Orin's own errors are small because Orin's figures agree with each other; Xavier's two networks do not
  agree with each other on one board (MLPerf v1.1 and v2.0 are two software stacks). The range shown with a
  prediction is that of all six.
* All are int8, of networks of 1.2 and 4.1 G MACs, at the highest clocks. Nothing checks fp16, a lower
  power mode, or our own networks, which are hundreds of times smaller and are nearly all kernels that do little.
* Not used: throughputs of GPU and DLA together, figures of OpenCV's runtime, figures of networks whose
  layers are not in `edge/profiling/published.py`. There is no published figure for Thor's or a Raspberry
  Pi's family, so nothing is predicted for these.
"""

TABLE = """
## The devices

Rates are dense, in 10^12 operations a second (two a MAC), at the highest clock; "-" where no data sheet
says it or TensorRT has no such arithmetic there. The names are those that `--predict` takes. A source is
where a figure is published: when this table was written, only the Orin Nano's data sheet was looked at again,
the others are from notes.

| name | device | GPU | GHz | int8 | fp16 | fp32 | GB/s | power modes | runs Sightline | predicted | source |
|---|---|---|--:|--:|--:|--:|--:|---|---|---|---|
"""


def document() -> str:
    """The page."""
    errors = "".join(f"{_error(error)}\n" for error in left_out_errors())
    devices = "".join(f"{_device(key, device)}\n" for key, device in DEVICES.items())
    return f"{HEAD}\n{''.join(_networks())}{ERRORS}{errors}{LIMITS}{TABLE}{devices}"


def _networks() -> Iterator[str]:
    yield "| network | MACs | numbers moved | kernels |\n|---|--:|--:|--:|\n"
    for name, network in NETWORKS.items():
        works = network()
        macs, moved = sum(work.macs for work in works), sum(work.elements for work in works)
        yield f"| {name} | {macs / 1e6:.0f} M | {moved / 1e6:.1f} M | {sum(w.launches for w in works)} |\n"


def _error(error: Error) -> str:
    figure, seen = error.figure, figures_for(error.figure.device)
    fitted = ", ".join(dict.fromkeys(f.device for f in seen))
    cells = (
        figure.device,
        figure.network,
        f"{figure.ms:.3f}",
        f"{error.predicted_ms:.3f}",
        f"{error.relative:+.1%}",
        f"{fit_cycles(seen):.0f}",
        fitted,
        figure.source,
    )
    return f"| {' | '.join(cells)} |"


def _device(key: str, device: Device) -> str:
    rates = ("-" if rate is None else f"{rate:g}" for rate in (device.int8, device.fp16, device.fp32))
    modes = ", ".join(device.power_modes) or "-"
    predicted = (
        "yes" if device.int8 and any(DEVICES[f.device].family == device.family for f in FIGURES) else "no"
    )
    runs = "yes" if device.supported else "no"
    return (
        f"| `{key}` | {device.name} | {device.family} | {device.ghz:g} | {' | '.join(rates)} "
        f"| {device.gb_per_s:g} | {modes} | {runs} | {predicted} | {device.source} |"
    )


if __name__ == "__main__":
    sys.stdout.write(document())

"""Devices that are not here: what their makers say they can do.

Rates are dense (a Jetson's marketed TOPS count sparse networks, and on most boards DLA and GPU
together) and at the highest clock of the named mode. Tensor cores multiply `cores x K x clock` a
second: K is 1024 operations on Orin, 256 on Xavier, half of it in fp16; fp32 is two operations for
each CUDA core and clock. A figure that no data sheet gives is None, and nothing is predicted from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.bundle import Precision
from edge.errors import InputError
from edge.profiling.roofline import Roofline

ORIN_NANO = "Jetson Orin Nano Series data sheet"
ORIN_NX = "Jetson Orin NX Series data sheet, DS-10712-001"
AGX_ORIN = "Jetson AGX Orin Series technical brief and data sheet"
SUPER = "NVIDIA's announcement of JetPack 6.2 and its Super modes"
XAVIER = "Jetson Xavier NX and AGX Xavier data sheets"


@dataclass(frozen=True)
class Device:
    """One module.

    Attributes:
        family: of its GPU (`Ampere` ...); `CPU` for one without a GPU that we could use.
        ghz: highest clock of what computes.
        int8, fp16, fp32: operations a second, dense, in 10^12; None where no data sheet says.
        gb_per_s: of its memory, in 10^9 bytes.
        power_modes: as nvpmodel names them.
        supported: whether Sightline runs there, see `edge.machine.FLOOR_L4T`.
        source: where the figures are from.
    """

    name: str
    family: str
    ghz: float
    int8: float | None
    fp16: float | None
    fp32: float | None
    gb_per_s: float
    power_modes: tuple[str, ...]
    supported: bool
    source: str

    def roofline(self, precision: Precision) -> Roofline | None:
        """Its bound in a precision; None where its rate is not known or it has no such arithmetic."""
        tera_ops = {"int8": self.int8, "fp16": self.fp16, "fp32": self.fp32}[precision]
        return None if tera_ops is None else Roofline(tera_ops * 1e12 / 2, self.gb_per_s * 1e9, self.source)


def _tensor_cores(cores: int, ghz: float, operations: int) -> tuple[float, float]:
    """int8 and fp16 rates in 10^12 a second."""
    int8 = cores * operations * ghz / 1e3
    return round(int8, 1), round(int8 / 2, 2)


def _orin(name: str, cuda: int, ghz: float, gb_per_s: float, modes: str, source: str) -> Device:
    """An Ampere GPU has a tensor core for 32 CUDA cores."""
    int8, fp16 = _tensor_cores(cuda // 32, ghz, 1024)
    fp32 = round(cuda * 2 * ghz / 1e3, 2)
    return Device(name, "Ampere", ghz, int8, fp16, fp32, gb_per_s, tuple(modes.split()), True, source)


DEVICES: dict[str, Device] = {
    "jetson-nano": Device(
        "Jetson Nano",
        "Maxwell",
        0.921,
        None,  # no int8 in TensorRT
        0.472,
        0.236,
        25.6,
        ("MAXN", "5W"),
        False,
        "Jetson Nano data sheet",
    ),
    "jetson-tx2": Device(
        "Jetson TX2",
        "Pascal",
        1.3,
        None,  # no int8 in TensorRT
        1.33,
        0.665,
        59.7,
        ("MAXN", "MAXQ", "MAXP_CORE_ALL"),
        False,
        "Jetson TX2 Series data sheet",
    ),
    "xavier-nx": Device(
        "Jetson Xavier NX",
        "Volta",
        1.1,
        *_tensor_cores(48, 1.1, 256),
        0.84,
        59.7,
        ("10W", "15W", "20W"),
        False,
        XAVIER,
    ),
    "agx-xavier": Device(
        "Jetson AGX Xavier",
        "Volta",
        1.377,
        *_tensor_cores(64, 1.377, 256),
        1.41,
        136.5,
        ("MAXN", "10W", "15W", "30W"),
        False,
        XAVIER,
    ),
    "orin-nano-4": _orin("Jetson Orin Nano 4GB", 512, 0.625, 34.0, "10W 7W", ORIN_NANO),
    "orin-nano-4-super": _orin("Jetson Orin Nano 4GB Super", 512, 1.02, 51.0, "25W 10W", SUPER),
    "orin-nano": _orin("Jetson Orin Nano 8GB", 1024, 0.625, 68.0, "15W 7W", ORIN_NANO),
    "orin-nano-super": _orin("Jetson Orin Nano 8GB Super", 1024, 1.02, 102.0, "MAXN_SUPER 25W 15W", SUPER),
    "orin-nx-8": _orin("Jetson Orin NX 8GB", 1024, 0.765, 102.4, "MAXN 10W 15W 20W", ORIN_NX),
    "orin-nx-8-super": _orin("Jetson Orin NX 8GB Super", 1024, 1.173, 102.4, "MAXN_SUPER 40W", SUPER),
    "orin-nx-16": _orin("Jetson Orin NX 16GB", 1024, 0.918, 102.4, "MAXN 10W 15W 25W", ORIN_NX),
    "orin-nx-16-super": _orin("Jetson Orin NX 16GB Super", 1024, 1.173, 102.4, "MAXN_SUPER 40W", SUPER),
    "agx-orin-32": _orin("Jetson AGX Orin 32GB", 1792, 0.93, 204.8, "MAXN 15W 30W 40W", AGX_ORIN),
    "agx-orin-64": _orin("Jetson AGX Orin 64GB", 2048, 1.3, 204.8, "MAXN 15W 30W 50W", AGX_ORIN),
    "thor": Device(
        "Jetson AGX Thor (T5000)",
        "Blackwell",
        1.574,
        None,  # marketed in sparse FP4 alone
        None,
        8.06,  # 2560 CUDA cores
        273.0,
        ("MAXN", "120W"),
        True,
        "Jetson Thor data sheet; clock of tegrastats on R39",
    ),
    "raspberry-pi-4": Device(
        "Raspberry Pi 4",
        "CPU",
        1.5,
        None,
        None,
        None,
        12.8,  # LPDDR4-3200, 32 bits
        (),
        True,
        "Raspberry Pi 4 product brief",
    ),
    "raspberry-pi-5": Device(
        "Raspberry Pi 5",
        "CPU",
        2.4,
        0.614,  # 4 cores x 2 pipes x SDOT of 16 products
        0.307,
        0.154,  # 4 cores x 2 pipes x FMLA of 4 products
        17.1,  # LPDDR4X-4267, 32 bits
        (),
        True,
        "Raspberry Pi 5 product brief; Arm Cortex-A76 software optimisation guide",
    ),
}
"""By the name that `--predict` takes."""


def device(key: str) -> Device:
    """One of the table.

    Raises:
        InputError: no such device.
    """
    if key not in DEVICES:
        raise InputError(f"No device '{key}' in the table. It has: {', '.join(DEVICES)}.")
    return DEVICES[key]

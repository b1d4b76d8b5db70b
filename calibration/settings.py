"""What a calibration is asked to do."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, field_validator

from calibration.ranges import range_method
from calibration.samples import By
from edge.bundle import TaskName

DEFAULT_METHOD = "percentile:99.99"
METHOD_OF_TASK: dict[TaskName, str] = {"classification": DEFAULT_METHOD, "faces": "minmax"}
"""Unless the call names one. A detector's rare large values are its faces: cutting off the largest
0.01 % cost `models/face.keras` 1.2 (TFLite) to 1.5 points (ONNX) of AP50 at 320x320."""


class Settings(BaseModel):
    """Range method, choice of images and repairs.

    Attributes:
        sample: how the images are chosen, see `calibration.samples`.
        method: of the ranges, see `calibration.ranges`.
        equalise: balance the channels of neighbouring layers, see `calibration.equalise`.
        through_swish: and through swish and hard-swish, which costs a layer each, see `calibration.gates`.
        adaround: learn which way each weight rounds, see `calibration.adaround`.
        bias_correction: take the mean error of each layer out of its bias, see `calibration.calibrate`.
        qat: the weights were trained with these ranges and with rounding, see `calibration.qat`.
        float_layers: convolutions that stay in float, with the activation that is fused into each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = DEFAULT_METHOD
    sample: By = "balanced"
    equalise: bool = False
    through_swish: bool = False
    adaround: bool = False
    bias_correction: bool = False
    qat: bool = False
    float_layers: tuple[str, ...] = ()

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        range_method(method)
        return method

    def __str__(self) -> str:
        """As reports and manifests name it: the method, the repairs, the training, and what stays in float."""
        words = [self.method, *(word for name, word in _WORDS.items() if getattr(self, name))]
        return ", ".join(words) + (f", in float: {', '.join(self.float_layers)}" if self.float_layers else "")


_WORDS = {
    "equalise": "equalise",
    "through_swish": "through swish",
    "adaround": "adaround",
    "bias_correction": "bias correction",
    "qat": "quantization-aware training",
}

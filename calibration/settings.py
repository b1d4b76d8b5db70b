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
        adaround: learn which way each weight rounds, see `calibration.adaround`.
        bias_correction: take the mean error of each layer out of its bias, see `calibration.bias`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = DEFAULT_METHOD
    sample: By = "balanced"
    equalise: bool = False
    adaround: bool = False
    bias_correction: bool = False

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        range_method(method)
        return method

    def __str__(self) -> str:
        """As reports and manifests name it: the method, then the repairs."""
        repairs = ("equalise", "adaround", "bias_correction")
        return ", ".join([self.method, *(name.replace("_", " ") for name in repairs if getattr(self, name))])

"""What a report is made of: a classifier's answers and, where it is there, the Keras model behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.pixels import Image
from train.card import Card
from train.curves import History
from train.data import LabelledImages
from train.ensemble import Member
from train.pictures.mistakes import Counts, Mistake

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Evidence:
    """What was measured.

    Attributes:
        name: of the model; ran: backend and precision; remark: of the images, which they are.
        labels: one name a class, in the order of the probabilities.
        images: that were answered; answers: to these.
        card: of the Keras model, for the curves and the costs; None where there is none.
        network: the Keras model, for filters and maps; None where it is not there, and `no_network` says why.
        picture: uint8 (H, W, 3) RGB of the model's input size, that the layers are shown for; picture_name: what it is.
    """

    name: str
    ran: str
    remark: str
    labels: tuple[str, ...]
    images: LabelledImages
    answers: Member
    card: Card | None
    network: keras.Model | None
    no_network: str
    picture: Image
    picture_name: str

    @property
    def title(self) -> str:
        """What ran on what: above every picture."""
        return f"{self.name}, {self.ran}, {self.images.source}"

    @property
    def history(self) -> History:
        """The metrics of each epoch; empty where they were not kept."""
        return (self.card.history if self.card else None) or ()


@dataclass(frozen=True)
class Sheet:
    """A picture of tiles: `file` its name beside the page, `content` a PNG."""

    file: str
    caption: str
    content: bytes


@dataclass(frozen=True)
class Drawn:
    """What the page shows beyond the evidence.

    Attributes:
        counts: the confusion matrix; worst: the worst mistakes.
        filters: of the first layer, None where there are none; maps: one a layer, in the model's order.
        left_out: which layers are not among them, in words; seen: the picture's best labels with their probabilities.
    """

    counts: Counts
    worst: tuple[Mistake, ...]
    filters: Sheet | None
    maps: tuple[Sheet, ...]
    left_out: str
    seen: tuple[tuple[str, float], ...]

"""One way of drawing a face's box, where the sources of a data set have several.

FDDB's boxes bound whole heads, hair and all; street-masks and masks-853 run from the brow to the chin. A
detector that is taught both ways answers with a box between them, whose overlap with either is poor. Here
the boxes of one source are moved and scaled to the others' habit, for training alone: the annotations that
accuracy is measured against stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from train.detection.data import BoxedImage, BoxedImages, Boxes


@dataclass(frozen=True)
class BoxStyle:
    """How a source's box becomes one from brow to chin.

    Attributes:
        width, height: factors of the box's own size, about its centre.
        down: the centre moves down by so many box heights.
    """

    width: float
    height: float
    down: float


BOX_STYLES: Mapping[str, BoxStyle] = {"fddb": BoxStyle(width=0.90, height=0.82, down=0.06)}
"""By the pictures' `source`. FDDB's from the boxes of YuNet, a detector trained on WIDER FACE, around 506 of
its training faces: median factors 0.87 and 0.79, 0.07 down; a little less is taken, since FDDB's own boxes
are what an evaluation on FDDB asks for."""


def with_one_style(data: BoxedImages) -> BoxedImages:
    """The same pictures with every box from brow to chin, still inside its picture."""
    images = tuple(_restyled(image) for image in data.images)
    count = sum(len(image.boxes) for image in data.images if image.source in BOX_STYLES)
    return replace(data, images=images, notes=(*data.notes, f"{count} boxes redrawn from brow to chin"))


def _restyled(image: BoxedImage) -> BoxedImage:
    style = BOX_STYLES.get(image.source)
    if style is None:
        return image
    return replace(image, boxes=_drawn(image.boxes, style, image.width, image.height))


def _drawn(boxes: Boxes, style: BoxStyle, width: int, height: int) -> Boxes:
    sizes = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + sizes * np.float32([0, style.down])
    halves = sizes * np.float32([style.width, style.height]) / 2
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    return np.clip(corners, 0, np.float32([width, height, width, height])).astype(np.float32)

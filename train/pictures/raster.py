"""Maps and filters as sheets of tiles, as PNG: the files beside the page and the pictures in it are the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge.pixels import Image

if TYPE_CHECKING:
    from train.pictures.inside import Filters, Maps

MOST_TILES, COLUMNS = 32, 8
"""Of one sheet; channels beyond are not drawn."""

LEAST_PX, LARGEST_PX, GAP_PX = 48, 64, 3
"""Side of a tile: smaller ones are enlarged by whole factors, so that a pixel stays a square; and the space between."""

ACCENT = (43, 108, 176)
"""Of a mistake in the matrix, RGB; its opacity tells how frequent it is, so that it shows on light and dark."""


def png(pixels: Image) -> bytes:
    """Encode uint8 (H, W, 3) RGB or (H, W, 4) RGBA."""
    import cv2

    code = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, code), [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


def filter_sheet(filters: Filters) -> Image:
    """Each filter in its own scale: grey is a weight of zero, red more of red, its complement less.

    Returns:
        uint8 (H, W, 4) RGBA, transparent between the tiles.
    """
    kernels = filters.kernels[..., :MOST_TILES]
    largest = np.abs(kernels).max(axis=(0, 1, 2), keepdims=True)
    shades = 127.5 + 127.5 * kernels / np.where(largest > 0, largest, 1)
    return _sheet([_sized(tile) for tile in _bytes(np.moveaxis(shades, 3, 0))])


def map_sheet(maps: Maps) -> Image:
    """The channels of a layer in one common scale, from its least to its largest value, dark to light.

    Returns:
        uint8 (H, W, 4) RGBA, transparent between the tiles.
    """
    import cv2

    values = maps.values[..., :MOST_TILES]
    low, high = float(values.min()), float(values.max())
    shades = _bytes(np.moveaxis((values - low) * (255 / (high - low or 1.0)), 2, 0))
    colours = (
        cv2.cvtColor(cv2.applyColorMap(tile, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB) for tile in shades
    )
    return _sheet([_sized(tile) for tile in colours])


def matrix_sheet(opacity: NDArray[np.float64], diagonal: int = 128) -> Image:
    """A square a cell: its opacity is given, 0 to 1, on the diagonal it is grey.

    Returns:
        uint8 (H, W, 4) RGBA.
    """
    size = len(opacity)
    cells = np.empty((size, size, 4), np.uint8)
    cells[..., :3], cells[..., 3] = ACCENT, np.rint(255 * opacity)
    cells[np.arange(size), np.arange(size)] = (diagonal, diagonal, diagonal, 90)
    return _enlarged(cells, max(1, 600 // size))


def thumbnail(picture: Image, side_px: int) -> Image:
    """A picture that is no longer than `side_px`; a smaller one is left as it is."""
    import cv2

    height, width = picture.shape[:2]
    scale = side_px / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _bytes(values: NDArray[np.floating]) -> Image:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _sized(tile: Image) -> Image:
    return _enlarged(thumbnail(tile, LARGEST_PX), max(1, -(-LEAST_PX // max(tile.shape[:2]))))


def _enlarged(pixels: Image, factor: int) -> Image:
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _sheet(tiles: Sequence[Image]) -> Image:
    """Tiles of one size, row by row."""
    height, width = tiles[0].shape[:2]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * (height + GAP_PX) - GAP_PX, columns * (width + GAP_PX) - GAP_PX, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (height + GAP_PX), (index % columns) * (width + GAP_PX)
        sheet[top : top + height, left : left + width, :3] = tile
        sheet[top : top + height, left : left + width, 3] = 255
    return sheet

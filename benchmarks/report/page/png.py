"""Pictures of a few colours as PNG, the same bytes wherever zlib is the same."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Colour = tuple[int, int, int]


def palette_png(pixels: NDArray[np.uint8], colours: Sequence[Colour | None]) -> bytes:
    """An indexed PNG, four bits a pixel.

    Args:
        pixels: (H, W) of positions in `colours`.
        colours: Red, green, blue, 0 to 255, at most 16 of them; None is see-through.

    Example:
        >>> palette_png(np.zeros((1, 1), np.uint8), [(255, 0, 0)])[1:4]
        b'PNG'
    """
    height, width = pixels.shape
    pairs: NDArray[Any] = np.pad(pixels, ((0, 0), (0, width % 2))).reshape(height, -1, 2)
    packed = (pairs[..., 0] << 4 | pairs[..., 1]).astype(np.uint8)
    lines = np.pad(packed, ((0, 0), (1, 0)))  # each line begins with its filter: none
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 4, 3, 0, 0, 0)),
        (b"PLTE", bytes(part for colour in colours for part in colour or (0, 0, 0))),
        (b"tRNS", bytes(0 if colour is None else 255 for colour in colours)),
        (b"IDAT", zlib.compress(lines.tobytes(), 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

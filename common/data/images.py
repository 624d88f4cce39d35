"""Decoding of image files to uint8 arrays of one shape."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's modes of 16-bit grey images
UNDECODABLE = (  # what Pillow raises for files that are not what they seem, ill-typed EXIF tags included
    Image.DecompressionBombError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    SyntaxError,
    struct.error,
    zlib.error,
)


def reason(error: Exception) -> str:
    """The first line of why an image cannot be decoded, for the list of what was left out."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def resized(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 `[H, W, C]` of an image of mode L or RGB; where `shape` is smaller, a pixel is the mean of those it covers."""
    height, width, _ = shape
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BOX)
    return np.asarray(image).reshape(shape)


def decode_any(path: Path | BinaryIO, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 RGB `[H, W, 3]` of an image file of any kind that Pillow reads, upright.

    Images with EXIF orientation are rotated; grey, palette and CMYK images are converted; transparency is dropped; 16-bit
    grey is scaled to 8 bits. Raises one of `UNDECODABLE`: the file is truncated, too large, or of floating point.
    """
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in DEEP_GREY:
            upright = Image.fromarray(
                (np.asarray(upright).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8)
            )
        elif upright.mode == "F":
            raise ValueError("its pixels are floating-point numbers")
        elif "transparency" in upright.info:
            upright = upright.convert("RGBA")
        return resized(upright.convert("RGB"), shape)


def size_of(path: Path | BinaryIO) -> tuple[int, int] | None:
    """Height and width of an upright image from its header, None when it cannot be read."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # the tag of the orientation
            return (width, height) if turned else (height, width)
    except UNDECODABLE:
        return None

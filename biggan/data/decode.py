"""From a picture's bytes to a uint8 square: decoding, orientation, colour, centred crop, area resampling.

Pillow decodes, because it alone reads palettes, CMYK and EXIF rightly; OpenCV resamples, because its INTER_AREA is
an exact area average. Only PNG with 16 bits a channel is decoded by OpenCV, of which Pillow keeps 8.
"""

from __future__ import annotations

import io
import re
import warnings
from typing import IO

import cv2
import numpy as np
from PIL import Image

# Images are small and the work is spread over processes; OpenCV's threads do not survive a fork.
cv2.setNumThreads(0)

# Larger images than `MAX_PIXELS` are refused with a reason, below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

MAX_PIXELS = 178_956_970
"""Pillow's limit, against small files that decode to more than the memory."""
PAPER = 255  # transparent pixels are laid over white
ORIENTATION = 0x0112
DEEP_GREY = ("I;16", "I;16B", "I;16L", "I;16N")


class BrokenImage(Exception):
    """Bytes that are not an image, or a damaged one; says why."""


def open_image(file: IO[bytes], max_pixels: int | None = None) -> Image.Image:
    """Pillow's image of a file, of which only the header has been read. Raises `BrokenImage` for one of more than
    `max_pixels` (None: `MAX_PIXELS`), and what Pillow raises for a file that is none."""
    most = max_pixels or MAX_PIXELS
    if Image.MAX_IMAGE_PIXELS is not None and most > 2 * Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = most  # it was asked for; Pillow knows no limit of one call
    try:
        image = Image.open(file)
        pixels = image.width * image.height
    except Image.DecompressionBombError as error:
        image, pixels = None, int((re.findall(r"\d+", str(error)) or [0])[0])
    if image is None or pixels > most:
        raise BrokenImage(
            f"it has {pixels:,} pixels, and at most {most:,} are decoded. If it is to be used: --data.max_pixels "
            f"{pixels} (biggan-data: --max-pixels)"
        )
    return image


def decode(data: bytes, max_pixels: int | None = None) -> np.ndarray:
    """An encoded image of any usual kind -> uint8 (H, W, 3), upright, in RGB.

    Grey is repeated over three channels, palettes are looked up, transparency is laid over white, CMYK becomes
    (255 - C)(255 - K)/255 and so on, 16 bits a channel become the nearest of 8, and EXIF's orientation is carried
    out. Colour profiles are not applied. Of an animation the first frame is taken. Raises `BrokenImage`,
    also for more than `max_pixels` (None: `MAX_PIXELS`).
    """
    try:
        with open_image(io.BytesIO(data), max_pixels) as image:
            return upright_pixels(image, _deep_png(data) if _is_deep_png(data) else None)
    except BrokenImage:
        raise
    except Exception as error:  # Pillow's plugins raise every kind of error on damaged files
        raise BrokenImage(why_broken(error, data)) from error


def upright_pixels(image: Image.Image, pixels: np.ndarray | None = None) -> np.ndarray:
    """An image of Pillow's as `decode` would give it; `pixels` are those that were decoded otherwise."""
    image.load()
    orientation = _orientation(image)
    return np.ascontiguousarray(_upright(_pixels(image) if pixels is None else pixels, orientation))


def square(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (R, R, 3): a centred crop along the long edge (Appendix C), then resampling.

    By exact area averaging where the image shrinks, bilinearly where it grows. Where the surplus is odd, the odd
    row or column is cut off below or on the right.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[top : top + side, left : left + side]
    if side == resolution:
        return np.ascontiguousarray(pixels)
    size = (resolution, resolution)
    if side > resolution:
        return cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    # In float: on bytes OpenCV's bilinear weights have 11 bits only.
    return np.rint(cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation. Damaged EXIF is no reason to throw a sound picture away."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:
        return 1


def _pixels(image: Image.Image) -> np.ndarray:
    """A loaded image as uint8 (H, W, 3), not yet upright."""
    if image.mode in DEEP_GREY or (image.mode == "I" and image.format == "PNG"):
        return _grey(_to_8_bits(np.asarray(image).astype(np.int64)))
    if image.mode in ("I", "F"):
        raise BrokenImage(
            f"pixels of kind {image.mode} (32 bits a channel) have no agreed range; expected 8 or 16 bits"
        )
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        return over_white(np.asarray(image.convert("RGBA")))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _is_deep_png(data: bytes) -> bool:
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:25] == b"\x10"


def _deep_png(data: bytes) -> np.ndarray:
    """A PNG with 16 bits a channel, grey or colour, with or without alpha, as uint8 (H, W, 3)."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise BrokenImage("a PNG with 16 bits a channel that cannot be decoded")
    pixels = _to_8_bits(pixels)
    if pixels.ndim == 2:
        return _grey(pixels)
    if pixels.shape[2] == 4:
        return over_white(pixels[..., [2, 1, 0, 3]])
    return pixels[..., ::-1]


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 -> the nearest of 0..255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def over_white(pixels: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) laid over white, to the nearest value."""
    color, alpha = pixels[..., :3].astype(np.uint32), pixels[..., 3:].astype(np.uint32)
    return ((color * alpha + PAPER * (255 - alpha) + 127) // 255).astype(np.uint8)


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Carry out EXIF's orientation 1 to 8 (what stands first: row 0 / column 0); other values mean nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def why_broken(error: Exception, data: bytes) -> str:
    """What was wrong with an encoded image, in words."""
    if not data:
        return "the file is empty"
    if type(error).__name__ == "UnidentifiedImageError":
        return "not an image in any known format"
    return str(error) or type(error).__name__

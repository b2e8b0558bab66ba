"""Decoding, orientation, colour, crop and resampling, against slow truth."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from pictures import encode, picture
from PIL import Image

from biggan.data.decode import BrokenImage, decode, square


def area_weights(before: int, after: int) -> np.ndarray:
    """float64 (after, before): the share of each old cell in each new one, of exact overlaps."""
    edges = np.arange(after + 1) * before / after
    low, high, cell = edges[:-1, None], edges[1:, None], np.arange(before)
    return np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None) * after / before


def bilinear_weights(before: int, after: int) -> np.ndarray:
    """float64 (after, before): linear interpolation between cells' centres, constant beyond the outermost."""
    places = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    left = np.minimum(places.astype(int), before - 2)
    weights = np.zeros((after, before))
    weights[np.arange(after), left] = 1 - (places - left)
    weights[np.arange(after), left + 1] = places - left
    return weights


@pytest.mark.parametrize(
    ("before", "after"),
    [(9, 8), (13, 8), (16, 8), (33, 32), (47, 32), (64, 32), (97, 32), (101, 64), (131, 128), (375, 128), (500, 128)],
)
def test_shrinking_is_the_exact_area_average(before: int, after: int) -> None:
    for pixels in (picture(before, before, before), 255 * (picture(1, before, before) > 127).astype(np.uint8)):
        weights = area_weights(before, after)
        assert np.allclose(weights.sum(axis=1), 1)
        exact = np.einsum("ij,jkc,lk->ilc", weights, pixels.astype(float), weights, optimize=True)
        assert np.abs(square(pixels, after) - exact).max() <= 0.5 + 1e-4  # to the nearest of 256 values


@pytest.mark.parametrize(("before", "after"), [(5, 8), (8, 16), (20, 32), (31, 32)])
def test_enlarging_is_bilinear(before: int, after: int) -> None:
    pixels = picture(before, before, before)
    weights = bilinear_weights(before, after)
    exact = np.einsum("ij,jkc,lk->ilc", weights, pixels.astype(float), weights)
    assert np.abs(square(pixels, after) - exact).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(("height", "width"), [(11, 8), (8, 11), (9, 8), (8, 8), (8, 15)])
def test_the_crop_is_centred_along_the_long_edge(height: int, width: int) -> None:
    pixels = picture(0, height, width)
    top, left = (height - 8) // 2, (width - 8) // 2
    assert np.array_equal(square(pixels, 8), pixels[top : top + 8, left : left + 8])


def test_grey_is_repeated() -> None:
    grey = picture(0)[..., 0]
    assert np.array_equal(decode(encode(grey)), np.repeat(grey[..., None], 3, axis=2))
    one_bit = Image.fromarray(grey > 127)
    buffer = io.BytesIO()
    one_bit.save(buffer, "PNG")
    assert np.array_equal(decode(buffer.getvalue())[..., 1], 255 * (grey > 127))


def test_palettes_are_looked_up_and_their_transparency_is_white() -> None:
    table = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
    places = np.random.default_rng(1).integers(0, 16, (7, 9), dtype=np.uint8)
    image = Image.frombytes("P", (9, 7), places.tobytes())
    image.putpalette(table.tobytes())
    plain, clear = io.BytesIO(), io.BytesIO()
    image.save(plain, "PNG")
    image.save(clear, "PNG", transparency=3)
    assert np.array_equal(decode(plain.getvalue()), table[places])
    table[3] = 255
    assert np.array_equal(decode(clear.getvalue()), table[places])


def test_alpha_is_laid_over_white() -> None:
    color, alpha = picture(0), picture(1)[..., :1]
    share = alpha / 255.0
    expected = color * share + 255 * (1 - share)
    assert np.abs(decode(encode(np.concatenate([color, alpha], axis=2))) - expected).max() <= 0.5 + 1e-9
    grey = np.concatenate([color[..., :1], alpha], axis=2)
    assert np.abs(decode(encode(grey)) - expected[..., :1]).max() <= 0.5 + 1e-9


def test_cmyk_is_ink_on_white() -> None:
    inks = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.frombytes("CMYK", (5, 6), inks.tobytes()).save(buffer, "TIFF")
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    assert np.abs(decode(buffer.getvalue()) - expected).max() <= 1


def test_a_cmyk_jpeg_comes_out_in_its_own_colors() -> None:
    """Such JPEGs hold inverted inks; ImageNet has some."""
    for inks, expected in (((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 0), (255,) * 3), ((0, 0, 0, 255), (0,) * 3)):
        buffer = io.BytesIO()
        Image.new("CMYK", (16, 16), inks).save(buffer, "JPEG", quality=95)
        assert np.abs(decode(buffer.getvalue()).astype(int) - np.array(expected)).max() <= 3


def deep_png(values: np.ndarray) -> bytes:
    """uint16 (H, W, channels) as a PNG with 16 bits a channel, written by hand."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_become_the_nearest_of_8(channels: int) -> None:
    values = np.random.default_rng(channels).integers(0, 65536, (6, 7, channels), dtype=np.uint16)
    color = values[..., :1] if channels < 3 else values[..., :3]
    share = values[..., -1:] / 65535.0 if channels in (2, 4) else 1.0
    expected = color / 257.0 * share + 255 * (1 - share)
    slack = 0.5 if channels in (1, 3) else 1.5  # alpha and color are rounded first
    assert np.abs(decode(deep_png(values)) - expected).max() <= slack + 1e-9


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_carried_out(orientation: int, kind: str) -> None:
    upright = np.zeros((16, 24, 3), dtype=np.uint8)  # blocks of 8, which JPEG keeps apart
    upright[:8, :8], upright[:8, 16:], upright[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {  # what a camera stores, by the definition of row 0 and column 0
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = encode(np.ascontiguousarray(stored), kind, exif=exif, **options)
    assert np.abs(decode(data).astype(int) - upright).max() <= 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"not an image at all", "not an image"),
        (encode(picture(0, 64, 64), "JPEG")[:1500], "truncated"),
        (encode(picture(0, 64, 64), "PNG")[:600], "truncated|broken|incomplete"),
    ],
)
def test_what_is_no_image_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason):
        decode(data)


def test_32_bits_a_channel_are_refused() -> None:
    with pytest.raises(BrokenImage, match="32 bits"):
        decode(encode(picture(0)[..., 0].astype(np.float32), "TIFF"))

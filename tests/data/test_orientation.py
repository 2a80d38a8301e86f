"""The orientation that a camera records is applied once, in every format that has it."""

import io

import numpy as np
import pytest
from PIL import Image

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.pictures.images import decode, picture_pixels
from tests.data.drawn import chunk, encoded, png, tiff

CORNERS = np.zeros((24, 40, 3), np.uint8)
CORNERS[:12, :20], CORNERS[:12, 20:], CORNERS[12:, :20] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
UPRIGHT = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: CORNERS.transpose(1, 0, 2)[:, ::-1],
    7: CORNERS.transpose(1, 0, 2)[::-1, ::-1],
    8: CORNERS.transpose(1, 0, 2)[::-1],
}
"""The picture as it is shown, by the orientation of its file (EXIF 2.3, table 6)."""
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95}}
LOSSLESS["MPO"] = LOSSLESS["JPEG"]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_every_format(form, orientation):
    image = Image.fromarray(CORNERS)
    data = encoded(image, form, exif=exif(orientation), **LOSSLESS.get(form, {}))
    found = decode(data, ReadOptions()).pixels
    assert found.shape == UPRIGHT[orientation].shape
    assert np.abs(found.astype(int) - UPRIGHT[orientation]).mean() < 4


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_colours_of_16_bits(orientation):
    """Their upper and lower bytes are decoded one after the other."""
    samples = CORNERS.astype(int) * 257
    found = decode(tiff(samples, tags={274: ("H", orientation)}), ReadOptions())
    assert np.array_equal(found.pixels, UPRIGHT[orientation])
    grey = decode(tiff(samples[..., :1], tags={274: ("H", orientation)}), ReadOptions())
    assert np.array_equal(grey.pixels, UPRIGHT[orientation][..., :1])


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_transparency_turns_with_its_image(orientation):
    alpha = np.zeros((24, 40, 1), np.uint8)
    alpha[:12, :20] = 255
    data = encoded(Image.fromarray(np.dstack([CORNERS, alpha])), exif=exif(orientation))
    seen = np.where(alpha > 0, CORNERS, 255)
    wanted = {**UPRIGHT, 1: seen}.get(orientation) if orientation == 1 else _turned(seen, orientation)
    assert np.array_equal(decode(data, ReadOptions()).pixels, wanted)


def _turned(pixels, orientation):
    turned = pixels.transpose(1, 0, 2) if orientation >= 5 else pixels
    vertical = orientation in (3, 4, 7, 8)
    horizontal = orientation in (2, 3, 6, 7)
    return turned[:: -1 if vertical else 1, :: -1 if horizontal else 1]


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation):
    data = encoded(Image.fromarray(CORNERS), exif=exif(orientation))
    assert np.array_equal(decode(data, ReadOptions()).pixels, CORNERS)


@pytest.mark.parametrize("damaged", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"x" * 40])
def test_damaged_exif_turns_nothing(damaged):
    data = encoded(Image.fromarray(CORNERS), exif=damaged)
    assert np.array_equal(decode(data, ReadOptions()).pixels, CORNERS)


def test_an_image_in_memory_is_turned_as_its_file():
    """Data sets of PyTorch convert what they have opened, which keeps the orientation of the file."""
    data = encoded(Image.fromarray(CORNERS), exif=exif(6))
    with Image.open(io.BytesIO(data)) as image:
        converted = image.convert("RGB")
    assert np.array_equal(picture_pixels(converted, ReadOptions()).pixels, UPRIGHT[6])
    assert np.array_equal(picture_pixels(converted, ReadOptions()).pixels, UPRIGHT[6])


def test_a_png_of_grey_levels_in_16_bits():
    data = png(CORNERS[..., :1].astype(int) * 257, 16, chunks=chunk(b"eXIf", exif(8).tobytes()[6:]))
    assert np.array_equal(decode(data, ReadOptions()).pixels, UPRIGHT[8][..., :1])

"""Colours of files with an ICC profile become those of sRGB."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.pictures.images import decode
from tests.data.drawn import ADOBE, SRGB, chunk, colour_profile, encoded, grey_profile, ink_profile, png

COLOURS = np.random.default_rng(0).integers(60, 200, (5, 6, 3), np.uint8)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}


def to_srgb(colours, primaries, gamma):
    """Return colours of a space as sRGB, by its definition."""
    linear = (colours / 255) ** gamma @ (np.linalg.inv(SRGB) @ primaries).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("form", LOSSLESS)
def test_colours_of_a_wider_space(form):
    data = encoded(Image.fromarray(COLOURS), form, icc_profile=colour_profile(ADOBE, 2.2), **LOSSLESS[form])
    found = decode(data, ReadOptions())
    wanted = to_srgb(COLOURS, ADOBE, 2.2)
    assert np.abs(wanted - COLOURS).max() > 20
    assert np.abs(found.pixels - wanted).max() <= (8 if form == "JPEG" else 2)
    assert not found.profile_ignored


def test_the_profile_of_srgb_changes_nothing():
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    found = decode(encoded(Image.fromarray(noise), icc_profile=own), ReadOptions())
    assert np.array_equal(found.pixels, noise)


def test_a_profile_of_grey():
    levels = np.arange(256, dtype=np.uint8)[None]
    found = decode(encoded(Image.fromarray(levels), icc_profile=grey_profile(1.0)), ReadOptions())
    wanted = to_srgb(levels[..., None].repeat(3, -1), SRGB, 1.0)
    assert found.pixels.shape == (1, 256, 1)
    assert np.abs(found.pixels - wanted[..., :1]).max() <= 2


def test_grey_pixels_with_a_profile_of_colours_stay_grey():
    levels = np.arange(256, dtype=np.uint8)[None]
    data = encoded(Image.fromarray(levels), icc_profile=colour_profile(ADOBE, 1.8))
    found = decode(data, ReadOptions())
    wanted = to_srgb(levels[..., None].repeat(3, -1), ADOBE, 1.8)
    assert found.pixels.shape == (1, 256, 1)
    assert np.abs(found.pixels - wanted[..., :1]).max() <= 2


def test_inks():
    """Paper that is grey, and inks that all are black, which no conversion without the profile gives."""
    profile = ink_profile(lambda c, m, y, k: (100 if c or m or y or k else 200, 128, 128))
    inks = Image.fromarray(np.array([[[0] * 4, [255, 0, 0, 0], [0, 255, 0, 0]]], np.uint8), "CMYK")
    for form in ("TIFF", "JPEG"):
        found = decode(encoded(inks.resize((48, 16), 0), form, icc_profile=profile), ReadOptions())
        paper, cyan, magenta = (found.pixels[8, x].astype(int) for x in (8, 24, 40))
        assert np.abs(cyan - magenta).max() <= 3
        assert np.ptp(paper) <= 2
        assert paper[0] > cyan[0] + 50
    plain = decode(encoded(inks, "TIFF"), ReadOptions()).pixels
    assert plain.tolist() == [[[255, 255, 255], [0, 255, 255], [255, 0, 255]]]


def test_alpha_and_palettes_keep_their_profile():
    profile = colour_profile(ADOBE, 2.2)
    wanted = to_srgb(np.array([[[180, 80, 60]]]), ADOBE, 2.2)
    clear = Image.new("RGBA", (2, 1), (180, 80, 60, 255))
    clear.putpixel((1, 0), (180, 80, 60, 0))
    found = decode(encoded(clear, icc_profile=profile), ReadOptions(background="#102030")).pixels
    assert np.abs(found[:, :1] - wanted).max() <= 2
    assert found[0, 1].tolist() == [0x10, 0x20, 0x30]  # the ground is of sRGB
    few = Image.new("RGB", (2, 1), (180, 80, 60)).quantize(4)
    assert np.abs(decode(encoded(few, icc_profile=profile), ReadOptions()).pixels - wanted).max() <= 2
    deep = np.full((1, 2, 3), (180, 80, 60)) * 257
    chunks = _icc_chunk(profile)
    assert np.abs(decode(png(deep, 16, chunks=chunks), ReadOptions()).pixels - wanted).max() <= 2


def _icc_chunk(profile):
    return chunk(b"iCCP", b"drawn\0\0" + zlib.compress(profile))


@pytest.mark.parametrize(
    "profile",
    [
        b"no profile",
        colour_profile(ADOBE, 2.2)[:150],
        grey_profile(2.0),
        ink_profile(lambda *_: (0, 128, 128)),
    ],
    ids=["damaged", "cut off", "of grey", "of inks"],
)
def test_a_profile_that_does_not_fit_is_ignored_and_counted(profile):
    found = decode(encoded(Image.fromarray(COLOURS), icc_profile=profile), ReadOptions())
    assert np.array_equal(found.pixels, COLOURS)
    assert found.profile_ignored


def test_lab():
    lab = Image.merge("LAB", [Image.new("L", (4, 4), level) for level in (255, 128, 128)])
    stream = io.BytesIO()
    lab.save(stream, "TIFF")
    found = decode(stream.getvalue(), ReadOptions()).pixels
    assert found.min() >= 253

"""Bytes of image files: any damage gives an error of one sentence, or pixels."""

import contextlib

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.pictures.image_formats import READABLE_FORMATS, format_of
from cm_ray.data.pictures.images import decode
from cm_ray.data.pictures.uploads import fitted_pixels, open_mask, open_upload
from cm_ray.errors import UserError
from tests.data.drawn import ADOBE, colour_profile, encoded, ink_profile, png, tiff
from tests.fuzz.mutations import mutated
from tests.fuzz.running import fuzz

LAYERS = np.random.default_rng(0).integers(0, 256, (13, 17, 4), np.uint8)
COLOURS, SPRITE = Image.fromarray(LAYERS[..., :3]), Image.fromarray(LAYERS)
EXIF = Image.Exif()
EXIF[0x0112] = 6
PROFILE = colour_profile(ADOBE, 2.2)
INKS = ink_profile(lambda c, m, y, k: (200 - 50 * (c + m + y + k), 128, 128))
FEW = [SPRITE.rotate(90), SPRITE.rotate(180)]
FILES = {
    **{form: encoded(COLOURS.quantize(16) if form == "GIF" else COLOURS, form) for form in READABLE_FORMATS},
    "palette": encoded(COLOURS.quantize(16), transparency=bytes(16), icc_profile=PROFILE),
    "sprite": encoded(SPRITE, exif=EXIF),
    "grey and alpha": encoded(SPRITE.convert("LA"), "TIFF"),
    "deep": png(LAYERS.astype(int) * 16, 16),
    "deep grey": png(LAYERS[..., :1].astype(int) * 16, 16, key=[7]),
    "deep grey and alpha": png(LAYERS[..., :2].astype(int) * 16, 16),
    "deep TIFF": tiff(LAYERS[..., :3].astype(int) * 16),
    "12 bits": tiff(LAYERS[..., :1].astype(int), packed=True),
    "few levels": png(LAYERS[..., :1] // 64, 2, key=[1]),
    "text PPM": b"P3 2 2 65535\n" + b" 9 8 70" * 4,
    "deep PGM": b"P5 2 2 4095\n" + bytes(8),
    "deep PPM": b"P6 2 2 65535\n" + bytes(24),
    "floats": b"Pf 2 2 -1.0\n" + bytes(16),
    "inks": encoded(COLOURS.convert("CMYK"), "JPEG", icc_profile=INKS),
    "inks in TIFF": encoded(COLOURS.convert("CMYK"), "TIFF", icc_profile=INKS),
    "progressive": encoded(COLOURS, "JPEG", progressive=True, exif=EXIF, icc_profile=PROFILE),
    "restarts": encoded(COLOURS, "JPEG", restart_marker_blocks=1),
    "burst": encoded(COLOURS, "MPO", save_all=True, append_images=[COLOURS]),
    "animation": encoded(SPRITE, "GIF", save_all=True, append_images=FEW, disposal=2),
    "animated PNG": encoded(SPRITE, "PNG", save_all=True, append_images=FEW),
    "animated WebP": encoded(SPRITE, "WEBP", save_all=True, append_images=FEW),
    "pages": encoded(COLOURS, "TIFF", save_all=True, append_images=[SPRITE], exif=EXIF),
    "lossless WebP": encoded(SPRITE, "WEBP", lossless=True, exif=EXIF, icc_profile=PROFILE),
    **{name: encoded(COLOURS, "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")},
    "deflated": encoded(SPRITE, "TIFF", compression="tiff_adobe_deflate"),
    "fax": encoded(COLOURS.convert("1"), "TIFF", compression="group4"),
    "lab": encoded(COLOURS.convert("LAB"), "TIFF"),
    "runs": encoded(SPRITE, "TGA", compression="tga_rle"),
    "grey J2K": encoded(COLOURS.convert("L"), "JPEG2000"),
}
OPTIONS = [
    ReadOptions(most_pixels=1 << 20),
    ReadOptions(most_pixels=1 << 20, size=4, channels=3, background="#102030"),
    ReadOptions(most_pixels=100, size=2, channels=1, bits=12),
]


def check(example):
    """Read an image as a data set and as an upload."""
    data, options = example
    assert format_of(data[:16]) in ("", *READABLE_FORMATS)
    for read in (lambda: open_upload(data, "x", Reading()), lambda: open_mask(data, "x")):
        with one_line():
            fitted_pixels(read(), "x", (3, 4, 4), resize=True)
    with one_line():
        found = decode(data, options).pixels
        assert found.dtype == np.uint8
        assert found.shape[2] in ([options.channels] if options.channels else [1, 3])
        assert found.shape[0] * found.shape[1] <= options.most_pixels


@contextlib.contextmanager
def one_line():
    """Pass over errors that are said in one line."""
    try:
        yield
    except (BadImageError, UserError) as error:
        said = str(error)
        if "\n" in said:
            raise


def test_the_files_themselves_are_read():
    for name, data in FILES.items():
        if name != "floats":
            decode(data, ReadOptions())
    with pytest.raises(BadImageError):
        decode(FILES["floats"], ReadOptions())


def test_damaged_images():
    examples = st.tuples(
        st.sampled_from(sorted(FILES)).flatmap(lambda name: mutated(FILES[name])), st.sampled_from(OPTIONS)
    )
    fuzz(examples, check, few=600)


def test_bytes_without_a_meaning():
    fuzz(st.tuples(st.binary(max_size=400), st.sampled_from(OPTIONS)), check, few=100)

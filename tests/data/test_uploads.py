"""Images from people: what is read, what is fitted, what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cm_ray.data.interface.reading import Reading
from cm_ray.data.pictures import uploads
from cm_ray.data.pictures.uploads import fitted_mask, fitted_pixels, open_mask, open_upload, read_file
from cm_ray.errors import UserError


def picture(width=8, height=6, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image, form="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["PNG", "BMP", "WEBP", "JPEG", "GIF", "TIFF"])
def test_common_formats_are_read(form):
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
    read = open_upload(encoded(picture(), form, **options), "a file", Reading())
    assert np.abs(np.asarray(read).astype(int) - np.asarray(picture())).max() <= (8 if form == "JPEG" else 0)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "I;16"])
def test_all_modes_become_grey_or_colour(mode):
    image = picture(mode="L").convert("I;16") if mode == "I;16" else picture(mode=mode)
    assert open_upload(encoded(image), "x", Reading()).mode in ("L", "RGB")


def test_a_camera_held_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_upload(encoded(picture(8, 6), "JPEG", exif=exif), "x", Reading()).size == (6, 8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_as_one_sees_them(mode):
    image = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    image.paste((9, 9, 9, 255), (0, 0, 4, 6))
    seen = np.asarray(open_upload(encoded(image.convert(mode)), "x", Reading()).convert("L"))
    assert (seen[:, 4:] == 255).all(), "paper, and not the black that they hide"
    assert (abs(seen[:, :4].astype(int) - 9) <= 3).all()


def test_what_is_transparent_in_a_mask_is_not_kept():
    mask = Image.new("RGBA", (8, 6), "white")
    mask.paste((255, 255, 255, 0), (0, 0, 4, 6))
    kept = np.asarray(open_mask(encoded(mask), "m"))
    assert (kept[:, :4] == 0).all()
    assert (kept[:, 4:] == 255).all()
    assert open_mask(encoded(Image.new("RGB", (8, 6), "black")), "m").getextrema() == (0, 0), (
        "all is made anew"
    )


@pytest.mark.parametrize(
    ("mask", "levels"),
    [
        (Image.fromarray(np.eye(6, dtype=np.uint8)), "from 0 to 1,"),
        (Image.new("L", (8, 6), 127), "from 127 to 127,"),
        (Image.new("RGBA", (8, 6), (255, 255, 255, 0)), "from 0 to 0, transparent pixels counted"),
    ],
)
def test_a_mask_that_keeps_nothing_though_it_shows_something(mask, levels):
    with pytest.raises(UserError, match=f"m keeps nothing: white is kept, levels from 128 on, .*{levels}"):
        open_mask(encoded(mask), "m")


def bomb(width, height):
    """A PNG of a few hundred bytes that says it is huge."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "x is not a readable image"),
        (b"MZ\x90 a program", "x is not a readable image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "x is not a readable image"),
        (
            encoded(picture())[:80],
            r"x is not a readable image \(image file is truncated\): give a whole image",
        ),
        (encoded(picture(), "EPS"), "of another kind"),
        (encoded(picture(mode="L").convert("F"), "TIFF"), "are floating-point numbers"),
        (bomb(20_000, 20_000), "more than 64,000,000 pixels"),
        (bomb(60_000, 60_000), "more than 64,000,000 pixels"),
    ],
)
def test_what_is_no_image_is_refused(data, sentence):
    with pytest.raises(UserError, match=sentence):
        open_upload(data, "x", Reading())


def test_large_files_are_refused_unread(monkeypatch, tmp_path):
    monkeypatch.setattr(uploads, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="x has more than 0 MiB"):
        open_upload(bytes(101), "x", Reading())
    (tmp_path / "large").write_bytes(bytes(1000))
    assert len(read_file(tmp_path / "large")) == 101
    with pytest.raises(UserError, match=r"Could not read .*nowhere"):
        read_file(tmp_path / "nowhere")


def test_pictures_of_the_models_size_are_taken_as_they_are():
    colour, grey = picture(), picture(mode="L")
    np.testing.assert_array_equal(fitted_pixels(colour, "x", (3, 6, 8)), np.asarray(colour))
    np.testing.assert_array_equal(fitted_pixels(grey, "x", (1, 6, 8))[..., 0], np.asarray(grey))
    np.testing.assert_array_equal(fitted_pixels(colour, "x", (1, 6, 8))[..., 0], np.asarray(grey))
    np.testing.assert_array_equal(fitted_pixels(grey, "x", (3, 6, 8))[..., 2], np.asarray(grey))


def test_other_sizes_are_refused_or_fitted():
    with pytest.raises(UserError, match="x is 8x6, and the model's images are 4x4: set resize to crop"):
        fitted_pixels(picture(), "x", (3, 4, 4))
    half = fitted_pixels(picture(16, 12), "x", (3, 6, 8), resize=True)
    assert half.shape == (6, 8, 3)
    white = Image.new("RGB", (40, 12), "black")
    white.paste("white", (14, 0, 26, 12))
    assert fitted_pixels(white, "x", (3, 8, 8), resize=True).min() == 255, "the centre is what is left"


def test_small_pictures_are_widened_for_a_factor():
    small = picture(4, 3)
    wide = fitted_pixels(small, "x", (3, 6, 8), factor=2)
    np.testing.assert_array_equal(wide, np.asarray(small).repeat(2, 0).repeat(2, 1))
    with pytest.raises(UserError, match="8x6 or 4x3: set resize"):
        fitted_pixels(picture(5, 5), "x", (3, 6, 8), factor=2)


def test_masks_are_white_where_images_are_kept():
    mask = Image.new("L", (8, 6), 127)
    mask.paste(128, (0, 0, 4, 6))
    fitted = fitted_mask(mask, "m", picture(), (3, 6, 8))
    assert fitted[:, :4].all()
    assert not fitted[:, 4:].any()
    large = fitted_mask(mask.resize((16, 12), 0), "m", picture(16, 12), (3, 6, 8))
    np.testing.assert_array_equal(large, fitted)
    with pytest.raises(UserError, match="m is 8x6 and its image 16x12: give a mask of the image's size"):
        fitted_mask(mask, "m", picture(16, 12), (3, 6, 8))

"""Image files are opened within a limit of our own; damage is an error; the process stays as it is."""

import io
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.pictures.images import decode
from cm_ray.data.pictures.uploads import open_upload
from cm_ray.errors import UserError
from tests.data.drawn import encoded, png, tiff

Y, X = np.mgrid[:120, :160]
SMOOTH = np.stack([X * 255 // 160, Y * 255 // 120, (X + Y) * 255 // 280], -1).astype(np.uint8)
NOISY = (SMOOTH.astype(int) + np.random.default_rng(0).integers(-20, 20, SMOOTH.shape)).clip(0, 255)
NOISY = NOISY.astype(np.uint8)
WRITERS = {
    "PNG": {},
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "JPEG with restarts": {"restart_marker_blocks": 4},
    "WEBP": {},
    "AVIF": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {},
    "LZW TIFF": {"compression": "tiff_lzw"},
    "JPEG2000": {},
    "PPM": {},
    "QOI": {},
    "TGA": {},
}


def written(name, pixels=NOISY):
    image = Image.fromarray(pixels)
    form = next(word for word in reversed(name.split()) if word.isupper() and word != "LZW")
    return encoded(image.quantize(64) if form == "GIF" else image, form, **WRITERS[name])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_image_is_an_error(name, share):
    data = written(name)
    with pytest.raises(BadImageError):
        decode(data[: int(len(data) * share)], ReadOptions())


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "progressive JPEG", "JPEG with restarts"])
def test_a_truncated_image_that_was_filled_up_is_an_error(name, share):
    """A download that broke off leaves zeros, and some programs put a new end to what is left."""
    data = written(name)
    kept = data[: int(len(data) * share)]
    fillings = [bytes(len(data) - len(kept))]
    if "JPEG" in name and not (name.startswith("progressive") and share > 0.5):  # then all scans are there
        fillings.append(b"\xff\xd9")
    for filling in fillings:
        with pytest.raises(BadImageError):
            decode(kept + filling, ReadOptions())


def test_one_wrong_bit_of_a_png_is_an_error():
    data = bytearray(written("PNG"))
    data[len(data) // 2] ^= 4
    with pytest.raises(BadImageError, match="IDAT is damaged"):
        decode(bytes(data), ReadOptions())


@pytest.mark.parametrize("name", WRITERS)
def test_bytes_after_an_image_do_no_harm(name):
    data = written(name)
    assert np.array_equal(
        decode(data + b"\0\xff\xda\xff more", ReadOptions()).pixels, decode(data, ReadOptions()).pixels
    )


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (17, 3), (33, 50)])
@pytest.mark.parametrize("quality", [5, 95])
def test_a_whole_jpeg_has_the_pixels_that_pillow_gives_it(mode, size, quality):
    """The search for missing pixels changes nothing where there are none."""
    shape = (size[1], size[0], len(mode))
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8).tobytes()
    for options in ({}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 1}):
        data = encoded(Image.frombytes(mode, size, noise), "JPEG", quality=quality, **options)
        with Image.open(io.BytesIO(data)) as image:
            plain = np.asarray(image if mode == "L" else image.convert("RGB")).reshape(size[1], size[0], -1)
        assert np.array_equal(decode(data, ReadOptions()).pixels, plain)


def test_truncated_images_are_counted_where_bad_ones_are_skipped(tmp_path):
    (tmp_path / "whole.jpg").write_bytes(written("JPEG"))
    (tmp_path / "half.jpg").write_bytes(written("JPEG")[:2000] + b"\xff\xd9")
    found = load_images(tmp_path, on_bad_image="skip")
    assert (found.count, found.skipped) == (1, 1)
    with pytest.raises(UserError, match=r"half.jpg is not a readable image \(image file is truncated"):
        load_images(tmp_path)


def test_a_lenient_process_does_not_make_half_images(monkeypatch):
    """Other code may have told Pillow to fill truncated images with grey; it is told so afterwards too."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = written("BMP")
    with pytest.raises(BadImageError, match="truncated"):
        decode(data[: len(data) // 2], ReadOptions())
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "TIFF"])
def test_pillows_limit_is_neither_used_nor_changed(name, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(written(name), ReadOptions(size=24)).pixels.shape == (24, 24, 3)
        assert decode(written(name), ReadOptions()).pixels.shape == (120, 160, 3)
    assert Image.MAX_IMAGE_PIXELS == 50


@pytest.mark.parametrize("name", ["PNG", "JPEG", "progressive JPEG", "WEBP", "AVIF", "TIFF", "JPEG2000"])
def test_too_many_pixels_are_said_in_one_sentence(name):
    with pytest.raises(BadImageError) as caught:
        decode(written(name), ReadOptions(most_pixels=19_199))
    assert caught.value.problem == "has 19,200 pixels, more than 19,199"
    with pytest.raises(UserError, match="list has 19,200 pixels, more than 19,199; make it smaller"):
        load_images([written(name)], most_pixels=19_199)
    assert decode(written(name), ReadOptions(most_pixels=19_200)).pixels.shape == (120, 160, 3)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size():
    data = written("JPEG", np.kron(SMOOTH, np.ones((4, 4, 1), np.uint8)))  # 640x480
    whole = decode(data, ReadOptions(size=60)).pixels
    for most, divisor in ((640 * 480 - 1, 2), (20_000, 4), (5_000, 8)):
        found = decode(data, ReadOptions(size=60, most_pixels=most)).pixels
        assert np.abs(found.astype(int) - whole).max() <= 6
        with pytest.raises(BadImageError, match="has 307,200 pixels"):  # the sides would be too short
            decode(data, ReadOptions(size=480 // divisor + 1, most_pixels=most))
    with pytest.raises(BadImageError, match="has 307,200 pixels, more than 4,000"):
        decode(data, ReadOptions(size=8, most_pixels=4_000))


def test_the_pixels_of_images_within_the_limit_do_not_depend_on_it():
    data = written("JPEG")
    pixels = [decode(data, ReadOptions(size=8, most_pixels=most)).pixels for most in (19_200, 10**9)]
    assert np.array_equal(*pixels)


def test_own_scans_are_read_and_uploads_keep_their_limit(tmp_path):
    """A scan of more pixels than an upload may have, and than Pillow allows."""
    (tmp_path / "scan.png").write_bytes(encoded(Image.new("1", (15_000, 12_000), 1), compress_level=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = load_images(tmp_path, size=4)
    assert (found.images == 255).all()
    with pytest.raises(UserError, match=r"^x has more than 64,000,000 pixels: make it smaller.$"):
        open_upload((tmp_path / "scan.png").read_bytes(), "x", Reading())


def test_warnings_of_pillow_are_kept_back_and_the_filters_stay():
    before = list(warnings.filters)
    few = Image.fromarray(SMOOTH).quantize(16)
    odd = tiff(SMOOTH.astype(int) * 257, tags={305: ("H", 7), 33432: ("L", 10**6)})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        decode(encoded(few, transparency=bytes(16)), ReadOptions())
        decode(odd, ReadOptions())
    assert seen == []
    assert warnings.filters == before


def test_threads_take_turns():
    data, errors = png(np.zeros((8, 8, 4)), 8), []
    before = list(warnings.filters)

    def read():
        try:
            for _ in range(50):
                decode(data, ReadOptions())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert warnings.filters == before

"""Samples of more than 8 bits become 8 bits by the bits that the images of a data set use."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from cm_ray.data.interface.bad_image import BadImageError
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.pictures.images import decode, picture_pixels
from cm_ray.data.shards.manifest import load_all
from tests.data.drawn import encoded, png, tiff
from tests.data.making import make

RAMP = np.linspace(0, 1, 12).reshape(3, 4)


def ramp(bits, channels=1):
    """Return samples from black to the white of `bits` (3, 4, channels)."""
    return np.rint(RAMP * ((1 << bits) - 1)).astype(int)[..., None].repeat(channels, -1)


def levels(samples, bits):
    return np.rint(samples * 255 / ((1 << bits) - 1))


def netpbm(samples, white=65535, text=False):
    kind = {(1, True): "P2", (3, True): "P3", (1, False): "P5", (3, False): "P6"}[samples.shape[-1], text]
    head = f"{kind} {samples.shape[1]} {samples.shape[0]} {white}\n".encode()
    return head + (" ".join(map(str, samples.ravel())).encode() if text else samples.astype(">u2").tobytes())


WRITERS = {
    "grey PNG": lambda bits: png(ramp(bits), 16),
    "colour PNG": lambda bits: png(ramp(bits, 3), 16),
    "grey and alpha PNG": lambda bits: png(np.dstack([ramp(bits), np.full((3, 4), 65535)]), 16),
    "colour and alpha PNG": lambda bits: png(np.dstack([ramp(bits, 3), np.full((3, 4), 65535)]), 16),
    "alpha of few bits": lambda bits: png(np.dstack([ramp(bits, 3), np.full((3, 4), (1 << bits) - 1)]), 16),
    "grey TIFF": lambda bits: tiff(ramp(bits)),
    "grey TIFF, other order": lambda bits: tiff(ramp(bits), order=">"),
    "colour TIFF": lambda bits: tiff(ramp(bits, 3)),
    "colour TIFF, other order": lambda bits: tiff(ramp(bits, 3), order=">"),
    "colour and alpha TIFF": lambda bits: tiff(
        np.dstack([ramp(bits, 3), np.full((3, 4), 65535)]), tags={338: ("H", 2)}
    ),
    "TIFF, 0 is white": lambda bits: tiff((1 << bits) - 1 - ramp(bits), tags={262: ("H", 0)}),
    "PGM": lambda bits: netpbm(ramp(bits)),
    "PPM": lambda bits: netpbm(ramp(bits, 3)),
    "text PGM": lambda bits: netpbm(ramp(bits), text=True),
    "text PPM": lambda bits: netpbm(ramp(bits, 3), text=True),
}


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("writer", WRITERS)
def test_white_is_the_greatest_sample_that_the_bits_allow(writer, bits):
    found = decode(WRITERS[writer](bits), ReadOptions())
    assert found.bits == bits
    assert np.abs(found.pixels - levels(ramp(bits), bits)).max() == 0
    assert found.pixels.shape[-1] == (1 if "rey" in writer or "PGM" in writer or "0 is" in writer else 3)


def test_compressed_colours_too():
    """Pillow reads compressed files by another decoder, in the order of this machine's bytes."""
    data = tiff(ramp(12, 3))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert np.asarray(image).max() == 15  # what Pillow alone makes of 12 bits
    stream = io.BytesIO()
    grey = Image.fromarray(ramp(12)[..., 0].astype(np.uint16))
    grey.save(stream, "TIFF", compression="tiff_lzw")
    assert decode(stream.getvalue(), ReadOptions()).bits == 12
    before = TiffImagePlugin.READ_LIBTIFF
    try:
        TiffImagePlugin.READ_LIBTIFF = True
        assert np.array_equal(decode(data, ReadOptions()).pixels, levels(ramp(12, 3), 12))
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (tiff(ramp(10)[:, :2], packed=True), 12),  # 12 bits a sample, of which the first two columns use 10
        (tiff(ramp(10), tags={281: ("H", 4095)}), 12),  # MaxSampleValue
        (tiff(ramp(10), tags={281: ("H", 65535)}), 10),
        (netpbm(ramp(10), white=4095), 16),  # a PGM says what is white, and Pillow scales it
    ],
)
def test_a_file_that_says_its_bits(data, bits):
    found = decode(data, ReadOptions())
    assert found.bits == bits
    white = 4095 if data[:2] == b"P5" or bits == 12 else (1 << bits) - 1
    samples = ramp(10)[:, : found.pixels.shape[1]]
    assert np.abs(found.pixels - np.rint(samples * 255 / white)).max() <= 1


def test_images_in_memory():
    for image in (
        Image.fromarray(ramp(12)[..., 0].astype(np.uint16)),
        Image.fromarray(ramp(12)[..., 0].astype(np.int32)),
    ):
        assert np.array_equal(picture_pixels(image, ReadOptions()).pixels, levels(ramp(12), 12))


def test_colours_that_were_multiplied_by_alpha():
    alpha = np.array([[65535, 32768, 16384, 0]])
    colours = np.array([[[65535, 32768, 0]] * 4]) * alpha[..., None] // 65535
    data = tiff(np.dstack([colours, alpha]), tags={338: ("H", 1)})
    share = alpha[..., None] / 65535
    wanted = np.array([255, 127.5, 0]) * share + 255 * (1 - share)
    assert np.abs(decode(data, ReadOptions()).pixels - wanted).max() <= 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(ramp(16, 3), planes=True), "16-bit channels lie in separate planes"),
        (tiff(ramp(16, 4), planes=True, tags={338: ("H", 2)}), "16-bit channels lie in separate planes"),
        (
            encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
            "floating-point numbers, which",
        ),
        (
            encoded(Image.fromarray((ramp(8)[..., 0] - 1).astype(np.int32)), "TIFF"),
            "go from -1 to 254, which has",
        ),
        (encoded(Image.fromarray((ramp(8)[..., 0] << 10).astype(np.int32)), "TIFF"), "go from 0 to 261120"),
        (tiff(ramp(8), tags={254: ("L", 1)}), "the preview of a raw photograph"),
        (tiff(ramp(8), tags={50706: ("L", 1)}), "the preview of a raw photograph"),
    ],
)
def test_samples_without_a_white_are_refused(data, reason):
    with pytest.raises(BadImageError, match=reason):
        decode(data, ReadOptions())


def folder_of(path, *bits):
    """Write a PNG for each number of bits."""
    path.mkdir()
    for index, each in enumerate(bits):
        (path / f"{index}.png").write_bytes(png(ramp(each), 16))
    return open_source(str(path))


def test_of_a_data_set_the_image_with_most_bits_decides(tmp_path):
    """A dark photograph keeps its relation to those beside it."""
    source = folder_of(tmp_path / "photos", 10, 12, 8, 14)
    images = load_images(str(tmp_path / "photos"))
    assert sorted(images.images.flatten(1).amax(1).tolist()) == sorted(
        round(((1 << bits) - 1) * 255 / ((1 << 14) - 1)) for bits in (10, 12, 8, 14)
    )
    for rows in (1, 3):  # parts of one image each, and parts in which they meet
        manifest = make(source, tmp_path / f"shards-{rows}", rows=rows)
        assert manifest.fingerprint == images.fingerprint
    found, _ = load_all(tmp_path / "shards-1")
    assert found.max() == 255


def test_images_of_8_bits_keep_their_levels_beside_others(tmp_path):
    folder_of(tmp_path / "photos", 12)
    Image.new("L", (4, 3), 77).save(tmp_path / "photos" / "eight.png")
    images = load_images(str(tmp_path / "photos"))
    assert sorted(images.images.flatten(1).amax(1).tolist()) == [77, 255]


def test_bits_that_are_given_are_the_least(tmp_path):
    folder_of(tmp_path / "photos", 10)
    assert load_images(str(tmp_path / "photos")).images.max() == 255
    found = decode((tmp_path / "photos" / "0.png").read_bytes(), ReadOptions(bits=12))
    assert (found.bits, found.pixels.max()) == (12, 64)
    assert decode(png(ramp(14), 16), ReadOptions(bits=12)).bits == 14

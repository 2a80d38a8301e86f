"""Transparent pixels show the background, before an image is resized, and in every form of transparency."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cm_ray.data.interface.reading import Reading
from cm_ray.data.interface.source import ReadOptions
from cm_ray.data.pictures.images import decode, picture_pixels
from cm_ray.errors import SettingError
from tests.data.drawn import encoded, png

CASE = Path(__file__).parents[3] / "shared" / "cases" / "transparent"
PINK, GROUNDS = (210, 60, 130), {"white": 255, "black": 0, "grey": 128}
ALPHA = np.array([[0, 255, 128, 0, 64, 255]], np.uint8)


def read(data, **options):
    return decode(data, ReadOptions(**options)).pixels


def over(colours, alpha, ground):
    """Return colours over a ground, in the order that a person would draw them."""
    share = alpha[..., None] / 255
    return np.rint(colours * share + np.asarray(ground) * (1 - share))


def palette(alpha):
    """Return an image of a palette of six pinks, with an alpha each."""
    image = Image.fromarray(np.arange(6, dtype=np.uint8)[None], "P")
    image.putpalette(PINK * 6)
    return encoded(image, transparency=bytes(alpha[0].tolist()))


def near(found, wanted):
    return np.abs(found.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("ground", [*GROUNDS, "#0a14ff"])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "TGA", "palette", "16 bits"])
def test_colours_with_alpha(form, ground):
    colours = np.full((1, 6, 3), PINK, np.uint8)
    layers = np.dstack([colours, ALPHA])
    if form == "palette":
        data = palette(ALPHA)
    elif form == "16 bits":
        data = png(layers.astype(int) * 257, 16)
    else:
        data = encoded(Image.fromarray(layers), form, **({"lossless": True} if form == "WEBP" else {}))
    wanted = over(colours, ALPHA, Reading(background=ground).ground)
    found = decode(data, ReadOptions(background=ground))
    assert near(found.pixels, wanted)
    assert found.transparent


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_alpha_stays_grey_where_the_ground_is_grey(depth):
    grey = np.full((1, 6, 1), 90)
    data = png(np.dstack([grey, ALPHA]) * (257 if depth == 16 else 1), depth)
    for ground, level in GROUNDS.items():
        found = read(data, background=ground)
        assert found.shape == (1, 6, 1)
        assert near(found, over(grey, ALPHA, level))
    blue = read(data, background="#0000ff")
    assert near(blue, over(grey.repeat(3, -1), ALPHA, (0, 0, 255)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_level_that_stands_for_transparency(depth):
    white = (1 << depth) - 1
    samples = np.array([[0, 1, white, 1]]) if depth > 1 else np.array([[0, 1, 1, 0]])
    found = read(png(samples[..., None], depth, key=[1]), background="#00ff00", bits=16)
    seen = np.rint(samples[..., None].repeat(3, -1) * 255 / white)
    assert np.array_equal(found, np.where(samples[..., None] == 1, (0, 255, 0), seen))


@pytest.mark.parametrize("depth", [8, 16])
def test_a_colour_that_stands_for_transparency(depth):
    key = (9, 200, 31) if depth == 8 else (300, 700, 40_000)
    samples = np.array([[key, (key[0], key[1], key[2] + 1), ((1 << depth) - 1,) * 3]])
    found = read(png(samples, depth, key=key))
    beside = np.rint(samples[0, 1] * 255 / ((1 << depth) - 1))
    assert np.array_equal(found[0], [(255, 255, 255), beside, (255, 255, 255)])


def test_the_transparent_index_of_a_gif():
    image = Image.fromarray(np.array([[0, 1, 0]], np.uint8), "P")
    image.putpalette([*PINK, 0, 0, 0])
    found = read(encoded(image, "GIF", transparency=1))
    assert np.array_equal(found[0], [PINK, (255, 255, 255), PINK])


@pytest.mark.parametrize("size", [0, 2, 4])
@pytest.mark.parametrize("channels", [2, 4])
def test_nothing_but_transparency_is_the_ground(channels, size):
    """No colour that transparent pixels hide comes into the image."""
    samples = np.random.default_rng(0).integers(0, 256, (4, 4, channels))
    samples[..., -1] = 0
    found = read(png(samples, 8), background="grey", size=size)
    assert (found == 128).all()


def test_the_ground_comes_before_the_resizing():
    """Hidden colours would bleed into the edge if the image were resized with them."""
    drawn = np.zeros((32, 32, 4), np.uint8)
    drawn[..., :3] = (0, 255, 0)
    drawn[8:24, 8:24] = (255, 0, 0, 255)
    found = read(encoded(Image.fromarray(drawn)), size=12)
    flat = np.full((32, 32, 3), 255, np.uint8)
    flat[8:24, 8:24] = (255, 0, 0)
    assert np.array_equal(found, read(encoded(Image.fromarray(flat)), size=12))
    assert (found[..., 1] == found[..., 2]).all()


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA"])
def test_other_modes_of_images_in_memory(mode):
    drawn = Image.fromarray(np.dstack([np.full((1, 6, 3), 90, np.uint8), ALPHA]))
    image = drawn.convert("LA").convert("La") if mode == "La" else drawn.convert(mode)
    found = picture_pixels(image, ReadOptions(channels=1)).pixels
    assert np.abs(found - over(np.full((1, 6, 1), 90), ALPHA, 255)).max() <= 2


def test_an_opaque_image_does_not_count_as_transparent():
    opaque = Image.new("RGBA", (3, 2), (1, 2, 3, 255))
    assert not decode(encoded(opaque), ReadOptions()).transparent


@pytest.mark.parametrize("ground", ["red", "#fff", "#gggggg", "WHITE"])
def test_a_ground_that_is_no_colour_is_refused(ground):
    with pytest.raises(SettingError, match="background is white, black, grey or #rrggbb, not"):
        Reading(background=ground)


@pytest.mark.skipif(not CASE.is_dir(), reason="shared/cases is not there")
def test_drawn_sprites():
    """The outside of a sprite is white, whatever its file says there."""
    for file in sorted(CASE.glob("*.png")):
        with Image.open(file) as image:
            layers = np.asarray(image.convert("RGBA"))
        found = read(file.read_bytes())
        assert (layers[..., 3] == 0).any()
        assert (found[layers[..., 3] == 0] == 255).all()
        assert near(found, over(layers[..., :3], layers[..., 3], 255))

"""Shards are as they were made: options that want something else are refused, and equal options agree."""

import numpy as np
import pytest
from PIL import Image

from cm_ray.data.glimpse import glimpse
from cm_ray.data.interface.reading import MOST_PIXELS, Reading, ReadOptions
from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.data.shards.manifest import Manifest
from cm_ray.data.shards.shard_writer import recipe_of
from cm_ray.errors import SettingError, UserError
from tests.data.drawn import png
from tests.data.making import make


def shards(tmp_path, samples, depth=8, **options):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "x.png").write_bytes(png(samples, depth))
    make(open_source(str(folder)), tmp_path / "shards", **options)
    return tmp_path / "shards"


SPRITE = np.full((6, 6, 4), 60)
OPAQUE = SPRITE[..., :3]
REFUSED = {
    "size": (
        OPAQUE,
        {},
        {"size": 8},
        "holds shards of 6x6 images, not of size 8; make shards of that size, or",
    ),
    "grey": (
        OPAQUE,
        {},
        {"channels": 1},
        "holds shards of RGB images, not of grey ones; make shards",
    ),
    "colour": (
        OPAQUE,
        {"channels": 1},
        {"channels": 3},
        "shards of grey images, not of RGB ones; make shards",
    ),
    "ground": (
        SPRITE,
        {},
        {"background": "black"},
        "shards of transparent images on white, not on black; ma",
    ),
    "other": (SPRITE, {"background": "#102030"}, {"background": "white"}, "images on #102030, not on white"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_options_are_refused(case, tmp_path):
    samples, made, wanted, sentence = REFUSED[case]
    folder = shards(tmp_path, samples, **made)
    for read in (lambda: load_images(folder, **wanted), lambda: glimpse(folder, ReadOptions(**wanted))):
        with pytest.raises(UserError, match=sentence):
            read()


def test_other_bits_are_refused(tmp_path):
    folder = shards(tmp_path, np.full((6, 6, 1), 900), 16)
    assert Manifest.load(folder).reading.bits == 10
    assert load_images(folder, bits=10).images.max() == round(900 * 255 / 1023)
    with pytest.raises(UserError, match="holds shards of samples of 10 bits, not of 12; make shards"):
        load_images(folder, bits=12)


@pytest.mark.parametrize(
    ("samples", "made", "wanted"),
    [
        (OPAQUE, {}, {"background": "black"}),  # there is nothing transparent
        (SPRITE, {"background": "black"}, {"background": "#000000"}),
        (SPRITE, {"background": "black"}, {}),
        (SPRITE, {"size": 4, "channels": 1}, {"size": 4, "channels": 1}),
        (OPAQUE, {}, {"bits": 16}),
    ],
)
def test_options_that_agree(samples, made, wanted, tmp_path):
    folder = shards(tmp_path, samples, **made)
    assert load_images(folder, **wanted).count == 1


def test_the_recipe_of_shards_has_all_that_decides_their_pixels(tmp_path):
    Image.new("RGB", (6, 6)).save(tmp_path / "x.png")
    source = open_source(str(tmp_path))
    others = [
        {},
        {"size": 4},
        {"channels": 1},
        {"channels": 3},
        {"background": "black"},
        {"background": "#000001"},
        {"bits": 12},
        {"most_pixels": 100},
    ]
    recipes = {recipe_of(source, 10, ReadOptions(**options)) for options in others}
    assert len(recipes) == len(others)
    same = [{"background": "white"}, {"on_bad_image": "skip"}]
    assert {recipe_of(source, 10, ReadOptions(**options)) for options in same} < recipes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": -1}, "size must not be negative, but is -1"),
        ({"channels": 2}, "channels is 1, 3 or 0, not 2"),
        ({"bits": 7}, "bits is 8 to 16, or 0, not 7"),
        ({"bits": 17}, "bits is 8 to 16, or 0, not 17"),
        ({"background": "pink"}, "background is white, black, grey or #rrggbb, not 'pink'"),
        ({"on_bad_image": "maybe"}, "on_bad_image is 'raise' or 'skip', not 'maybe'"),
        ({"most_pixels": 0}, "most_pixels must be at least 1, not 0"),
    ],
)
def test_options_out_of_range(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        ReadOptions(**options)


def test_options_that_are_set_replace_others():
    before = ReadOptions(size=4, background="black", most_pixels=9)
    after = before.updated(ReadOptions(channels=3, background="grey"))
    assert after == ReadOptions(size=4, background="grey", most_pixels=9, channels=3)
    assert ReadOptions().most_pixels == MOST_PIXELS > 178_956_970, "more than Pillow refuses"
    assert Reading().used(0) == Reading(background="white")

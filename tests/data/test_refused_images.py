"""`load_images` refuses with a sentence that names what is wrong and what to give instead."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset

from cm_ray.data.interface.classes import MOST_CLASSES, classes_of
from cm_ray.data.load_images import load_images
from cm_ray.data.pictures.pixel_arrays import Scale
from cm_ray.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), np.uint8)
FLOATS = IMAGES / 255
LABELS = np.arange(6)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(IMAGES)


class Named(list):
    classes = ("a", "b")


def replaced(array, value):
    changed = array.copy()
    changed[2, 3, 4, 0] = value
    return changed


def picture(width, height, mode="RGB"):
    return Image.new(mode, (width, height))


REFUSED = {
    # types of pixels
    "int64": (IMAGES.astype(np.int64), "The pixels of the array are int64; give uint8 pixels, or floats"),
    "bool": (torch.from_numpy(IMAGES > 99), "The pixels of the tensor are bool; give uint8"),
    "objects": (IMAGES.astype(object), "The pixels of the array are object"),
    "texts": (np.array(["cat"]), "The pixels of the array are <U3"),
    "item of int": ([IMAGES[0].astype(np.int32)], "The pixels of item 0 of list are int32"),
    # their range
    "0 to 255": (IMAGES.astype(np.float32), "The floating-point pixels of the array go from 0 to 255; give"),
    "standardised": ((FLOATS - 0.5) / 0.25, "go from -2 to 2; give uint8 pixels, or floats that span"),
    "no number": (replaced(FLOATS, np.nan), "of the array are infinite or not numbers in places; give"),
    "infinite": (replaced(FLOATS, np.inf), "infinite or not numbers in places"),
    "constant": (
        np.zeros((2, 8, 8, 3)),
        r"go from 0 to 0, which could be of the range \[-1, 1\] or \[0, 1\]",
    ),
    "dark": (FLOATS / 4, r"go from 0 to 0.25, which could be"),
    "bright": (FLOATS / 4 + 0.75, r"go from 0.75 to 1, which could be"),
    "overshoot": (replaced(FLOATS, -0.1), r"go from -0.1 to 1, which could be of .*; give uint8 pixels"),
    "later out of range": (
        [*([FLOATS[0]] * 256), replaced(FLOATS, -0.7)[2]],
        r"A floating-point pixel of list is -0.7, outside of the range \[0, 1\] of the first images",
    ),
    "later of another type": (
        [*([IMAGES[0]] * 256), FLOATS[0]],
        "The pixels of item 256 of list are float64, unlike those of the first images; give all as uint8",
    ),
    # shapes
    "vector": (np.zeros(5, np.uint8), r"The shape of the array is \(5,\); give \(n, h, w, c\) or"),
    "number": (np.array(3, np.uint8), r"The shape of the array is \(\); give"),
    "five axes": (IMAGES[None], r"The shape of the array is \(1, 6, 8, 9, 3\); give \(n, h, w, c\)"),
    "one image": (IMAGES[0], r"is \(8, 9, 3\), and which axis holds the channels is not clear; give \(n, h"),
    "one image, CHW": (torch.zeros(3, 8, 8, dtype=torch.uint8), r"is \(3, 8, 8\), and which axis"),
    "tiny images": (IMAGES[:, :3, :3], r"is \(6, 3, 3, 3\), and which axis .* larger than 3x3"),
    "transparent": (np.zeros((2, 8, 8, 4), np.uint8), r"is \(2, 8, 8, 4\), with 4 channels; drop the transp"),
    "two channels": (np.zeros((2, 8, 8, 2), np.uint8), r"is \(2, 8, 8, 2\); give .* with 1 or 3 channels"),
    "item of four axes": ([IMAGES], r"shape of item 0 of list is \(6, 8, 9, 3\); give \(h, w, c\) or \(c, h"),
    "item of two ways": ([IMAGES[0, :3, :3]], r"shape of item 0 of list is \(3, 3, 3\), and which axis"),
    # nothing
    "empty": (IMAGES[:0], r"There are no pixels in the array, whose shape is \(0, 8, 9, 3\); give at least"),
    "no height": (IMAGES[:, :0], "There are no pixels in the array"),
    "empty list": ([], "list holds no image; give other data"),
    # sizes
    "mixed sizes": (
        [picture(8, 8), picture(8, 9)],
        "different sizes: item 0 of list is 8x8 and item 1 of list is 8x9; set size to crop",
    ),
    "mixed arrays": ([IMAGES[0], IMAGES[0, :4]], "item 0 of list is 9x8 and item 1 of list is 9x4; set size"),
    # labels
    "too few labels": ((IMAGES, LABELS[:5]), r"labels of the array have the shape \(5,\); .* its 6 images"),
    "one-hot": ((IMAGES, np.eye(6, dtype=int)), r"labels of the array have the shape \(6, 6\)"),
    "float labels": ((IMAGES, LABELS / 2), "labels of the array are float64; number the classes 0, 1, 2"),
    "text labels": ((IMAGES, list("abcdef")), "labels of the array are <U1; number the classes"),
    "bool labels": ((IMAGES, LABELS > 2), "labels of the array are bool"),
    "some without": ((IMAGES, LABELS - 1), r"array has images without a label \(or with the label -1\)"),
    "negative": ((IMAGES, LABELS - 7), r"without a label \(or with the label -7\) among others"),
    "no number of a class": (
        (IMAGES, LABELS * 10**6),
        "array has the label 5000000, and there may be at most",
    ),
    "label without a name": (
        Named([(IMAGES[0], 0), (IMAGES[1], 2)]),
        "Named has the label 2 but names only 2 classes; correct",
    ),
    "item's label": ([(IMAGES[0], "cat")], "label of item 0 of list is of type str, not an integer; number"),
    "labels of 64 bits": (
        (IMAGES, np.full(len(IMAGES), 2**64 - 1, np.uint64)),
        "has the label 9223372036854775807, and there may be at most",
    ),
    "item's label of 71 bits": ([(IMAGES[0], 2**70)], "has the label 9223372036854775807, and there may"),
    "item's bool": ([(IMAGES[0], True)], "label of item 0 of list is of type bool"),
    "item's float": ([(IMAGES[0], torch.tensor(1.0))], "label of item 0 of list is of type float"),
    "item's vector": ([(IMAGES[0], np.arange(2))], "label of item 0 of list is of type ndarray"),
    "one item without": ([(IMAGES[0], 1), IMAGES[1]], "list has images without a label"),
    # things of other types
    "dict": ({"image": IMAGES}, "The data is of type dict; give a folder, a zip or a tar archive of images"),
    "number of images": (7, "The data is of type int; give"),
    "None": (None, "The data is of type NoneType; give"),
    "triple": (
        (IMAGES, LABELS, LABELS),
        r"a tuple of 3 \(ndarray, ndarray, ndarray\); give \(images, labels",
    ),
    "tuple of PIL": ((picture(8, 8), 1), r"a tuple of 2 \(Image, int\); give \(images, labels\)"),
    "iterable": (Stream(), "The data is Stream, an iterable data set, .* give a map-style torch Dataset"),
    "item of three": ([(IMAGES[0], 1, 2)], r"There are 3 parts in item 0 of list; give an image, or \(image"),
    "item of dict": ([{"image": 1}], "image of item 0 of list is of type dict; give PIL images, tensors"),
    "item of mode F": (
        [picture(8, 8, "F")],
        r"item 0 of list is not a readable image \(its samples are float",
    ),
    "item of bytes": ([b"no image"], "item 0 of list is not a readable image"),
    # paths
    "no path": ("nowhere/at/all", "There is no nowhere/at/all; give the path of"),
    "no name": ("digit", r"no data set and no path 'digit'; did you mean 'digits'\?"),
    "nothing": ("", "no data set and no path ''"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    data, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence) as raised:
        load_images(data)
    said = str(raised.value)
    assert "\n" not in said
    assert said[-1] in ".?"


def test_options_that_do_not_fit():
    with pytest.raises(UserError, match="The data is a ndarray, which has no split 'test'; leave split out"):
        load_images(IMAGES, split="test")
    with pytest.raises(UserError, match="digits has no split 'test'"):
        load_images("digits", split="test")
    with pytest.raises(UserError, match="size must not be negative, but is -1"):
        load_images(IMAGES, size=-1)
    with pytest.raises(UserError, match="on_bad_image is 'raise' or 'skip', not 'ignore'"):
        load_images(IMAGES, on_bad_image="ignore")


def test_size_makes_mixed_sizes_one():
    assert load_images([picture(8, 8), picture(8, 9)], size=4).shape == (3, 4, 4)


def test_unreadable_items_are_skipped_if_wanted():
    found = load_images([IMAGES[0], b"no image", picture(9, 8)], on_bad_image="skip")
    assert (len(found), found.skipped) == (2, 1)
    with pytest.raises(UserError, match=r"list holds no readable image \(1 were skipped\); give other data"):
        load_images([b"no image"], on_bad_image="skip")


@pytest.mark.parametrize(
    ("low", "high", "black"), [(-1, 1, -1), (-0.51, 0.2, -1), (0, 1, 0), (0.49, 0.51, 0), (0, 0.6, 0)]
)
def test_ranges_that_are_clear(low, high, black):
    assert Scale.of(low, high, "x").low == black


def test_floats_are_rounded_to_the_nearest():
    levels = np.arange(256)
    for low in (-1.0, 0.0):
        exact = low + levels / 255 * (1 - low)
        for off in (-0.49, 0, 0.49):
            near = np.clip(exact + off / 255 * (1 - low), low, 1)
            assert Scale(low, "x").pixels(near).tolist() == levels.tolist()


def test_classes_of_labels():
    assert classes_of("x", (), {-1: 3}) == ((), ())
    assert classes_of("x", ("a", "b"), {-1: 3}) == ((), ())
    assert classes_of("x", (), {0: 1, 2: 5}) == (("0", "1", "2"), (1, 0, 5))
    assert classes_of("x", ("a", "b", "c"), {1: 4, 0: 2}) == (("a", "b", "c"), (2, 4, 0))
    assert len(classes_of("x", (), {MOST_CLASSES - 1: 1})[0]) == MOST_CLASSES

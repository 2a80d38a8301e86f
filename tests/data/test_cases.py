"""Small inputs of the kinds that people bring, which lie beside the checkout, are read as they were meant."""

from pathlib import Path

import numpy as np
import pytest

from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError

CASES = Path(__file__).parents[3] / "shared" / "cases"
pytestmark = pytest.mark.skipif(
    not CASES.is_dir(), reason="there are no cases beside the checkout (../shared)"
)


def counts(images):
    return dict(
        zip(images.class_names, np.bincount(images.labels, minlength=images.classes).tolist(), strict=True)
    )


def test_hub_names_with_hash():
    path = CASES / "hub_names_with_hash"
    assert [len(load_images(path, split=split)) for split in ("", "train", "valid", "validation")] == [
        6,
        6,
        3,
        3,
    ]
    assert load_images(path, split="valid").source == "hub_names_with_hash-valid"
    with pytest.raises(UserError, match="has no split 'banana'; known are train, valid"):
        load_images(path, split="banana")


def test_splits_and_macosx():
    path = CASES / "splits_and_macosx"
    for split in ("", "train", "test"):
        images = load_images(path, split=split)
        assert counts(images) == {"cat": 3, "dog": 3}
        assert images.source == f"splits_and_macosx-{split or 'train'}"


def test_numbered_classes():
    images = load_images(CASES / "numbered_classes")
    assert counts(images) == {str(number): 4 for number in range(12)}
    for number in range(12):  # a folder's images have its number times 20 as their grey
        levels = images.images[images.labels == number]
        assert levels.unique().tolist() == [20 * number]


def test_mixed_endings():
    path = CASES / "mixed_endings"
    images = load_images(path)
    assert counts(images) == {"cat": 4, "dog": 8, "eel": 4}
    assert open_source(str(path)).left_out == ()


def test_edm_unzipped():
    images = load_images(CASES / "edm_unzipped")
    assert counts(images) == {"0": 6, "1": 6}
    assert open_source(str(CASES / "edm_unzipped")).layout == "image files with labels in dataset.json"
    red, blue = (images.images[:, channel, 0, 0].tolist() for channel in (0, 2))
    assert [(r, b) for r, b in zip(red, blue, strict=True)] == [
        (255, 0) if label == 0 else (0, 255) for label in images.labels.tolist()
    ]


def test_labels_from_one():
    images = load_images(CASES / "labels_from_one" / "x.npz")
    assert counts(images) == {"0": 0, "1": 4, "2": 4, "3": 4, "4": 4}
    with np.load(CASES / "labels_from_one" / "x.npz") as arrays:
        (labels,) = (array for array in arrays.values() if array.ndim == 1)
        assert images.labels.tolist() == labels.tolist()  # they are not moved
    assert "where no image is of 0." in images.describe()


def test_named_unlike_sorted():
    paths = [CASES / "named_unlike_sorted" / name for name in ("a.parquet", "b.parquet")]
    theirs, ours = (load_images(path) for path in paths)
    assert (theirs.class_names, ours.class_names) == (("trouser", "coat"), ("coat", "trouser"))
    colours = {"trouser": [255, 0, 0], "coat": [0, 0, 255]}
    for images in (theirs, ours):  # a class of the one file has the images of the same name in the other
        named = [images.class_names[label] for label in images.labels.tolist()]
        assert images.images[:, :, 0, 0].tolist() == [colours[name] for name in named]


def test_transparent():
    path = CASES / "transparent"  # opaque green on magenta that is transparent: nobody sees the magenta
    images = load_images(path)
    colours = images.images.permute(0, 2, 3, 1).reshape(-1, 3).unique(dim=0).tolist()
    assert colours == [[0, 200, 0], [255, 255, 255]]
    small = load_images(path, size=8).images.permute(0, 2, 3, 1).reshape(-1, 3)
    assert (small[:, 0] == small[:, 2]).all(), "magenta is mixed into resized pixels"
    assert (small[:, 1] >= 200 - 25).all()
    black = load_images(path, background="black").images
    assert black[:, :, 0, 0].tolist() == [[0, 0, 0]] * 4

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

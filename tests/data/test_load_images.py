"""Images in memory: the same images give the same pixels, labels, names and fingerprint in every form."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from cm_ray.data.load_images import load_images
from cm_ray.data.open_source import open_source
from cm_ray.errors import UserError
from tests.data.forms import (
    FORMS,
    Pictures,
    all_digits,
    as_folder,
    as_shard_folder,
    check_equal,
    in_one_order,
    shards_of,
)


@pytest.fixture(scope="module")
def digits():
    return all_digits()


@pytest.fixture(scope="module")
def known():
    return load_images("digits")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form, digits, known, tmp_path):
    found = load_images(FORMS[form](*digits, tmp_path / "data"))
    check_equal(found, known, ordered=form != "folder")  # a folder comes in a shuffle of its own
    assert found.describe() == (
        "1,797 images of 8x8, grey, 10 classes: 0 (178), 1 (182), 2 (177), 3 (183), 4 (181), 5 (182), "
        "6 (181), 7 (179), 8 (174), 9 (180)."
    )


def test_digits_are_what_they_are(digits, known):
    np.testing.assert_array_equal(known.images.numpy(), digits[0].transpose(0, 3, 1, 2))
    assert known.labels.tolist() == digits[1].tolist()
    assert (known.count, len(known), known.shape, known.classes) == (1797, 1797, (1, 8, 8), 10)
    assert known.source == "digits"
    assert known.fingerprint.startswith("25a99109e18df8e3")


def test_loading_needs_no_ray(tmp_path):
    import subprocess

    code = "import sys; from cm_ray.data.load_images import load_images; load_images('digits'); "
    code += "sys.exit(any(name in sys.modules for name in ('ray', 'mlflow', 'matplotlib', 'torchvision')))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


@pytest.mark.parametrize(
    "form", ["folder", "npz", "tensor", "Dataset of PIL", "Dataset of tensors", "ImageSet"]
)
def test_all_forms_are_resized_alike(form, digits, tmp_path):
    images, labels = digits[0][:50], digits[1][:50]
    wide = np.concatenate([images, images // 2], axis=2)  # 8 x 16: the centre is cropped
    found = load_images(FORMS[form](wide, labels, tmp_path / "data"), size=6)
    expected = load_images((wide, labels), size=6)
    assert found.shape == (1, 6, 6)
    assert in_one_order(found) == in_one_order(expected)
    assert found.fingerprint == expected.fingerprint
    one = Image.fromarray(wide[0, :, 4:12, 0]).resize((6, 6), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(expected.images[0, 0].numpy(), np.asarray(one))


def test_a_folder_has_the_order_of_its_shards(digits, tmp_path):
    folder = as_folder(*digits, tmp_path / "data")
    found = load_images(folder)
    shards = load_images(shards_of(open_source(str(folder)), tmp_path / "shards"))
    check_equal(found, shards)
    assert len(set(found.labels[:50].tolist())) > 5, "shuffled"


def test_shards_of_another_size(digits, tmp_path, known):
    shards = as_shard_folder(*digits, tmp_path / "data")
    check_equal(load_images(shards, size=8), known)
    with pytest.raises(UserError, match=r"holds shards of 8x8 images, not of size 16; make shards"):
        load_images(shards, size=16)
    with pytest.raises(UserError, match=r"holds shards, which have no split 'test'; leave split out"):
        load_images(shards, split="test")


def test_images_in_memory_are_not_read_again(known):
    assert load_images(known) is known
    assert load_images(known, size=8) is known
    assert load_images(known, size=4).shape == (1, 4, 4)


def test_colour_and_grey_become_colour():
    colours = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), np.uint8)
    pictures = [Image.fromarray(one) for one in colours]
    pictures[1] = pictures[1].convert("L")
    found = load_images(pictures)
    assert found.shape == (3, 4, 5)
    np.testing.assert_array_equal(found.images[0].numpy(), colours[0].transpose(2, 0, 1))
    np.testing.assert_array_equal(found.images[1, 2].numpy(), np.asarray(pictures[1]))


def test_without_labels():
    images = np.random.default_rng(0).integers(0, 256, (1, 9, 5, 3), np.uint8)
    for data in (images, torch.from_numpy(images), (images, None), [images[0]], Pictures(images)):
        found = load_images(data)
        assert (found.labels.tolist(), found.class_names) == ([-1], ())
        assert found.describe() == "1 image of 5x9, RGB, without labels."


def test_names_of_classes():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    animals = Pictures(images, [0, 1, 2, 1], ["cat", "dog", ("great white", "shark")])
    assert load_images(animals).class_names == ("cat", "dog", "great white, shark")
    assert load_images(Subset(animals, [0, 3])).class_names == ("cat", "dog", "great white, shark")
    many = load_images((images, [0, 1, 11, 2]))
    assert many.class_names == tuple(map(str, range(12)))
    assert many.describe() == (
        "4 images of 8x8, RGB, 12 classes: 0 (1), 1 (1), 2 (1), 3 (0), 4 (0), 5 (0), 6 (0), 7 (0), 8 (0), "
        "9 (0) and 2 more, where no image is of 3, 4, 5, 6, 7, 8, 9, 10."
    )


def test_order_changes_neither_names_nor_fingerprint(digits, known):
    order = np.random.default_rng(0).permutation(1797)
    assert load_images((digits[0][order], digits[1][order])).fingerprint == known.fingerprint
    assert load_images((digits[0], digits[1][order])).fingerprint != known.fingerprint


def test_unreadable_files_are_skipped_if_wanted(digits, tmp_path):
    folder = as_folder(digits[0][:5], digits[1][:5], tmp_path / "data")
    next(folder.glob("*/*.png")).write_bytes(b"no image")
    with pytest.raises(UserError, match=r"png is not a readable image .*set on_bad_image to skip"):
        load_images(folder)
    found = load_images(folder, on_bad_image="skip")
    assert (len(found), found.skipped) == (4, 1)
    assert found.describe().endswith("; 1 unreadable ones were skipped.")


def test_a_path_is_not_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    as_folder(np.zeros((2, 4, 4, 3), np.uint8), [0, 0], Path("digits"))
    assert len(load_images(Path("digits"))) == 2
    assert len(load_images("digits")) == 1797


def test_names_of_classes_are_composed_as_those_of_folders():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    found = load_images(Pictures(images, [0, 1], ["cafe\u0301", "Caf\u00e9"]))
    assert found.class_names == ("caf\u00e9", "Caf\u00e9")

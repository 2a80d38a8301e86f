"""The front door: every form of images to edit, and what scores, trainings and edits refuse to ignore."""

import numpy as np
import pytest
import torch
from PIL import Image

import cm_ray as cm
from tests.api.conftest import TINY


def test_upscaling_keeps_the_pixels_of_a_small_image(shaken, digits):
    small = digits[0][:2].reshape(2, 4, 2, 4, 2, 1).mean((2, 4)).round().astype(np.uint8)
    patches = np.asarray(shaken.upscale(small, label=0, steps=3)).reshape(2, 4, 2, 4, 2, 1).astype(float)
    whole = (patches.min((2, 4)) > 0) & (patches.max((2, 4)) < 255)  # nothing is clipped
    assert whole.sum() > 10
    assert np.abs(patches.mean((2, 4)) - small)[whole].max() <= 1


def test_images_to_edit_may_be_arrays_and_tensors(shaken, digits):
    array = digits[0][:2]
    tensor = torch.from_numpy(array).permute(0, 3, 1, 2)
    wanted = shaken.denoise(array, 0.5, label=1)
    for images in (tensor, list(tensor), [array[0], tensor[1]], list(array[..., 0])):
        assert np.array_equal(shaken.denoise(images, 0.5, label=1), wanted)
    assert np.array_equal(shaken.denoise(tensor[0], 0.5, label=1), wanted[:1])
    with pytest.raises(cm.UserError, match=r"image 0 must be uint8 \(h, w\) or \(h, w, c\) with 1 or 3"):
        shaken.denoise(np.zeros((8, 8, 2), np.uint8), 0.5, label=1)


def test_settings_that_are_not_read_are_refused(run, shaken, photos, digits):
    with pytest.raises(cm.UserError, match="A mask goes with inpaint, not with denoise"):
        shaken.denoise(digits[0][:1], 0.5, label=1, mask=np.ones((8, 8), bool))
    for options in ({"n": 10}, {"steps": 2}, {"sampler": "one-step"}, {"labels": "balanced"}):
        with pytest.raises(cm.UserError, match="n, steps, sampler, weak, labels and precision are"):
            cm.score(photos, "digits", extractor="digits", **options)
    with pytest.raises(cm.UserError, match="There is no device 'cuda:99'"):
        cm.Trainer(run.recipe, "digits", device="cuda:99")


def test_scores_of_images_do_not_depend_on_their_order(digits, photos):
    """Values and errors: a folder's images are sorted by class."""
    images, labels = digits
    mixed = np.random.default_rng(0).permutation(len(images))
    by_class = np.argsort(labels, kind="stable")
    first, second = (cm.score(images[i], "digits", extractor="digits")["FD"] for i in (mixed, by_class))
    assert first.value == pytest.approx(second.value, rel=1e-3)
    assert first.error == pytest.approx(second.error, rel=0.02)


def test_a_run_is_scored_against_its_own_images_alone(run, digits, tmp_path):
    tensor = torch.from_numpy(digits[0][:64]).permute(0, 3, 1, 2)
    changes = {**TINY, "evaluation.samples": 20, "network.conditional": False}
    other = cm.train("ict_digits", tensor, out=tmp_path / "x", steps=4, changes=changes, quiet=True)
    assert other.recipe.data.path == ""
    with pytest.raises(cm.UserError, match="Scores compare with images: pass data"):
        cm.score(other)
    with pytest.raises(cm.UserError, match=r"images are 8x8, and those of array are 16x16; set size"):
        cm.score(run, np.zeros((30, 16, 16, 1), np.uint8))
    given = cm.Trainer(other.recipe, "digits", out=tmp_path / "y", quiet=True)
    assert given.recipe.data.path == "digits"


def test_a_recipe_by_name_reads_images_as_it_says(tmp_path):
    """The images have several sizes, and a damaged file is among them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(40):
        size = 8 + number % 3
        Image.fromarray(np.full((size, size), number * 6, np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    changes = {**TINY, "network.conditional": False, "data.size": 8, "data.on_bad_image": "skip"}
    changes |= {"evaluation.samples": 20}
    run = cm.train("ict_digits", folder, out=tmp_path / "run", steps=4, changes=changes, quiet=True)
    assert run.spec.shape == (1, 8, 8)
    assert run.recipe.data.path == str(folder)


def test_only_false_stops_a_training(run, tmp_path):
    recipe = cm.override(run.recipe, {"evaluation.extractor": "none"})
    trainer = cm.Trainer(recipe, out=tmp_path / "x", quiet=True, callbacks=[lambda step: 0, lambda _: None])
    assert [step.number for step in trainer] == [1, 2, 3, 4]

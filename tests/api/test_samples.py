"""Samples as an array: labels follow the images; arguments that cannot be are refused in a sentence."""

import copy
import pickle

import numpy as np
import pytest
import torch

import cm_ray as cm

LABELS = [3, 0, 2, 1]


@pytest.fixture
def samples():
    """Four images that hold their number, with a class each; as many as they are high."""
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 1, 4, 4)
    return cm.Samples(images, torch.tensor(LABELS), ("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "index",
    [slice(None, None, -1), slice(1, 3), [2, 0], np.array([3, 1, 0, 2]), np.array([True, False, True, True])],
)
def test_labels_follow_a_choice_of_images(samples, index):
    part = samples[index]
    assert part.labels.tolist() == [LABELS[number] for number in part[:, 0, 0, 0]]
    assert part.class_names == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.roll(x, 1, axis=0),
        lambda x: x.swapaxes(0, 1),
        lambda x: np.take(x, [3, 2, 1, 0], axis=0),
        lambda x: x[0],
        lambda x: x[:, ::-1],
        lambda x: x + 1,
    ],
)
def test_what_is_computed_has_no_labels(samples, change):
    assert change(samples).labels is None


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, np.ndarray.copy, cm.Samples.copy])
def test_copies_and_pickles_are_whole(samples, copied):
    for other in (pickle.loads(pickle.dumps(samples)), copied(samples) if copied else samples):
        assert np.array_equal(other, samples)
        assert other.class_names == samples.class_names
    assert pickle.loads(pickle.dumps(samples)).labels.tolist() == LABELS
    if copied is not np.ndarray.copy:
        assert copied(samples).labels.tolist() == LABELS


def test_no_samples_are_no_picture(samples):
    with pytest.raises(cm.UserError, match="no pixels"):
        samples[:0].grid()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1, not 0."),
        ({"n": 2.5}, "n must be an integer, not 2.5."),
        ({"batch_size": -1}, "batch_size must be at least 0, not -1."),
        ({"seed": "a"}, "seed must be an integer, not 'a'."),
        ({"first": -1}, "first must be at least 0, not -1."),
        ({"steps": 1.5}, "steps must be an integer, not 1.5."),
        ({"label": 3.7}, "label must be an integer, not 3.7."),
        ({"sampler": 3}, "The sampler must be an object, such as OneStep(), or its text, not 3."),
        ({"taus": ("a",)}, "Time points must be numbers, not ['a']."),
    ],
)
def test_arguments_of_sampling_that_are_refused(run, options, message):
    with pytest.raises(cm.UserError) as refused:
        run.sample(**options)
    assert str(refused.value) == message


def test_a_task_that_there_is_not(run, samples):
    with pytest.raises(cm.UserError, match="There is no task 'inpant': did you mean 'inpaint'"):
        run.edit("inpant", np.zeros((8, 8), np.uint8))


def test_a_trainer_takes_a_recipe(tmp_path):
    with pytest.raises(cm.UserError, match="The trainer takes a Recipe, not 'ict_digits'"):
        cm.Trainer("ict_digits", out=tmp_path)


def test_numbers_of_numpy_are_numbers(run):
    drawn = run.sample(np.int64(2), seed=np.int64(3), label=np.int32(1), taus=np.array([5.0, 0.8]))
    assert np.array_equal(drawn, run.sample(2, seed=3, label=1, taus=(5.0, 0.8)))


@pytest.mark.parametrize(
    ("images", "mask", "message"),
    [
        ([], np.ones((8, 8)), "There are no images: give at least one."),
        (
            np.zeros((3, 8, 8), np.uint8),
            np.ones((8, 8)),
            "image 0 must be uint8 (h, w) or (h, w, c)",
        ),
        (
            np.zeros((8, 8), np.uint8),
            np.ones((2, 8, 8)),
            "The mask must be (h, w), one for all images",
        ),
    ],
)
def test_images_and_masks_that_are_refused(run, images, mask, message):
    with pytest.raises(cm.UserError) as refused:
        run.inpaint(images, mask)
    assert str(refused.value).startswith(message)

"""Words for splits: which names have one, and which split is read."""

import pytest

from cm_ray.data.interface.splits import chosen_split, same_split, split_word
from cm_ray.errors import UserError


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("train", "train"),
        ("TRAIN", "train"),
        ("training_set", "training"),
        ("Test", "test"),
        ("imgs-val", "val"),
        ("train2017", "train"),
        ("01_test", "test"),
        ("cifar_train", "train"),
        ("x_test", "test"),
        ("val_images", "val"),
        ("split=validation", "validation"),
        ("partial-train", "train"),
        ("train-00000-of-00001-0123456789abcdef", "train"),
        ("valid-00000-of-00001-fedcba9876543210", "valid"),
        ("dev.clean", "dev"),
        ("eval", "eval"),
    ],
)
def test_a_split_word_at_an_end(name, word):
    assert split_word(name) == word


@pytest.mark.parametrize(
    "name",
    [
        *("contest", "latest", "trainer", "trains", "trainval", "TrainImages", "retrain", "detest-1"),
        *("développement", "devil", "evaluation", "medieval", "the_train_station", "train-test", "test_dev"),
        *("", "0", "été", "tests"),
    ],
)
def test_no_split_word(name):
    assert split_word(name) == ""


def test_words_of_one_split():
    assert same_split("valid", "Validation")
    assert same_split("dev", "val")
    assert same_split("extra", "Extra")
    assert not same_split("eval", "val")
    assert not same_split("test", "train")


@pytest.mark.parametrize(
    ("words", "asked", "chosen"),
    [
        (["test", "train"], "", "train"),
        (["test", "training"], "", "training"),
        (["test"], "", "test"),  # there is no other
        (["validation", "train"], "valid", "validation"),
        (["val", "dev"], "dev", "dev"),
        (["Extra", "train"], "extra", "Extra"),
        (["test", "train"], "Testing", "test"),
    ],
)
def test_the_split_that_is_read(words, asked, chosen):
    assert chosen_split(words, asked, "photos") == chosen


@pytest.mark.parametrize(
    ("words", "asked", "message"),
    [
        (["test", "train"], "banana", r"photos has no split 'banana'; known are test, train\.$"),
        (["test", "train"], "tset", r"photos has no split 'tset'; did you mean 'test'\?$"),
        (["test"], "train", "photos has no split 'train'"),
        (["test", "val"], "", r"the splits test, val, and none is for training; choose one with split\.$"),
        (["val", "dev"], "validation", r"the splits dev, val, and several mean 'validation'; name one"),
        (["train", "training"], "", "and several mean 'train'"),
    ],
)
def test_no_split_that_could_be_meant(words, asked, message):
    with pytest.raises(UserError, match=message):
        chosen_split(words, asked, "photos")

"""A class is found by its name: numbers are numbers only where no class is called by one."""

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest

from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.model_labels import class_number, class_text, draw_in_words, label_draw, scored_labels
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from tests.networks.test_unet import TINY


def spec(*names, counts=(), conditional=True):
    network = dataclasses.replace(TINY, conditional=conditional)
    return ModelSpec(
        network=network, diffusion=Diffusion(), shape=(1, 8, 8), class_names=names, class_counts=counts
    )


def data(**counts):
    return SimpleNamespace(source="photos", class_names=tuple(counts), class_counts=tuple(counts.values()))


ANIMALS = spec("cat", "dog", "sea eel")
TENS = spec("10", "20", "30")
TEXT_ORDER = spec("0", "1", "10", "2")
NAMELESS = spec("0", "1", "2")


@pytest.mark.parametrize(
    ("model", "label", "number"),
    [
        (ANIMALS, "dog", 1),
        (ANIMALS, "sea eel", 2),
        (ANIMALS, "2", 2),
        (ANIMALS, 2, 2),
        (ANIMALS, np.int64(1), 1),
        (TENS, "10", 0),
        (TEXT_ORDER, "10", 2),
        (TEXT_ORDER, "2", 3),
        (TEXT_ORDER, 1, 1),
        (NAMELESS, "2", 2),
        (NAMELESS, 0, 0),
        (spec("crane", "owl", "crane"), "2", 2),
        (spec("caf\u00e9", "Caf\u00e9"), "cafe\u0301", 0),
        (spec("caf\u00e9", "Caf\u00e9"), "Cafe\u0301", 1),
    ],
)
def test_a_class_is_found(model, label, number):
    assert class_number(model, label) == number


@pytest.mark.parametrize(
    ("model", "label", "sentence"),
    [
        (ANIMALS, "Dog", r"no class 'Dog': did you mean 'dog'\?"),
        (ANIMALS, "see eel", r"did you mean 'sea eel'\?"),
        (ANIMALS, "horse", "no class 'horse': its classes are cat, dog, sea eel"),
        (ANIMALS, "3", "has the classes 0 to 2, and no 3"),
        (ANIMALS, -1, "no class '-1'"),
        (TENS, "1", "no class '1': "),
        (TENS, 0, "no class '0': "),
        (TEXT_ORDER, 10, "The class called '10' has the number 2, so that the label 10 is not clear"),
        (spec("cat", "2", "dog"), 0, "no class '0'"),
        (
            spec("crane", "owl", "crane"),
            "crane",
            "2 classes are called 'crane'; give the number of one: 0, 2",
        ),
        (spec("cat", "dog", conditional=False), "cat", "trained without classes"),
        (spec(), "cat", "trained without classes"),
        (ANIMALS, 1.0, "label must be an integer"),
        (spec("cat", "dog", "eel", counts=(2, 0, 5)), "dog", r"no image of .*'dog'; .* \(cat, eel\)\.$"),
    ],
)
def test_what_is_no_class_is_refused(model, label, sentence):
    with pytest.raises(UserError, match=sentence):
        class_number(model, label)


def test_a_class_without_images_is_refused_unless_forced():
    model = spec("cat", "dog", "eel", counts=(2, 0, 5))
    with pytest.raises(UserError, match="or set untrained"):
        label_draw(model, "cat,dog", untrained=False)
    assert label_draw(model, "cat,dog", untrained=True).weights == (1, 1, 0)


def test_numbers_are_shown_where_they_differ_from_the_name():
    assert class_text(TENS.class_names, 1) == "20 (number 1)"
    assert class_text(NAMELESS.class_names, 1) == "1"


@pytest.mark.parametrize(
    ("asked", "weights", "text", "words"),
    [
        (None, (1, 0, 1), "balanced", "of cat, eel, equally often; the model has seen no image of dog."),
        ("", (1, 0, 1), "balanced", "of cat, eel, equally often"),
        ("balanced", (1, 0, 1), "balanced", "of cat, eel, equally often"),
        ("data", (2, 0, 6), "data", "as often as in the data: cat 25.0%, eel 75.0%."),
        ("eel", (0, 0, 1), "eel", r"of the class eel \(number 2\)"),
        ("eel, cat", (1, 0, 1), "cat,eel", "of cat, eel, equally often"),
        (["eel", "eel", 0], (1, 0, 1), "cat,eel", "of cat, eel"),
        (0, (1, 0, 0), "cat", r"of the class cat \(number 0\)"),
    ],
)
def test_draws(asked, weights, text, words):
    model = spec("cat", "dog", "eel", counts=(2, 0, 6))
    draw = label_draw(model, asked)
    assert (draw.weights, draw.text) == (weights, text)
    assert re.search(words, draw_in_words(model, draw))


def test_names_with_commas_and_names_that_are_words():
    model = spec("crane, bird", "data", counts=(1, 3))
    assert label_draw(model, "crane, bird").weights == (1, 0)
    assert label_draw(model, "data").text == "data"
    assert label_draw(model, "data").weights == (1, 3)
    assert label_draw(model, "data,").weights == (0, 1)


def test_without_counts_all_classes_are_drawn():
    assert label_draw(ANIMALS, None).weights == (1, 1, 1)
    assert (
        draw_in_words(ANIMALS, label_draw(ANIMALS, None))
        == "Labels are drawn of all 3 classes, equally often."
    )
    with pytest.raises(UserError, match="does not know how often each class is"):
        label_draw(ANIMALS, "data")
    unconditional = spec("cat", conditional=False)
    assert label_draw(unconditional, None) is label_draw(unconditional, "") is None
    with pytest.raises(UserError, match="without classes; leave label out"):
        label_draw(unconditional, "data")


def test_scores_draw_as_the_reference_has_the_classes_by_name():
    model = spec("trouser", "coat", "hat", counts=(5, 5, 0))
    draw = scored_labels(model, data(coat=3, trouser=1), "data")
    assert (draw.weights, draw.text) == ((1, 3, 0), "data")
    assert scored_labels(model, data(coat=3, trouser=0, eel=0), "").weights == (0, 3, 0)
    assert scored_labels(model, data(coat=3, trouser=1), "balanced").weights == (1, 1, 0)
    assert scored_labels(model, data(coat=3, trouser=1), "coat").text == "coat"
    for reference, name in ((data(coat=3, eel=1), "eel"), (data(coat=3, hat=1), "hat")):
        with pytest.raises(UserError, match=f"photos has images of the class '{name}', of which .* none"):
            scored_labels(model, reference, "data")


def test_a_reference_without_labels_or_without_names():
    said = []
    draw = scored_labels(spec("a", "b", counts=(9, 1)), data(), "data", said.append)
    assert (draw.weights, draw.text) == ((1, 1), "balanced")
    assert said[0].startswith("photos has no labels")
    said.clear()
    assert scored_labels(NAMELESS, data(cat=2, dog=1, eel=1), "data", said.append).weights == (2, 1, 1)
    assert "by number" in said[0]
    with pytest.raises(UserError, match="photos has images of the class 'cat'"):
        scored_labels(NAMELESS, data(cat=2, dog=1), "data")


def test_equal_shares_have_one_name():
    model = spec("cat", "dog", counts=(7, 7))
    assert scored_labels(model, data(cat=5, dog=5), "balanced").text == "data"
    assert scored_labels(model, data(cat=5, dog=4), "balanced").text == "balanced"


def test_models_without_classes_have_no_labels_in_scores():
    model = spec("cat", "dog", conditional=False)
    assert scored_labels(model, data(cat=5, dog=4), "data") is None
    with pytest.raises(UserError, match="without classes; leave labels balanced out"):
        scored_labels(model, data(cat=5, dog=4), "balanced")

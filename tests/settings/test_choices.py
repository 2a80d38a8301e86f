"""Choices: every class of a kind has one word, and every word one class."""

import json
from dataclasses import dataclass

import pytest

from cm_ray.core.augmentation import Augmentation
from cm_ray.core.averages import Averages
from cm_ray.core.guidance import TeacherGuidance
from cm_ray.core.methods import Method
from cm_ray.core.precondition import Column
from cm_ray.core.proposals import IntervalProposal, NoiseTimes, PairTimes
from cm_ray.core.schedules import Scales, TargetDecay
from cm_ray.core.types import Distance
from cm_ray.core.uncertainty import Uncertainty
from cm_ray.core.weights import Weight
from cm_ray.networks.architectures import Network
from cm_ray.recipes.recipe import Recipe  # imports the classes of all kinds
from cm_ray.recipes.sections import Optimizer
from cm_ray.settings.choices import choice, classes_of, word_of
from cm_ray.settings.tree import fields_of

WORDS = {
    Method: [
        "ct",
        "cd",
        "edm",
        "pd",
        "sct",
        "scd",
        "tcm",
        "meanflow",
        "shortcut",
        "continuous-ct",
        "continuous-cd",
        "ssm",
    ],
    TeacherGuidance: ["none", "fixed", "drawn"],
    Distance: ["l1", "l2", "norm", "adaptive-l2", "pseudo-huber", "lpips"],
    Scales: ["constant", "adaptive", "doubling"],
    IntervalProposal: ["uniform", "lognormal"],
    PairTimes: ["grid", "tuned"],
    NoiseTimes: ["lognormal", "geometric", "log-uniform", "vp", "sub-vp"],
    TargetDecay: ["constant", "adaptive"],
    Weight: ["uniform", "snr", "snr+1", "truncated-snr", "karras", "inverse-gap"],
    Averages: ["constant", "warm-up", "power"],
    Column: ["edm", "vp", "ve", "linear", "trigflow", "sub-vp", "ncsn"],
    Network: ["adm", "custom", "ddpm++", "edm2", "ncsn++", "refinenet"],
    Optimizer: ["radam", "adam"],
    Augmentation: ["none", "flip", "edm"],
    Uncertainty: ["none", "learned"],
}


@pytest.mark.parametrize("kind", WORDS)
def test_words_are_unique_and_name_their_classes(kind):
    classes = classes_of(kind)
    assert sorted(classes) == sorted(WORDS[kind])
    assert len(set(classes.values())) == len(classes)
    for word, each in classes.items():
        assert word_of(each) == word
        assert json.loads(json.dumps(word)) == word


def test_every_kind_of_a_recipe_is_here():
    kinds, left = set(), [Recipe]
    while left:
        for item in fields_of(left.pop()):
            kinds |= {item.hint} if item.classes else set()
            left += item.classes.values() if item.classes else [item.hint] if item.nested else []
    assert kinds == set(WORDS)


def test_an_instance_and_its_class_have_the_same_word():
    for kind, words in WORDS.items():
        for word in words:
            each = classes_of(kind)[word]
            given = {"path": "package.module:Class"} if word == "custom" else {}
            assert word_of(each(**given)) == word_of(each) == word


def test_a_word_is_given_once():
    class Kind:
        pass

    @choice(Kind, "one")
    @dataclass(frozen=True)
    class First:
        pass

    def again():
        @choice(Kind, "one")
        @dataclass(frozen=True)
        class Second:
            pass

    with pytest.raises(ValueError, match="'one' is First already, and cannot be Second, too"):
        again()
    assert classes_of(Kind) == {"one": First}


def test_what_is_no_kind_has_no_classes():
    assert classes_of(int) == {}
    assert classes_of(tuple[int, ...]) == {}
    with pytest.raises(KeyError):
        word_of(3)

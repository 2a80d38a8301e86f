"""Classes are matched by their names: a teacher, initial weights or a reference may number them otherwise."""

import numpy as np
import pytest
import torch

import cm_ray as cm
from cm_ray.networks.renumbering import renumbered
from cm_ray.storage.files import read_json
from tests.api.conftest import TINY
from tests.data.forms import Pictures

THEIRS, OURS = ("trouser", "coat", "hat"), ("coat", "hat", "trouser")
SWAPPED = [OURS.index(name) for name in THEIRS]
"""Number in the second order of each class of the first one."""
SHORT = TINY | {"evaluation.extractor": "none", "evaluation.every": 0, "evaluation.grid": 2}


@pytest.fixture(scope="module")
def clothes(digits):
    """The same labelled images, with the classes in two orders."""
    images, labels = digits[0][:60], digits[1][:60] % 3
    return {
        THEIRS: Pictures(images, labels.tolist(), list(THEIRS)),
        OURS: Pictures(images, np.array(SWAPPED)[labels].tolist(), list(OURS)),
    }


@pytest.fixture(scope="module")
def teacher(clothes, tmp_path_factory):
    """A diffusion model of the first order whose samples differ by class."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    run = cm.train("edm_digits", clothes[THEIRS], out=out, steps=2, changes=SHORT, quiet=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in run.torch_model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return run.save(out.parent / "shaken")


def equal(model, other):
    weights, others = model.network.state_dict(), other.network.state_dict()
    return all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize("recipe", ["cd_digits", "pd_digits", "ect_digits"])
def test_a_run_is_that_of_data_numbered_as_the_teacher(recipe, clothes, teacher, tmp_path, capsys):
    setting = "init_from.model" if recipe == "ect_digits" else "teacher.model"
    changes = SHORT | {setting: str(teacher), "evaluation.samplers": ("own",)}
    changes |= {"rounds.s1": 2} if recipe == "pd_digits" else {}
    runs = {}
    for names in (THEIRS, OURS):
        out = tmp_path / names[0]
        runs[names] = cm.train(recipe, clothes[names], out=out, steps=4, changes=changes)
        said = capsys.readouterr().err
        assert ("such as coat (1 there, 0 here); they are matched by their names" in said) == (names == OURS)
    theirs, ours = runs[THEIRS], runs[OURS]
    assert ours.class_names == OURS
    assert equal(renumbered(ours.torch_model, SWAPPED, THEIRS), theirs.torch_model)
    assert not equal(ours.torch_model, theirs.torch_model)
    for name in OURS:
        one, other = (run.sample(4, label=name, seed=3) for run in (theirs, ours))
        assert np.array_equal(one, other)
        assert one.class_names[one.labels[0]] == other.class_names[other.labels[0]] == name
    copy = ours.directory.initial if recipe == "ect_digits" else ours.directory.teacher
    assert tuple(read_json(copy / "model.json")["class_names"]) == OURS
    again = cm.train(recipe, clothes[OURS], out=tmp_path / OURS[0], steps=4, changes=changes)
    assert again.result == ours.result, "the copies of a started run have its numbers already"


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (
            ("coat", "hat", "shoe"),
            "has other classes than the data: only it has trouser and only the data has shoe",
        ),
        (("coat", "hat"), r"has 3 classes, and the data has 2: only it has trouser; give data of the same"),
        (("coat", "hat", "Trouser"), "only it has trouser and only the data has Trouser"),
    ],
)
def test_other_classes_are_refused_by_name(names, sentence, clothes, teacher, tmp_path):
    data = Pictures(clothes[OURS].images, [label % len(names) for label in clothes[OURS].labels], list(names))
    for recipe, setting in (("cd_digits", "teacher.model"), ("ect_digits", "init_from.model")):
        with pytest.raises(cm.UserError, match=sentence):
            cm.train(recipe, data, out=tmp_path / "run", changes=SHORT | {setting: str(teacher)}, quiet=True)
    assert not (tmp_path / "run" / "config.json").exists()


def test_classes_without_names_are_matched_by_number_and_it_is_said(clothes, teacher, tmp_path, capsys):
    nameless = np.asarray(clothes[OURS].images), np.asarray(clothes[OURS].labels)
    changes = SHORT | {"teacher.model": str(teacher)}
    run = cm.train("cd_digits", nameless, out=tmp_path / "run", steps=1, changes=changes)
    assert "are those of the data by number" in capsys.readouterr().err
    assert run.class_names == ("0", "1", "2")
    copy = cm.load(run.directory.teacher)
    assert equal(copy.torch_model, cm.load(teacher).torch_model)
    assert copy.class_names == ("0", "1", "2")


def test_a_run_goes_on_with_its_own_classes_only(clothes, tmp_path):
    images, labels = clothes[OURS].images, clothes[OURS].labels
    call = {"out": tmp_path / "run", "steps": 2, "changes": SHORT, "quiet": True}
    cm.train("ict_digits", clothes[OURS], **call)
    renamed = Pictures(images, labels, ["coat", "trouser", "hat"])
    with pytest.raises(
        cm.UserError, match=r"started with the classes coat, hat, trouser \(.* has coat, trouser"
    ):
        cm.train("ict_digits", renamed, **call)


def test_a_reference_may_have_the_classes_in_another_order(clothes, teacher):
    model = cm.load(teacher)
    keep = [*np.flatnonzero(np.asarray(clothes[THEIRS].labels) != 2).tolist(), 2]
    values = []
    for names, data in clothes.items():
        part = Pictures(data.images[keep], [data.labels[i] for i in keep], list(names))
        values.append(cm.score(model, part, extractor="digits", n=40)["FD"])
    assert [value.key["labels"] for value in values] == ["data", "data"]
    assert values[0].value == values[1].value
    balanced = cm.score(model, part, extractor="digits", n=40, labels="balanced")["FD"]
    assert balanced.value != values[0].value

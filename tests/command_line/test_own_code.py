"""Code that files name is imported where the command or the program names it, and nowhere else."""

import copy
import pickle
import sys
from pathlib import Path

import pytest
from PIL import Image

import cm_ray as cm
from cm_ray.command_line import main
from cm_ray.command_line.recipe_options import recipe_from_file
from cm_ray.command_line.training import parse_training
from cm_ray.errors import UserError
from cm_ray.own_code import ReadName, allow, allow_given, carried, check, forgotten_afterwards, found, take
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import from_dict, override
from tests.averaged import copied
from tests.planted import FEATURES, NET, forget, plant, planted_run


@pytest.fixture
def trace(tmp_path, monkeypatch):
    """A module in the way of imports; the file that its import leaves."""
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.chdir(tmp_path)
    trace = plant(tmp_path / "code")
    forget(trace)
    yield trace
    forget(trace)


SMALL = ["--steps", "2", "--batch-size", "4", "--evaluation.grid", "2", "--tracking.uri", "none"]
COMMANDS = {
    "sample": (["sample", "run", "--samples", "2"], [NET]),
    "sample of a folder": (["sample", "run/model", "--samples", "2"], [NET]),
    "export": (["export", "run", "--format", "torch", "--out", "model.pt2"], [NET]),
    "edit": (["edit", "denoise", "--model", "run", "--image", "one.png", "--sigma", "0.3"], [NET]),
    "edit of a folder": (["edit", "denoise", "--model", "run", "--image", "many", "--sigma", "0.3"], None),
    "interpolate": (["edit", "interpolate", "--model", "run", "--samples", "1"], [NET]),
    "app": (["app", "run"], None),
    "score": (["score", "unet", "--samples", "9"], None),
    "score of a network": (["score", "run", "--extractor", "digits", "--samples", "9"], None),
    "time-points": (["time-points", "unet"], None),
    "averages": (["averages", "averaged"], None),
    "train --config": (["train", "ct_digits", "--config", "run/config.json", *SMALL], None),
}


@pytest.fixture
def places(tmp_path, averaged_run):
    """A stranger's runs, and images of one's own."""
    planted_run(tmp_path / "run")
    planted_run(tmp_path / "unet", network="")
    lengths = copied(averaged_run, tmp_path / "averaged")
    text = lengths.config_file.read_text()
    lengths.config_file.write_text(text.replace('"extractor": "digits"', f'"extractor": "{FEATURES}"'))
    (tmp_path / "many").mkdir()
    for name in ("one.png", "many/1.png", "many/2.png"):
        Image.new("L", (8, 8), 99).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_refuses_what_it_does_not_name(name, trace, places, capsys):
    words, named = COMMANDS[name]
    assert main.run(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    code = FEATURES if FEATURES in said else NET
    assert f"names code that is not cm_ray's, {code}, and it was not imported" in said
    assert f"give --own-code {code} if you trust it" in said
    assert ".json names code" in said
    assert not trace.exists()
    assert "planted_module" not in sys.modules
    if named:
        assert main.run([*words, "--own-code", *named]) == 0, capsys.readouterr().err
        assert trace.exists()
        with pytest.raises(UserError):
            check(NET)  # a command names code for itself alone


PYTHON = {
    "load": lambda code: cm.load("run", own_code=code).sample(2, seed=0),
    "load of a folder": lambda code: cm.load("run/model", own_code=code).sample(2, seed=0),
    "score": lambda code: cm.score(cm.load("unet"), "digits", n=9, own_code=code),
    "averages": lambda code: _averages(code),
    "Trainer": lambda code: cm.Trainer(_recipe("unet"), quiet=True, out="new", own_code=code).train(),
    "train": lambda code: cm.train(_recipe("run"), "digits", out="new", quiet=True, own_code=code),
    "train from": lambda code: cm.train(
        "ct_digits",
        out="new",
        quiet=True,
        own_code=code,
        changes={**_LITTLE, "init_from.model": "run/model"},
    ),
    "train from a teacher": lambda code: cm.train(
        "cd_digits",
        out="new",
        quiet=True,
        own_code=code,
        changes={**_LITTLE, "teacher.model": "run/model"},
    ),
}
_LITTLE = {"steps": 2, "batch_size": 4, "evaluation.samples": 9, "evaluation.grid": 2, "tracking.uri": "none"}


def _recipe(run):
    return override(recipe_from_file(Path(run) / "config.json"), _LITTLE)


def _averages(code):
    run = cm.load("averaged", own_code=code)
    return run.averages((0.1,), samples=9)


@pytest.mark.parametrize("name", PYTHON)
def test_python_refuses_what_it_does_not_name(name, trace, places):
    with pytest.raises(
        UserError, match=r"\.json names code that is not cm_ray's, .*: give own_code"
    ) as refused:
        PYTHON[name](())
    assert "\n" not in str(refused.value)
    assert not trace.exists()
    if name.startswith("train from"):  # the student is another network
        return
    PYTHON[name]([NET, FEATURES])
    assert trace.exists()


@pytest.mark.parametrize(
    "words", [["sample", "unet", "--samples", "2"], ["export", "unet", "--out", "new"], ["track", "run"]]
)
def test_what_needs_no_code_needs_no_name(words, trace, places):
    if words[0] == "track":
        config = places / "run" / "config.json"
        config.write_text(config.read_text().replace('"uri": "none"', '"uri": ""'))
    assert main.run(words) == 0
    assert not trace.exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--network.path", NET, f"--evaluation.extractor={FEATURES}"],
        ["--own-code", NET, "--evaluation.extractor", FEATURES],
        ["--own-code", NET, FEATURES, "--seed", "3"],
        ["--own-code", NET, "--own-code", FEATURES],
    ],
)
def test_an_option_that_sets_code_names_it(options, trace, places):
    words = ["ct_digits", "--config", "run/config.json"]
    with forgotten_afterwards():
        recipe = parse_training(words)
        assert (recipe.network.path, recipe.evaluation.extractor) == (NET, FEATURES)
        with pytest.raises(UserError, match="not imported"):
            allow_given(recipe)
    with forgotten_afterwards():
        allow_given(parse_training([*words, *options]))
        assert {NET, FEATURES} <= set(carried())


def test_a_name_travels_with_its_file():
    name = ReadName(NET, "there.json")
    for each in (copy.deepcopy(name), pickle.loads(pickle.dumps(name))):
        assert (each, each.file, type(each)) == (NET, "there.json", ReadName)
    assert type(str(name)) is str
    recipe = from_dict(Recipe, {"evaluation": {"extractor": FEATURES}}, file="there.json")
    changed = override(recipe, {"evaluation.samples": 9})
    assert changed.evaluation.extractor.file == "there.json"


def test_names_are_those_of_this_process_and_can_be_handed_on(trace):
    with pytest.raises(UserError, match="The settings name code"):
        found(NET)
    with forgotten_afterwards():
        allow(NET)
        names = carried()
        assert found(NET).__name__ == "TinyNetwork"
    with pytest.raises(UserError):
        check(NET)
    take(names)
    check(NET)


def test_an_object_stands_for_its_name():
    class Local:
        pass

    Local.__qualname__ = "Net"
    allow(Local)
    assert found(f"{__name__}:Net") is Local


@pytest.mark.parametrize("name", ["run", "a:", ":b", "a.b", "a/b:c", "a:b c", ".a:b", "a:b()", "a:1", ""])
def test_a_name_has_its_form(name):
    with pytest.raises(UserError, match=r"give package\.module:name"):
        allow([name])
    with pytest.raises(UserError, match="not imported"):
        check(name)

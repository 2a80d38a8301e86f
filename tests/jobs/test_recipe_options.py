"""Options of a recipe: words first, then the fields of the chosen classes; a complete help; --config FILE."""

import re

import pytest

from cm_ray import recipes
from cm_ray.command_line.recipe_options import ALIASES, option, parse_recipe, recipe_from_file
from cm_ray.core.distance import PseudoHuber
from cm_ray.core.proposals import Grid, LognormalIntervals, Tuned
from cm_ray.core.schedules import Adaptive
from cm_ray.errors import SettingError, UserError
from cm_ray.settings.documentation import field_documentation
from cm_ray.settings.tree import fields_of, flatten, override, sketch, to_dict
from cm_ray.storage.files import write_json


def parsed(*options, default=None):
    return parse_recipe(default or recipes.ict_digits(), [str(each) for each in options])


def test_without_options_a_recipe_is_its_recipe():
    for name in recipes.RECIPES:
        assert parse_recipe(recipes.named(name), []) == recipes.named(name)


def test_options_are_paths():
    made = parsed(
        *(
            "--steps",
            7,
            "--averages.decays",
            0.9,
            0.99,
            "--network.channel-mult",
            1,
            2,
            4,
            "--precision",
            "bfloat16",
        ),
        *("--network.no-conditional", "--compile", "--data", "elsewhere", "--num-workers", 2),
        *(
            "--tracking-uri",
            "none",
            "--init-from",
            "edm",
            "--times.scales.s0=5",
            "--optimizer.learning_rate=1e-4",
        ),
    )
    changes = {
        **{
            "steps": 7,
            "averages.decays": (0.9, 0.99),
            "network.channel_mult": (1, 2, 4),
            "precision": "bfloat16",
        },
        **{"network.conditional": False, "compile": True, "data.path": "elsewhere", "cluster.num_workers": 2},
        **{"tracking.uri": "none", "init_from.model": "edm", "times.scales.s0": 5},
        **{"optimizer.learning_rate": 1e-4},
    }
    assert made == override(recipes.ict_digits(), changes)


@pytest.mark.parametrize(
    "options",
    [
        ("--distance", "pseudo-huber", "--distance.c", "0.5"),
        ("--distance.c", "0.5", "--distance", "pseudo-huber"),
        ("--distance=pseudo-huber", "--distance.c=0.5"),
    ],
)
def test_a_word_and_its_fields_in_any_order(options):
    made = parsed(*options, default=recipes.ct_digits())
    assert made.method.distance == PseudoHuber(c=0.5)


def test_words_within_words():
    made = parsed("--times.scales", "adaptive", "--times.scales.s1", 20)
    assert made.method.times == Grid(scales=Adaptive(s0=10, s1=20), proposal=LognormalIntervals())
    made = parsed("--times", "tuned", "--times.q", 4, "--times.stages", 2)
    assert made.method.times == Tuned(q=4.0, stages=2)
    made = parsed("--method", "cd", "--teacher", "edm", "--solver", "euler", "--times.scales", "constant")
    assert (made.teacher.model, made.method.solver, made.method.times.scales.n) == ("edm", "euler", 18)


def test_a_word_keeps_the_fields_that_the_new_class_has():
    made = parsed("--network", "ncsn++", "--optimizer", "adam")
    assert made == override(recipes.ict_digits(), {"network": "ncsn++", "optimizer": "adam"})
    assert (made.network.channels, made.optimizer.learning_rate) == (32, 2e-3)


@pytest.mark.parametrize(
    ("options", "path", "problem"),
    [
        (("--times.q", 3), "times.q", "belongs to times tuned, and times is grid"),
        (("--solver", "euler"), "solver", "belongs to method cd, and method is ct"),
        (("--mu0", 0.9), "mu0", "is not a setting: did you mean --target.mu0?"),
        (("--target.mu0=0.9",), "target.mu0", "belongs to target adaptive, and target is constant"),
        (
            ("--distance", "l2", "--distance.c", 1),
            "distance.c",
            "belongs to distance adaptive-l2 or pseudo-huber, and distance is l2",
        ),
        (
            ("--distance", "l3"),
            "distance",
            "cannot be 'l3': known are adaptive-l2, l1, l2, lpips, norm, pseudo-huber",
        ),
        (("--distence", "l2"), "distence", "is not a setting: did you mean --distance?"),
        (
            ("--teacher", "x"),
            "teacher.model",
            "belongs to method cd, pd, continuous-cd, scd or tcm, and method is ct",
        ),
        (("--no-compyle",), "no_compyle", "is not a setting: did you mean --compile?"),
        (("--batch-size", 0), "batch_size", "must be at least 1, not 0"),
        (("--times.scales.s0", 50), "times.scales.s0", "50 must be in [1, s1 = 40]"),
    ],
)
def test_options_that_are_refused(options, path, problem):
    with pytest.raises(SettingError) as refused:
        parsed(*options)
    assert (refused.value.path, refused.value.problem) == (path, problem)


def test_a_word_that_stands_alone_is_refused():
    with pytest.raises(UserError, match="'extra' is not an option: options begin with --"):
        parsed("extra")


def test_values_of_another_type_are_a_sentence(capsys):
    with pytest.raises(UserError, match=r"^--steps must be an integer, not many\.$"):
        parsed("--steps", "many")
    assert capsys.readouterr().err == ""


def test_settings_of_a_file_are_those_of_a_new_run(tmp_path):
    first = override(
        recipes.cd_digits(),
        {"run_dir": str(tmp_path), "tracking.parent_run": "abc", "teacher.model": "edm", "distance.c": 0.25},
    )
    write_json(tmp_path / "config.json", to_dict(first))
    wanted = override(first, {"run_dir": "", "tracking.parent_run": ""})
    assert recipe_from_file(tmp_path / "config.json") == wanted
    assert parsed("--config", tmp_path / "config.json") == wanted
    changed = parsed(
        f"--config={tmp_path / 'config.json'}", "--distance", "l2", "--steps", 5, "--run-dir", "new"
    )
    assert changed == override(wanted, {"distance": "l2", "steps": 5, "run_dir": "new"})


def test_files_that_are_no_settings_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"--config .*nowhere\.json does not exist: give a run's config\.json"
    ):
        parsed("--config", tmp_path / "nowhere.json")
    write_json(tmp_path / "odd.json", {"stepz": 1})
    with pytest.raises(
        UserError, match=r"--config .*odd\.json: stepz is not a setting: did you mean 'steps'\?"
    ):
        parsed("--config", tmp_path / "odd.json")


def shown(default, *options, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")  # one column
    with pytest.raises(SystemExit) as ended:
        parse_recipe(default, [*options, "--help"])
    assert ended.value.code == 0
    return re.sub(r"[│╭╰╮╯─]", " ", capsys.readouterr().out)


def joined(text):
    """Return a text without the spaces and the ends of lines between which it was broken."""
    return "".join(text.split())


def documented(config, prefix=""):
    """Yield every path that is an option, and its documentation: of a choice, that of its classes."""
    for item in fields_of(type(config)):
        if item.classes:
            yield prefix + item.name, list(item.classes)
        if item.nested:
            yield from documented(getattr(config, item.name), prefix + item.prefix)
        else:
            yield prefix + item.name, [field_documentation(type(config), item.name)]


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_help_has_every_setting_with_its_documentation(recipe, capsys, monkeypatch):
    default = recipes.named(recipe)
    text = shown(default, capsys=capsys, monkeypatch=monkeypatch)
    found = dict(documented(default))
    assert set(found) == set(flatten(default))
    for path, texts in found.items():
        assert re.search(rf"{re.escape(option(path))}[ ,]", text) or f"{ALIASES.get(path)}, " in text, path
        for each in texts:
            assert each, f"{path} has no documentation"
            assert joined(each) in joined(text), path


def test_help_is_that_of_the_chosen_classes(capsys, monkeypatch):
    changed = sketch(recipes.ict_digits(), {"distance": "lpips", "times": "tuned"})
    text = shown(
        recipes.ict_digits(),
        "--distance",
        "lpips",
        "--times",
        "tuned",
        capsys=capsys,
        monkeypatch=monkeypatch,
    )
    for path in flatten(changed):
        assert option(path) in text, path
    assert "--distance.c " not in text
    assert "--times.scales" not in text

"""Trees of settings: to JSON and back, changed by path, compared; errors name the whole path."""

import json
import math
import re

import pytest

from cm_ray import recipes
from cm_ray.core.distance import L2, PseudoHuber
from cm_ray.core.methods import ConsistencyDistillation, ConsistencyTraining
from cm_ray.core.precondition import VP, Column
from cm_ray.core.proposals import Grid, LognormalIntervals, Tuned, UniformIntervals
from cm_ray.core.schedules import Adaptive, Constant, ConstantDecay, Doubling
from cm_ray.core.weights import InverseGap
from cm_ray.errors import SettingError
from cm_ray.networks.architectures import ADM, NCSNpp
from cm_ray.networks.lpips_distance import LPIPS
from cm_ray.recipes.recipe import Recipe, differences
from cm_ray.recipes.sections import Adam
from cm_ray.settings.tree import (
    all_paths,
    choice_from_dict,
    choices_of,
    flatten,
    from_dict,
    override,
    owners,
    sketch,
    to_dict,
)

ICT = recipes.ict_digits()
DISTANCES = "known are adaptive-l2, l1, l2, lpips, norm, pseudo-huber."


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_recipes_go_to_json_and_back(recipe):
    recipe = recipes.named(recipe)
    values = json.loads(json.dumps(to_dict(recipe)))
    assert from_dict(Recipe, values) == recipe


@pytest.mark.parametrize("recipe", recipes.RECIPES)
def test_recipes_are_made_of_their_own_paths(recipe):
    """All settings of one recipe, put into another of any method, make it the same."""
    recipe = recipes.named(recipe)
    for start in (recipe, recipes.edm_digits(), recipes.pd_digits(), ICT):
        assert override(start, flatten(recipe)) == recipe


def test_paths_are_short_and_in_order():
    paths = list(flatten(ICT))
    assert paths[:4] == ["name", "run_dir", "method", "times"]
    there = flatten(ICT)
    assert there["method"] == "ct"
    assert (there["times"], there["times.scales"], there["times.scales.s1"]) == ("grid", "doubling", 40)
    assert (there["distance"], there["distance.c"]) == ("pseudo-huber", 0.0)
    assert (there["target"], there["target.mu"], there["noise.t_max"]) == ("constant", 0.0, 80.0)
    assert "teacher.model" not in there
    assert "teacher.model" in flatten(recipes.cd_digits())
    assert not any(path.startswith("method.") for path in there)


def test_json_has_words_as_kinds():
    values = to_dict(ICT)
    assert values["method"]["kind"] == "ct"
    assert values["method"]["distance"] == {"kind": "pseudo-huber", "c": 0.0}
    assert values["noise"] == {"t_min": 0.002, "t_max": 80.0, "rho": 7.0}
    assert values["averages"] == {"kind": "constant", "decays": [0.98]}


def test_missing_fields_take_their_defaults():
    assert from_dict(Recipe, {}) == Recipe()
    assert from_dict(Recipe, {"method": {"kind": "cd"}}).method == ConsistencyDistillation()
    assert choice_from_dict(Column, {"kind": "vp", "steps": 500}) == VP(steps=500)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 1}, "stepz is not a setting: did you mean 'steps'?"),
        (
            {"method": {"kind": ["ct"]}},
            "method cannot be ['ct']: known are cd, ",
        ),
        ({"noise": {"kind": "edm"}}, "noise.kind is not a setting: known are"),
        ([], "Recipe must be a group of settings, not []."),
        ({"data": {"size": -1}}, "data.size must not be negative, but is -1."),
        ({"cluster": {"threads": -1}}, "cluster.threads must not be negative, but is -1."),
        ({"cluster": {"cpus_per_worker": -1}}, "cluster.cpus_per_worker must not be negative, but is -1.0."),
        (
            {"optimizer": {"kind": "adam", "learning_rate": math.inf}},
            "optimizer.learning_rate must be",
        ),
        (
            {"method": {"kind": "gan"}},
            "method cannot be 'gan': known are cd, ",
        ),
        (
            {"method": {"distance": {"kind": "l2"}}},
            "method cannot be None: known are cd, ",
        ),
        (
            {"method": {"kind": "ct", "distance": {"kind": "l3"}}},
            "distance cannot be 'l3': known are adaptive-l2, l1, l2, lp",
        ),
        ({"method": {"kind": "ct", "distance": "l2"}}, "distance must be a group of settings, not 'l2'."),
        ({"method": {"kind": "ct", "distance": {"kind": "l2", "c": 1}}}, "distance.c is not a setting"),
        (
            {"method": {"kind": ["ct"]}},
            "method cannot be ['ct']: known are cd",
        ),
        ({"noise": {"rho": "much"}}, "noise.rho must be float, not 'much'."),
        (
            {"method": {"kind": "ct", "times": {"kind": "grid", "scales": {"kind": "adaptive", "s0": 1}}}},
            "times.scales.s0 1 must be in [2, s1 = 150].",
        ),
    ],
)
def test_json_that_is_refused(values, message):
    with pytest.raises(SettingError) as refused:
        from_dict(Recipe, values)
    assert str(refused.value).startswith(message)


def test_a_word_chooses_a_class_and_keeps_what_both_have():
    changed = override(ICT, {"times.scales": "adaptive"})
    assert changed.method.times == Grid(scales=Adaptive(s0=10, s1=40), proposal=LognormalIntervals())
    assert override(changed, {"times.scales": "doubling"}) == ICT
    assert override(ICT, {"distance": "l2"}).method.distance == L2()
    optimizer = override(ICT, {"optimizer": "adam"}).optimizer
    assert optimizer == Adam(learning_rate=2e-3, beta2=0.99)
    network = override(ICT, {"network": "ncsn++"}).network
    assert network == NCSNpp(
        channels=32,
        channel_mult=(1, 2),
        blocks=1,
        attention_resolutions=(4,),
        norm_groups=8,
        conditional=True,
    )
    assert override(ICT, {"network": "ncsn++", "network.fourier_scale": 0.02}).network.fourier_scale == 0.02


def test_another_method_keeps_what_it_can_have():
    changed = override(ICT, {"method": "cd", "teacher.model": "edm"}).method
    assert changed.times == Grid(scales=Doubling(s0=10, s1=40), proposal=LognormalIntervals())
    assert (changed.distance, changed.weight, changed.target) == (
        PseudoHuber(),
        InverseGap(),
        ConstantDecay(),
    )
    assert (changed.teacher.model, changed.solver) == ("edm", "heun")
    assert override(ICT, {"method": "ct"}) == ICT
    tuned = override(ICT, {"times": "tuned"})
    assert override(tuned, {"method": "cd"}).method.times == Grid(scales=Constant()), "cd has grids alone"


def test_all_changes_are_made_at_once():
    """Neither is valid alone: s0 would be greater than s1, and the default s1 than the new s0."""
    changed = override(ICT, {"times.scales.s0": 100, "times.scales.s1": 200})
    assert changed.method.times.scales == Doubling(s0=100, s1=200)
    with pytest.raises(SettingError, match=r"times\.scales\.s0 100 must be in \[1, s1 = 40\]"):
        override(ICT, {"times.scales.s0": 100})
    backwards = override(ICT, {"distance.size": 64, "distance": "lpips"})
    assert backwards.method.distance == LPIPS(size=64)


def test_instances_are_words_too():
    assert override(ICT, {"distance": LPIPS(net="alex")}).method.distance == LPIPS(net="alex")
    both = override(ICT, {"distance": LPIPS(net="alex"), "distance.size": 0})
    assert both.method.distance == LPIPS(net="alex", size=0)
    method = ConsistencyTraining(times=Tuned(), target=ConstantDecay(), distance=L2())
    assert override(ICT, {"method": method, "times.q": 4.0}).method.times == Tuned(q=4.0)
    assert override(ICT, {"noise": ICT.noise}) == ICT


def test_values_are_of_their_type():
    changed = override(
        ICT, {"averages.decays": [0.5, 0], "optimizer.learning_rate": 1, "network.channel_mult": [1, 3]}
    )
    assert changed.averages.decays == (0.5, 0.0)
    assert type(changed.averages.decays[1]) is float
    assert type(changed.optimizer.learning_rate) is float
    assert changed.network.channel_mult == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times.scales.s": 1}, "times.scales.s is not a setting: did you mean 'times.scales.s1'?"),
        ({"distance": "l3"}, f"distance cannot be 'l3': {DISTANCES}"),
        ({"distance": ["l2"]}, f"distance cannot be ['l2']: {DISTANCES}"),
        ({"times.proposal.mean": math.nan}, "times.proposal.mean must be a finite number, not nan."),
        ({"distance.size": 3}, "distance.size belongs to distance lpips, and distance is pseudo-huber."),
        ({"times.q": 3.0}, "times.q belongs to times tuned, and times is grid."),
        (
            {"times": "tuned", "times.scales.s0": 1},
            "times.scales.s0 belongs to times grid, and times is tuned.",
        ),
        (
            {"times.scales.n": 3},
            "times.scales.n belongs to times.scales constant, and times.scales is doubling.",
        ),
        ({"solver": "euler"}, "solver belongs to method cd, and method is ct."),
        (
            {"teacher.model": "x"},
            "teacher.model belongs to method cd, pd, continuous-cd, scd or tcm, and method is ct.",
        ),
        ({"mu0": 0.9}, "mu0 is not a setting: did you mean 'target.mu0'?"),
        ({"beta_d": 0.9}, "beta_d is not a setting: did you mean 'times.beta_d' or 'column.beta_d'?"),
        ({"q": 3.0, "steps": 0}, "q is not a setting: did you mean 'times.q'?"),
        ({"noise": 3}, "noise is always NoiseLevels here, and not 3."),
        ({"steps": "many"}, "steps must be int, not 'many'."),
        ({"steps": True}, "steps must be int, not True."),
        ({"steps": 1.5}, "steps must be int, not 1.5."),
        ({"compile": 1}, "compile must be bool, not 1."),
        ({"averages.decays": ["a"]}, "averages.decays must be float, not 'a'."),
        ({"averages.decays": 0.9}, "averages.decays must be tuple[float, ...], not 0.9."),
        ({"precision": "float23"}, "precision cannot be 'float23': did you mean 'float32'?"),
        ({"optimizer.decay": "cosine"}, "optimizer.decay cannot be 'cosine': known are constant, linear."),
    ],
)
def test_changes_that_are_refused(changes, message):
    with pytest.raises(SettingError) as refused:
        override(ICT, changes)
    assert str(refused.value) == message
    assert refused.value.path in changes


def test_a_name_that_resembles_no_setting_is_refused_with_the_groups_of_them():
    listed = (
        r"zzzzzz is not a setting: known are accumulate, augmentation, averages\.…, .*, data\.…, .*, weight\."
    )
    with pytest.raises(SettingError) as refused:
        override(ICT, {"zzzzzz": 1})
    assert re.fullmatch(listed, str(refused.value))


def test_a_class_names_its_field_and_the_tree_the_path():
    with pytest.raises(SettingError) as alone:
        Doubling(s0=5, s1=2)
    with pytest.raises(SettingError) as inside:
        override(ICT, {"times.scales.s0": 5, "times.scales.s1": 2})
    assert alone.value.path == "s0"
    assert inside.value.path == "times.scales.s0"
    assert alone.value.problem == inside.value.problem == "5 must be in [1, s1 = 2]"
    with pytest.raises(ValueError, match=r"s0 5 must be in \[1, s1 = 2\]\."):
        Doubling(s0=5, s1=2)


def test_a_sketch_has_the_fields_of_settings_that_cannot_be_yet():
    drawn = sketch(ICT, {"method": "edm"})
    assert drawn.evaluation.samplers[0] == "one-step", "which no diffusion model has"
    assert "target.mu" not in flatten(drawn)
    assert flatten(sketch(ICT, {"distance": "lpips"}))["distance.size"] == 224
    with pytest.raises(SettingError, match="method cannot be 'gan'"):
        sketch(ICT, {"method": "gan"})


def test_the_choices_of_a_tree_come_before_those_that_they_hold():
    found = list(choices_of(ICT))
    assert found == [
        *("method", "times", "times.scales", "times.proposal", "distance", "weight", "target"),
        *("averages", "uncertainty", "column", "network", "augmentation", "optimizer"),
    ]
    assert "times" not in list(choices_of(recipes.cd_digits())), "of which cd has one alone"


def test_owners_are_outermost_first():
    assert owners(Recipe, "times.q") == {"method": ["ct", "continuous-ct"], "times": ["tuned"]}
    assert owners(Recipe, "times.scales") == {
        "method": ["ct", "cd", "continuous-ct", "continuous-cd"],
        "times": ["grid"],
    }
    assert owners(Recipe, "times.scales.n")["times.scales"] == ["constant"]
    assert owners(Recipe, "network.fourier_scale") == {"network": ["ncsn++", "edm2"]}
    assert owners(Recipe, "rounds.s1") == {"method": ["pd"]}
    assert owners(Recipe, "steps") == {}


def test_all_paths_are_those_of_all_choices():
    paths = all_paths(Recipe)
    assert len(paths) == len(set(paths))
    assert {"times.q", "times.scales.n", "rounds.s1", "solver", "column.beta_d", "distance.net"} <= set(paths)
    for recipe in recipes.RECIPES:
        assert set(flatten(recipes.named(recipe))) <= set(paths)


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulate": 2},
        {"compile": True},
        {"evaluation.samples": 100},
        {"evaluation.every": 0, "evaluation.extractor": "none"},
        {"evaluation.batch_size": 32},
        {"cluster.num_workers": 2},
        {"cluster.threads": 1},
        {"checkpoint.every": 50},
        {"tracking.uri": "none"},
        {"data.path": "elsewhere", "data.cache": "stream", "data.on_bad_image": "skip"},
        {"network.gradient_checkpointing": True},
        {"name": "other", "run_dir": "there", "log_every": 1},
    ],
)
def test_what_may_change_when_a_run_goes_on(changes):
    assert differences(ICT, override(ICT, changes)) == []
    lpips = override(ICT, {"distance": "lpips"})
    assert differences(lpips, override(lpips, {"distance.weights": "file.pth"})) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"distance": "l2"}, ["distance (pseudo-huber there, l2 here)", "distance.c (0.0 there, none here)"]),
        ({"distance.c": 0.5}, ["distance.c (0.0 there, 0.5 here)"]),
        (
            {"distance": "norm"},
            ["distance (pseudo-huber there, norm here)", "distance.c (0.0 there, none here)"],
        ),
        ({"precision": "bfloat16"}, ["precision (float32 there, bfloat16 here)"]),
        ({"steps": 901, "accumulate": 2}, ["steps (900 there, 901 here)"]),
        ({"seed": 4}, ["seed (0 there, 4 here)"]),
        ({"network.dropout": 0.1}, ["network.dropout (0.0 there, 0.1 here)"]),
        ({"augmentation": "flip"}, ["augmentation (none there, flip here)"]),
        ({"times.scales.s1": 80}, ["times.scales.s1 (40 there, 80 here)"]),
        ({"init_from.model": "edm"}, ["init_from.model ( there, edm here)"]),
        ({"noise.rho": 5.0}, ["noise.rho (7.0 there, 5.0 here)"]),
    ],
)
def test_what_may_not(changes, found):
    assert differences(ICT, override(ICT, changes)) == found


def test_adm_is_the_default_network_and_its_word_is_its_family():
    assert Recipe().network == ADM()
    assert Recipe().network.family == "adm"
    assert Recipe().method.times == Grid(scales=Adaptive(), proposal=UniformIntervals())

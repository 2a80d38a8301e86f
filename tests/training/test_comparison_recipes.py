"""The methods of tables: all recipes of a data set, their samplers, and the models that they start from."""

from typing import get_args

import pytest

from cm_ray.command_line.settings.paper_table import DEFAULT, Method
from cm_ray.errors import UserError
from cm_ray.recipes import RECIPES
from cm_ray.recipes.comparison import COMPARED, EVALUATIONS, compared_recipe, lines_of, with_starts
from cm_ray.sampling.text import parse


def test_the_command_knows_every_method_that_digits_have_a_recipe_of():
    assert set(get_args(Method)) == set(COMPARED)
    assert set(COMPARED) == {name.removesuffix("_digits") for name in RECIPES if name.endswith("_digits")}
    assert set(DEFAULT) <= set(COMPARED)


def test_a_method_comes_after_the_one_that_it_starts_from():
    for method, compared in COMPARED.items():
        order = with_starts([method])
        assert order[-1] == method
        assert order[:-1] == ([compared.starts_from] if compared.starts_from else [])
    assert with_starts(["scd", "cd", "tcm"]) == ["edm", "trigflow", "cd", "ict", "tcm", "scd"]


@pytest.mark.parametrize(
    ("method", "data"),
    [
        (method, data)
        for method in COMPARED
        for data in ("digits", "cifar10")
        if f"{method}_{data}" in RECIPES
    ],
)
def test_the_samplers_have_as_many_evaluations_as_their_columns(method, data):
    changes = {"evaluation.extractor": "digits"}
    recipe = compared_recipe(method, data, changes, "start" if COMPARED[method].starts_from else "")
    few = []
    for line in lines_of(method, recipe):
        own = recipe.own_sampler(int(line.round or 0))
        sampler = parse(line.sampler, recipe.diffusion, own=own)
        if COMPARED[method].few and "(" not in line.label.replace("(DDIM)", ""):
            few.append(sampler.nfe)
        if (least := recipe.method.lowest_time) and sampler.nfe > 1:
            assert sampler.times(recipe.noise)[1] >= least, "where nothing is trained"
    assert few == (list(EVALUATIONS) if COMPARED[method].few else [])


def test_a_recipe_without_what_it_needs_is_refused():
    with pytest.raises(UserError, match="There is no recipe 'shortcut_cifar10'"):
        compared_recipe("shortcut", "cifar10", {}, "")
    with pytest.raises(UserError, match=r"teacher.model is missing"):
        compared_recipe("cd", "digits", {}, "")

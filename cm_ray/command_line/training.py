"""The command line of a training: the name of a recipe, and options that change its settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from cm_ray.command_line.options import EPILOGUE
from cm_ray.command_line.recipe_options import ALIASES, parse_recipe
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import SettingError, UserError
from cm_ray.recipes import RECIPES, named
from cm_ray.recipes.own_images import METHODS
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import all_paths

DESCRIPTION = """Train a recipe: cm-ray train ct_cifar10 --data /data/cifar10 --num-workers 8

Ray Data streams the images to Ray Train workers. The same command goes on after an interruption."""


def parse_training(words: Sequence[str], *, prog: str | None = None) -> Recipe:
    """Return the recipe that a command line gives: the name of a recipe, and options.

    For images of one's own (--data), the word of a method stands for a recipe that fits them. Exits and
    raises as `cm_ray.command_line.recipe_options.parse_recipe`; raises UserError on an unknown recipe.
    """
    arguments = list(words)
    if not arguments or arguments[0].startswith("-"):
        if arguments[:1] in (["--help"], ["-h"]):
            print(f"{DESCRIPTION}\n\n{EPILOGUE}\n\n{_known()}\nRECIPE --help shows all settings.")
            sys.exit(0)
        raise UserError(f"Name a recipe first. {_known()}")
    name = arguments.pop(0)
    recipe = _recipe_for_images(name, arguments) if name in METHODS else named(name)
    return parse_recipe(recipe, arguments, DESCRIPTION, prog=prog)


def training_paths() -> set[str]:
    """Return the paths of the settings that a training has options for, with the short ones."""
    short = (option[2:].replace("-", "_") for option in ALIASES.values())
    return {*all_paths(Recipe), *short, "config", "own_code"}


def _known() -> str:
    recipes, methods = ", ".join(RECIPES), ", ".join(METHODS)
    return f"Recipes: {recipes}; or a method, for images of your own (--data): {methods}."


def _recipe_for_images(method: str, arguments: Sequence[str]) -> Recipe:
    """Return the recipe of a method for the images that the arguments name."""
    if {"--help", "-h"} & set(arguments):
        return METHODS[method]()
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--data", "--data.path", dest="path", default="")
    for name, value in asdict(ReadOptions()).items():
        option = f"--data.{name.replace('_', '-')}"
        options.add_argument(option, dest=name, type=type(value), default=value)
    given = vars(options.parse_known_args(list(arguments))[0])
    path = given.pop("path")
    if not path:
        raise UserError(f"{method} is for images of your own: give --data, or name {method}_cifar10.")
    from cm_ray.api.train import recipe_for
    from cm_ray.data.glimpse import glimpse

    try:
        reading = ReadOptions(**given)
    except SettingError as error:
        raise SettingError(f"data.{error.path}", error.problem) from error
    return recipe_for(method, lambda: glimpse(path, reading))

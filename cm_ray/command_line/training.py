"""The command line of a training: the name of a recipe, and options that change its settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from cm_ray.command_line.options import EPILOGUE
from cm_ray.command_line.recipe_options import ALIASES, parse_changes, parse_recipe, refuse_unheard_of
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.errors import SettingError, UserError, setting
from cm_ray.recipes import RECIPES, named
from cm_ray.recipes.automatic import AutoTraining, DataFacts, networks_for, student_for
from cm_ray.recipes.own_images import METHODS
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import all_paths, override

DESCRIPTION = """Train a recipe: cm-ray train ct_cifar10 --data /data/cifar10 --num-workers 8

Ray Data streams the images to Ray Train workers. The same command goes on after an interruption."""
AUTO = """Choose settings for images and a time, and train: cm-ray train auto --data photos/ --hours 2

--hours is the time for all of it, of which three minutes are the least. A diffusion model is trained first
and then distilled; of the networks, the largest is taken that sees enough images in the time, by the speed
of its steps on this machine. The options below set what would be chosen; --dry-run stops after the table."""


def parse_training(words: Sequence[str], *, prog: str | None = None) -> Recipe | AutoTraining:
    """Return the recipe that a command line gives: the name of a recipe, and options.

    After auto it is the time and the settings that are given, and the others are chosen later. For images of
    one's own (--data), the word of a method stands for a recipe that fits them. Exits and raises as
    `cm_ray.command_line.recipe_options.parse_recipe`; raises UserError on an unknown recipe.
    """
    arguments = list(words)
    if not arguments or arguments[0].startswith("-"):
        if arguments[:1] in (["--help"], ["-h"]):
            print(f"{DESCRIPTION}\n\n{EPILOGUE}\n\n{_known()}\nRECIPE --help shows all settings.")
            sys.exit(0)
        raise UserError(f"Name a recipe first. {_known()}")
    name = arguments.pop(0)
    if name == "auto":
        return _parse_auto(arguments, prog)
    recipe = _recipe_for_images(name, arguments) if name in METHODS else named(name)
    return parse_recipe(recipe, arguments, DESCRIPTION, prog=prog)


def _parse_auto(arguments: Sequence[str], prog: str | None) -> AutoTraining:
    """Return the time, the images and the settings that are given for a training that chooses the others."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--hours", default="")
    found, left = options.parse_known_args(list(arguments))
    size = DataFacts(path="", count=0, shape=(3, 32, 32), classes=0, sigma_data=0.5)
    recipe = student_for(size, networks_for(size)[0], 128)
    _, changes = parse_changes(recipe, left, AUTO, prog=prog)
    if word := changes.get("method"):
        raise UserError(f"auto chooses the method; for another one, name {word} in place of auto.")
    if "teacher.model" in changes:
        raise UserError("auto trains a teacher of its own; to distil another one, name cd in place of auto.")
    try:
        hours = float(found.hours)
    except ValueError:
        problem = f"takes the time of the training, such as 0.5, not {found.hours!r}"
        raise SettingError("hours", problem) from None
    data = override(recipe, changes).data
    if not data.path:
        raise UserError(f"auto needs images: give {setting('data.path')}.")
    return AutoTraining(hours=hours, data=data, changes=changes)


def training_paths() -> set[str]:
    """Return the paths of the settings that a training has options for, with the short ones."""
    short = (option[2:].replace("-", "_") for option in ALIASES.values())
    return {*all_paths(Recipe), *short, "config", "hours", "own_code"}


def _known() -> str:
    recipes, methods = ", ".join(RECIPES), ", ".join(METHODS)
    own = "or a method, for images of your own (--data)"
    return f"Recipes: {recipes}; {own}: {methods}; or auto, which chooses settings for --hours."


def _recipe_for_images(method: str, arguments: Sequence[str]) -> Recipe:
    """Return the recipe of a method for the images that the arguments name."""
    if {"--help", "-h"} & set(arguments):
        return METHODS[method]()
    refuse_unheard_of(arguments, METHODS[method]())
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

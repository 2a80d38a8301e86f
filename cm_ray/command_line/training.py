"""The command line of a training: the name of a recipe, and options that change its settings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cm_ray.command_line.options import EPILOGUE
from cm_ray.command_line.recipe_options import parse_recipe
from cm_ray.errors import UserError
from cm_ray.recipes import RECIPES, named
from cm_ray.recipes.recipe import Recipe

DESCRIPTION = """Train a recipe: cm-ray train ct_cifar10 --data /data/cifar10 --num-workers 8

Ray Data streams the images to Ray Train workers. The same command goes on after an interruption."""


def parse_training(words: Sequence[str], *, prog: str | None = None) -> Recipe:
    """Return the recipe that a command line gives: the name of a recipe, and options.

    Exits and raises as `cm_ray.command_line.recipe_options.parse_recipe`, and raises UserError on an unknown
    recipe.
    """
    arguments = list(words)
    if arguments[:1] and not arguments[0].startswith("-"):
        return parse_recipe(named(arguments.pop(0)), arguments, DESCRIPTION, prog=prog)
    known = ", ".join(RECIPES)
    if arguments[:1] in (["--help"], ["-h"]):
        print(f"{DESCRIPTION}\n\n{EPILOGUE}\n\nRecipes: {known}. RECIPE --help shows all settings.")
        sys.exit(0)
    raise UserError(f"Name a recipe first: {known}.")

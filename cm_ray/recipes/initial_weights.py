"""The warning of a training that is too short for its average, before it starts."""

from __future__ import annotations

from cm_ray.errors import setting, spoken
from cm_ray.networks.initial_weights import MOST_SHARE
from cm_ray.recipes.recipe import TEACHER, Recipe


def planned_weights_warning(recipe: Recipe) -> str | None:
    """Return a warning when the planned steps leave more than 5 % of the initial weights in the average.

    The average is the one that is sampled from and exported. Returns None otherwise.
    """
    steps = recipe.averaged_steps(recipe.steps)
    share = recipe.averages.initial_shares(steps)[0]
    if share <= MOST_SHARE:
        return None
    decay = recipe.averages.decays_at(steps)[0]
    return spoken(
        f"after {steps:,} steps {share:.0%} of the average with decay {decay:g} will be "
        f"{_begun_with(recipe)}, and samples will show little of what was learned; choose "
        f"{setting('averages')} power, a smaller {setting('averages.decays')}, or more {setting('steps')}."
    )


def _begun_with(recipe: Recipe) -> str:
    if recipe.averaged_steps(recipe.steps) < recipe.steps:
        return "the weights that the last round begins with"
    if recipe.init_from.model == TEACHER:
        return "the teacher's weights"
    if model := recipe.init_from.model:
        return f"the weights of {model}, which the training begins with"
    return "the random initial weights"

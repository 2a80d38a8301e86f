"""The methods that a table compares: their names, their samplers, and the models that they start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cm_ray.errors import UserError, setting
from cm_ray.recipes import named
from cm_ray.recipes.recipe import TEACHER, Recipe, check_models_named
from cm_ray.settings.tree import flatten, override, sketch

EVALUATIONS = (1, 2, 4, 8)
"""Numbers of network evaluations of the columns."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A method of a table."""

    label: str
    """Its name in the table."""
    few: str = ""
    """The sampler of few evaluations, as the word before their number; empty: the method has none."""
    starts_from: str = ""
    """The method whose model is its teacher, or what it starts from; empty: none."""
    many: tuple[tuple[str, str], ...] = ()
    """Names and texts of samplers of many evaluations; "recipe" is the recipe's first."""


_HEUN = (("Heun", "own"),)
_ODE = ("ODE", "ode,rtol=0.001,atol=0.001")
COMPARED: Mapping[str, Compared] = {
    "edm": Compared("EDM", "euler", many=_HEUN),
    "trigflow": Compared("TrigFlow", "euler", many=_HEUN),
    "edm2": Compared("EDM2", "euler", many=_HEUN),
    "cd": Compared("CD", "multistep", starts_from="edm"),
    "pd": Compared("PD", "pd", starts_from="edm"),
    "ect": Compared("ECT", "multistep", starts_from="edm"),
    "ct": Compared("CT", "multistep"),
    "ict": Compared("iCT", "multistep"),
    "tcm": Compared("TCM", "multistep", starts_from="ict"),
    "sct": Compared("sCT", "multistep"),
    "scd": Compared("sCD", "multistep", starts_from="trigflow"),
    "meanflow": Compared("MeanFlow", "jumps"),
    "shortcut": Compared("shortcut", "jumps"),
    "ncsn": Compared("NCSN", many=(("Langevin", "recipe"), _ODE)),
    "ncsnv2": Compared("NCSNv2", many=(("Langevin", "recipe"), _ODE)),
    "ve": Compared("VE", many=(("PC", "recipe"), _ODE)),
    "vp": Compared("VP", many=(("ancestral", "recipe"), _ODE)),
    "subvp": Compared("sub-VP", many=(("reverse diffusion", "recipe"), _ODE)),
}
"""All methods, in the order in which they are trained: each after the one that it starts from."""


@dataclass(frozen=True, slots=True)
class Line:
    """A sampler of a trained method: a cell of a table."""

    label: str
    """Name of the line in the table."""
    sampler: str
    """Text of the sampler."""
    round: str = ""
    """Name of the round whose model is sampled, in progressive distillation; empty: the final model."""


def lines_of(method: str, recipe: Recipe) -> list[Line]:
    """Return the lines of a method that is trained by a recipe: many evaluations first, then few.

    Its samplers have 1, 2, 4 and 8 evaluations where the method has samplers of few.
    """
    compared = COMPARED[method]
    own = recipe.evaluation.samplers[0]
    found = [
        Line(f"{compared.label} ({name})", own if text == "recipe" else text) for name, text in compared.many
    ]
    label = f"{compared.label} (DDIM)" if compared.few == "euler" else compared.label
    for count in EVALUATIONS if compared.few else ():
        if recipe.method.lowest_time and count > 1:
            text = _above(recipe, count)
        else:
            text = "one-step" if compared.few == "jumps" and count == 1 else f"{compared.few}:{count}"
        found.append(Line(label, text, str(count) if compared.few == "pd" else ""))
    return found


def _above(recipe: Recipe, count: int) -> str:
    """Return multistep sampling of a model that is trained above a time: geometric points that end there."""
    low, high = recipe.method.lowest_time, recipe.noise.t_max
    points = [high * (low / high) ** (k / (count - 1)) for k in range(1, count)]
    return "multistep@" + ",".join(f"{max(point, low):.4g}" for point in points)


def with_starts(methods: Sequence[str]) -> list[str]:
    """Return the methods and all that they start from, in the order of training."""
    wanted = set(methods)
    for method in reversed(list(COMPARED)):
        if method in wanted and COMPARED[method].starts_from:
            wanted.add(COMPARED[method].starts_from)
    return [method for method in COMPARED if method in wanted]


def compared_recipe(method: str, data: str, changes: Mapping[str, Any], start: str) -> Recipe:
    """Return the recipe METHOD_DATA with the changes that it has the settings for, and what it starts from.

    start: the model of the method that it starts from. Raises UserError when there is no such recipe, or it
    cannot be scored at all columns of the table.
    """
    recipe = named(f"{method}_{data}")
    known = flatten(sketch(recipe, changes))
    recipe = override(recipe, {path: value for path, value in changes.items() if path in known})
    if recipe.teacher is not None:
        recipe = override(recipe, {"teacher.model": start})
    elif recipe.init_from.model == TEACHER:
        recipe = override(recipe, {"init_from.model": start})
    check_models_named(recipe)
    _check_scored(recipe)
    return recipe


def _check_scored(recipe: Recipe) -> None:
    if recipe.evaluation.extractor == "none":
        raise UserError(
            f"The recipe {recipe.name} has no feature extractor, so nothing can be compared; set "
            f"{setting('evaluation.extractor')}."
        )
    if (rounds := recipe.method.halving) and not set(EVALUATIONS) <= set(rounds.intervals):
        raise UserError(
            f"Progressive distillation from {rounds.s1} steps to {rounds.s0} has no "
            f"model for each of {', '.join(map(str, EVALUATIONS))} steps; set {setting('rounds.s0')} "
            f"to 1 and {setting('rounds.s1')} to {max(EVALUATIONS)} or more."
        )

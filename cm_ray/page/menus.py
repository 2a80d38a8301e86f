"""The menus of the page: classes by name, numbers of steps with their scores, ways to show small images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cm_ray.drawing.model_labels import class_menu
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.page.model_card import ScoreLine
from cm_ray.sampling.text import text_of

ANY_CLASS = "drawn at random"
"""Entry of the class menu that draws a class at random."""
OTHER = "other"
"""Entry of the menu of steps that takes any number."""
PIXELS, SMOOTH = "as pixels", "smooth"
"""Small images are enlarged pixel by pixel, or smoothed, which the eye reads more easily."""
_STEPS = (1, 2, 4)


def class_of(spec: ModelSpec, entry: str) -> int | None:
    """Return the number of a class from its entry in the menu. Raises UserError when there is none."""
    if entry == ANY_CLASS:
        return None
    menu = class_menu(spec)
    if entry not in menu:
        raise UserError(f"There is no class {entry!r}; choose one from the menu.")
    return menu[entry]


def entry_of(spec: ModelSpec, number: int) -> str:
    """Return the entry of a class in the menu."""
    return next(text for text, each in class_menu(spec).items() if each == number)


def steps_menu(spec: ModelSpec, scores: Sequence[ScoreLine] = ()) -> dict[str, int]:
    """Return numbers of steps by texts that have their scores; the first is the model's own sampler, 0.

    A consistency model has 1, 2 and 4 steps, but for the number that is its own.
    """
    own = text_of(spec.sampler)
    counts = () if spec.diffusion.denoiser else _STEPS
    samplers = {count: text_of(sampler_of(spec, steps=count)) for count in counts}
    entries = {0: own} | {count: text for count, text in samplers.items() if text != own}
    menu = {}
    for count, text in entries.items():
        nfe = count or spec.sampler.nfe
        name = f"{nfe} step{'s' * (nfe != 1)}" if not spec.diffusion.denoiser else text
        found = next((score for score in scores if score.sampler == text), None)
        menu[name + ("" if found is None else f": {found.name} {_digits(found.value)}")] = count
    return menu


def _digits(value: float) -> str:
    return f"{value:#.3g}".removesuffix(".")


def steps_of(menu: dict[str, int], entry: str, other: Any) -> int:
    """Return the number of steps that is chosen; of `OTHER`, the number beside it."""
    if entry != OTHER:
        return menu[entry]
    if not other:
        raise UserError("Write a number of steps, or choose one.")
    return int(other)

"""Validation of search spaces: every parameter is a setting, and every value can be trained in some trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from cm_ray.errors import SettingError, UserError, closest
from cm_ray.recipes.recipe import Recipe, check_models_named
from cm_ray.settings.tree import all_paths, owners, why_unknown
from cm_ray.sweeps.internals import contains
from cm_ray.sweeps.space import NUMBER, Categorical, Float, Int, Named, Params, Space, Values

Fits = Callable[[Recipe], object]

_KEPT = (
    *("name", "run_dir", "seed", "log_every", "data.path", "data.size"),
    *("checkpoint", "cluster", "evaluation", "tracking"),
)
"""Settings, with all below them, that all trials share: scores could not be compared otherwise."""
_SCALARS = (str, int, float, bool, type(None))
_DRAWS = 50
"""Random values of the other parameters that each value is tried with."""


def check_space(space: Space, fits: Fits = lambda config: None) -> None:
    """Validate a search space.

    fits: raises UserError on settings that do not suit the images. Raises UserError on unknown settings,
    values out of range, parameters that exist in no trial, and values that are invalid in every trial.
    """
    if not space.space:
        raise UserError("A search space needs at least one parameter.")
    if space.minimize not in (("score",), ("score", "cost")):
        raise UserError(f"A space minimizes ('score',) or ('score', 'cost'), not {space.minimize}.")
    for name in (*space.first, *space.lines):
        if name not in space.space:
            raise UserError(f"{name!r} is no parameter of the space: {closest(name, list(space.space))}")
    for name, values in space.space.items():
        _check_name(space, name, values)
    branches = {name: _branches(space, name) for name in space.space}
    _check_start(space, fits)
    for name, beside in branches.items():
        _check_values(space, name, beside, fits)


def _check_name(space: Space, name: str, values: Values) -> None:
    """Raise UserError on names with another meaning, and on values that Optuna cannot store."""
    if name == NUMBER:
        raise UserError(f"{NUMBER!r} is the number of a trial: give the bundles another name.")
    if isinstance(values, Named) and values.bundles and name in all_paths(type(space.base)):
        raise UserError(f"{name} is a setting: bundles of settings need a name of their own.")
    for choice in values.choices if isinstance(values, Categorical) else ():
        if not isinstance(choice, _SCALARS):
            raise UserError(f"{name} has the choice {choice!r}, which Optuna cannot store: use `Named`.")
    for path in _paths(name, values):
        if any(path == kept or _below(path, kept) or _below(kept, path) for kept in _KEPT):
            raise UserError(f"{path} is the same in all trials of a sweep: take it out of the space.")


def _below(path: str, above: str) -> bool:
    return path.startswith(above + ".")


def _paths(name: str, values: Values) -> set[str]:
    """Return the paths that a parameter changes."""
    if not isinstance(values, Named):
        return {name}
    return {path for value in values.values for path in values.changes(name, value)}


def _branches(space: Space, name: str) -> list[dict[str, Any]]:
    """Return the combinations of the parameters which choose classes above `name` where `name` exists.

    Raises UserError when there is none, or when one of those parameters stands behind `name`.
    """
    names = list(space.space)
    above = set(owners(type(space.base), name))
    choosers = [each for each in names if each != name and above & _paths(each, space.space[each])]
    if late := [each for each in choosers if names.index(each) > names.index(name)]:
        raise UserError(f"{name} exists beside some values of {late[0]} alone: put {late[0]} before it.")
    points = list(space.points(choosers))
    branches = [point for point in points if space.distribution(name, point) is not None]
    if not branches:
        raise SettingError(name, why_unknown(space.settings(points[0]), name))
    return branches


def _check_start(space: Space, fits: Fits) -> None:
    """Raise UserError when trial 0 is not in the space, or is invalid."""
    start = space.start()
    if absent := [name for name in space.first if name not in start]:
        raise UserError(f"`first` has {absent[0]}, which does not exist in trial 0: leave it out.")
    for name, value in start.items():
        distribution = space.distribution(name, start)
        if distribution is None or not contains(distribution, value):
            raise UserError(
                f"{name} is {value!r} in trial 0, and {distribution} has no such value: widen it, or give "
                "`first`."
            )
    _check_settings(space, start, fits)


def _check_settings(space: Space, params: Params, fits: Fits) -> None:
    config = space.config(params)
    check_models_named(config)
    fits(config)


def _check_values(space: Space, name: str, branches: Sequence[Params], fits: Fits) -> None:
    """Raise UserError when a bound or a choice of a parameter is invalid with all values of the others."""
    draw = Random(0)
    for value in _extremes(space.space[name]):
        for _ in range(_DRAWS):
            try:
                drawn = _Drawn(draw, {**draw.choice(branches), name: value})
                _check_settings(space, space.suggest(drawn), fits)
            except UserError as error:
                sentence = str(error)
            else:
                break
        else:
            raise UserError(f"{name} can never be {value!r}: {sentence}")


@dataclass(frozen=True)
class _Drawn:
    """A stand-in for an Optuna trial: values are random, except for the given ones."""

    random: Random
    given: Params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return a choice."""
        return self.given[name] if name in self.given else self.random.choice(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Return an integer in the range, uniformly even where `log` is set."""
        return self.given[name] if name in self.given else self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Return a number in the range, uniformly and without steps."""
        return self.given[name] if name in self.given else self.random.uniform(low, high)


def _extremes(values: Values) -> list[Any]:
    if isinstance(values, Named):
        return list(values.values)
    if isinstance(values, Categorical):
        return list(values.choices)
    assert isinstance(values, Int | Float)
    return [values.low, values.high]

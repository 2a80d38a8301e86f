"""What a sweep may change, as data: dotted config paths to Optuna's distributions, with conditions.

A parameter is a dotted path (``schedule.s0``) with a distribution of its values, or a name of its own with
`Named` bundles of settings. `When` limits a parameter to where other settings have given values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from cm_ray.errors import UserError, closest
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import flatten, override

__all__ = ["Categorical", "Float", "Int", "Named", "Space", "When"]

Objective = Literal["score", "cost"]
Sampler = Literal["tpe", "gp", "random", "grid", "nsga2"]
Params = Mapping[str, Any]
"""Values by parameter."""
Fits = Callable[[Recipe], object]

_KEPT = (
    *("name", "run_dir", "seed", "log_every", "data.path", "data.size"),
    *("checkpoint.", "cluster.", "evaluation.", "tracking."),
)
"""What a sweep decides for all of its trials: scores of others would not compare."""
_SCALARS = (str, int, float, bool, type(None))
NUMBER = "trial"
"""Tune's config has a trial's parameters, and under this name its number in the study."""
_DRAWS = 50
"""Settings of the other parameters beside which a value is tried."""


@dataclass(frozen=True)
class Named:
    """Bundles of settings by name, for what only makes sense together."""

    settings: Mapping[str, Mapping[str, Any]]
    """Values by dotted path, by the bundle's name."""


@dataclass(frozen=True)
class When:
    """A parameter that exists only where other settings have one of the given values."""

    given: Mapping[str, tuple[Any, ...]]
    """Values by dotted path, or names by the name of a `Named`; all must hold."""
    what: BaseDistribution | Named


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A question to ask with a sweep."""

    question: str
    """Shown above the report."""
    base: Recipe
    """What is not swept."""
    space: Mapping[str, BaseDistribution | Named | When]
    """In an order in which conditions name what stands before them."""
    first: Params = field(default_factory=dict)
    """Trial 0, where it differs from the base: the paper's setting."""
    minimize: tuple[Objective, ...] = ("score",)
    """score: of the first of evaluation.samplers; cost: of training, in floating-point operations."""
    sampler: Sampler = "tpe"
    """How settings are chosen if the command does not say; grid: all there are."""
    trials: int = 50
    """Settings to try if the command does not say; a grid has its own number."""
    seeds: int = 1
    """Trainings of each setting if the command does not say."""
    grace: int = 0
    """Steps that every trial is given before it may be stopped, if the command does not say; 0: to its first
    score."""
    lines: tuple[str, ...] = ()
    """Parameters whose values name the lines of the panel of scores against training steps; empty: none."""

    def check(self, fits: Fits = lambda config: None) -> None:
        """Hold all of it against the config's types and rules.

        fits: raises UserError on settings that do not go with the images. Raises UserError on settings that
        there are not, values out of range, conditions that never hold, and values that never fit.
        """
        _check(self, fits)

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Ask an Optuna trial for the parameters that exist in it, one after the other."""
        params: dict[str, Any] = {}
        for name in self.space:
            if (distribution := self.distribution(name, params)) is not None:
                params[name] = _asked(trial, name, distribution)
        return params

    def distribution(self, name: str, params: Params) -> BaseDistribution | None:
        """Return a parameter's distribution; None where it does not exist beside those before it."""
        entry = self.space[name]
        if isinstance(entry, When):
            there = flatten(self.base) | self.changes(params) | dict(params)
            if any(there.get(path) not in values for path, values in entry.given.items()):
                return None
        return _alone(entry)

    def changes(self, params: Params) -> dict[str, Any]:
        """Return values by dotted path."""
        changes: dict[str, Any] = {}
        for name, value in params.items():
            entry = self.space[name]
            what = entry.what if isinstance(entry, When) else entry
            changes |= what.settings[value] if isinstance(what, Named) else {name: value}
        return changes

    def config(self, params: Params) -> Recipe:
        """Return the settings of a trial. Raises UserError when they cannot be trained."""
        return override(self.base, self.changes(params))

    def start(self) -> dict[str, Any]:
        """Return the parameters of trial 0."""
        base = flatten(self.base)
        params: dict[str, Any] = {}
        for name in self.space:
            if self.distribution(name, params) is None:
                continue
            if name not in self.first and name not in base:
                raise UserError(f"Trial 0 has no {name!r}: give `first` one of its names.")
            params[name] = self.first.get(name, base.get(name))
        return params

    def grid(self) -> list[dict[str, Any]]:
        """Return all settings, trial 0 first. Raises UserError when they cannot be counted."""
        points, start = list(_points(self, {}, list(self.space))), self.start()
        return [start, *(point for point in points if point != start)]


def _alone(entry: BaseDistribution | Named | When) -> BaseDistribution:
    """Return a parameter's distribution where it exists."""
    what = entry.what if isinstance(entry, When) else entry
    return Categorical(list(what.settings)) if isinstance(what, Named) else what


def _points(space: Space, params: dict[str, Any], names: list[str]) -> Iterator[dict[str, Any]]:
    if not names:
        yield params
        return
    distribution = space.distribution(names[0], params)
    for value in [None] if distribution is None else _values(names[0], distribution):
        more = {} if distribution is None else {names[0]: value}
        yield from _points(space, params | more, names[1:])


def _values(name: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, Categorical):
        return list(distribution.choices)
    if isinstance(distribution, Int):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, Float)
    if distribution.step is None:
        raise UserError(
            f"A grid needs values to count, and {name} is continuous: give it a step, or choices."
        )
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + i * distribution.step for i in range(count)]


def _asked(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, Categorical):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, Int):
        return trial.suggest_int(
            name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    assert isinstance(distribution, Float)
    return trial.suggest_float(
        name, distribution.low, distribution.high, step=distribution.step, log=distribution.log
    )


def _check(space: Space, fits: Fits) -> None:
    """Raise UserError on parameters that do not exist, and on values that no trial could be trained with."""
    if not space.space:
        raise UserError("A search space needs at least one parameter.")
    if space.minimize not in (("score",), ("score", "cost")):
        raise UserError(f"A space minimizes ('score',) or ('score', 'cost'), not {space.minimize}.")
    for name in (*space.first, *space.lines):
        if name not in space.space:
            raise UserError(f"{name!r} is no parameter of the space: {closest(name, list(space.space))}")
    for number, name in enumerate(space.space):
        _check_parameter(space, name, list(space.space)[:number])
    start = space.start()
    if absent := [name for name in space.first if name not in start]:
        raise UserError(f"`first` has {absent[0]}, which does not exist in trial 0: leave it out.")
    for name, value in start.items():
        distribution = space.distribution(name, start)
        if distribution is None or not _contains(distribution, value):
            raise UserError(
                f"{name} is {value!r} in trial 0, and {distribution} has no such value: widen it, or give "
                "`first`."
            )
    fits(space.config(start))
    for name in space.space:
        _check_values(space, name, fits)


def _check_parameter(space: Space, name: str, earlier: Sequence[str]) -> None:
    """Raise UserError on paths that the config does not have, and on conditions that can never hold."""
    known, entry = flatten(space.base), space.space[name]
    _check_what(name, entry.what if isinstance(entry, When) else entry, list(known))
    for path in entry.given if isinstance(entry, When) else ():
        if path in space.space and path not in earlier:
            raise UserError(f"{name} depends on {path}, which must stand before it in the space.")
        if path not in known and path not in space.space:
            raise UserError(f"There is no setting {path!r}: {closest(path, [*known, *earlier])}")


def _check_what(name: str, what: BaseDistribution | Named, known: list[str]) -> None:
    """Raise UserError on names that there are not or that mean something else, and on odd choices."""
    if name == NUMBER:
        raise UserError(f"{NUMBER!r} is the number of a trial: give the bundles another name.")
    if isinstance(what, Named) and name in known:
        raise UserError(f"{name} is a setting: bundles of settings need a name of their own.")
    for choice in what.choices if isinstance(what, Categorical) else ():
        if not isinstance(choice, _SCALARS):
            raise UserError(
                f"{name} has the choice {choice!r}, which Optuna cannot keep: bundle it as `Named`."
            )
    bundles = what.settings.values() if isinstance(what, Named) else [{name: None}]
    for path in (path for bundle in bundles for path in bundle):
        if path not in known:
            raise UserError(f"There is no setting {path!r}: {closest(path, known)}")
        if path.startswith(_KEPT):
            raise UserError(f"{path} is the same in all trials of a sweep: take it out of the space.")


def _check_values(space: Space, name: str, fits: Fits) -> None:
    """Raise UserError when a bound or choice of a parameter cannot be trained, whatever the others are."""
    entry = space.space[name]
    what = entry.what if isinstance(entry, When) else entry
    draw = Random(0)
    for value in _extremes(what):
        sentence = "no other parameters let it exist"
        for _ in range(_DRAWS):
            params = space.suggest(_Drawn(draw, {**_needed(space, name, draw), name: value}))
            if name not in params:
                continue
            try:
                fits(space.config(params))
            except UserError as error:
                sentence = str(error)
            else:
                break
        else:
            raise UserError(f"{name} can never be {value!r}: {sentence.rstrip('.')}.")


def _needed(space: Space, name: str, draw: Random) -> dict[str, Any]:
    """Return values with which a parameter's conditions hold, as far as other parameters have them."""
    needed: dict[str, Any] = {}
    entry = space.space[name]
    for path, values in entry.given.items() if isinstance(entry, When) else ():
        if path in space.space:
            possible = [value for value in values if _contains(_alone(space.space[path]), value)]
            needed |= _needed(space, path, draw) | ({path: draw.choice(possible)} if possible else {})
    return needed


@dataclass(frozen=True)
class _Drawn:
    """Stands for an Optuna trial: draws values at random, but for those that are given."""

    random: Random
    given: Params

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return a choice."""
        return self.given[name] if name in self.given else self.random.choice(choices)

    def suggest_int(self, name: str, low: int, high: int, *, step: int, log: bool) -> int:
        """Return an integer, `log` or not: any will do."""
        return self.given[name] if name in self.given else self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None, log: bool) -> float:
        """Return a number in the range: any will do."""
        return self.given[name] if name in self.given else self.random.uniform(low, high)


def _extremes(what: BaseDistribution | Named) -> list[Any]:
    if isinstance(what, Named):
        return list(what.settings)
    if isinstance(what, Categorical):
        return list(what.choices)
    assert isinstance(what, Int | Float)
    return [what.low, what.high]


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False

"""Search spaces as data: the settings that a sweep changes, and the values that each can take.

A parameter is the dotted path of a setting (``times.scales.s0``, ``distance``) with one of Optuna's
distributions, or with `Named` values where Optuna could not store them. It exists in the trials whose
settings have that path: ``distance.c`` where the distance is pseudo-huber, because only that class has a c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from cm_ray.errors import UserError, closest
from cm_ray.recipes.recipe import Recipe
from cm_ray.settings.tree import flatten, override, sketch

__all__ = ["Categorical", "Float", "Int", "Named", "Space"]

Objective = Literal["score", "cost"]
Sampler = Literal["tpe", "gp", "random", "grid", "nsga2"]
Params = Mapping[str, Any]
"""Values by parameter; of `Named` values, their names."""
NUMBER = "trial"
"""The key of the trial's number, beside its parameters, in Ray Tune's config."""


@dataclass(frozen=True)
class Named:
    """Values by name: objects, or settings that are only useful together. Optuna stores the names.

    Under the path of a setting, a value is put at that path, as in ``"distance": Named({"Huber, c = 0.03":
    PseudoHuber(c=0.03)})``. Under any other name, a value is a bundle: a mapping from paths to values.
    """

    values: Mapping[str, Any]

    def changes(self, name: str, value: str) -> dict[str, Any]:
        """Return the settings by dotted path that a value of the parameter `name` stands for.

        Raises UserError when there is no such value.
        """
        if value not in self.values:
            raise UserError(f"{name} has no value {value!r}: {closest(str(value), list(self.values))}")
        named = self.values[value]
        return dict(named) if isinstance(named, Mapping) else {name: named}

    @property
    def bundles(self) -> bool:
        """True when any value is a bundle."""
        return any(isinstance(value, Mapping) for value in self.values.values())


Values: TypeAlias = BaseDistribution | Named
"""The values of a parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A question that a sweep answers. `cm_ray.sweeps.space_checks.check_space` validates it."""

    question: str
    """Title of the report."""
    base: Recipe
    """Settings of all trials, beside the parameters."""
    space: Mapping[str, Values]
    """Values by parameter. A parameter that chooses a class stands before the fields of that class."""
    first: Params = field(default_factory=dict)
    """Parameters of trial 0 that differ from the base's settings."""
    minimize: tuple[Objective, ...] = ("score",)
    """score: of the first of evaluation.samplers; cost: of training, in floating-point operations."""
    sampler: Sampler = "tpe"
    """Default of --sampler; grid: all combinations."""
    trials: int = 50
    """Default of --trials; a grid has as many as there are combinations."""
    seeds: int = 1
    """Default of --seeds, the number of trainings per trial."""
    grace: int = 0
    """Default of --grace, the steps before which no trial is stopped; 0: until its first score."""
    lines: tuple[str, ...] = ()
    """Parameters whose values name the lines in the plot of scores over training steps; empty: no plot."""

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Return the parameters of an Optuna trial, which suggests one after the other."""
        params: dict[str, Any] = {}
        for name in self.space:
            if (distribution := self.distribution(name, params)) is not None:
                params[name] = _suggested(trial, name, distribution)
        return params

    def distribution(self, name: str, params: Params) -> BaseDistribution | None:
        """Return a parameter's distribution; None where settings with the other `params` lack its path."""
        values = self.space[name]
        bundles = isinstance(values, Named) and values.bundles
        if not bundles and name not in flatten(self.settings(params)):
            return None
        return Categorical(list(values.values)) if isinstance(values, Named) else values

    def changes(self, params: Params) -> dict[str, Any]:
        """Return the settings by dotted path that parameters stand for."""
        changes: dict[str, Any] = {}
        for name, value in params.items():
            values = self.space[name]
            changes |= values.changes(name, value) if isinstance(values, Named) else {name: value}
        return changes

    def settings(self, params: Params) -> Recipe:
        """Return the settings with some of the parameters of a trial, which no rule is held against yet."""
        return sketch(self.base, self.changes(params))

    def config(self, params: Params) -> Recipe:
        """Return the settings of a trial. Raises UserError when they are invalid."""
        return override(self.base, self.changes(params))

    def start(self) -> dict[str, Any]:
        """Return the parameters of trial 0: those of `first`, and the base's settings for the others.

        Raises UserError when the base has none of a parameter's `Named` values.
        """
        params: dict[str, Any] = {}
        for name in self.space:
            if self.distribution(name, params) is not None:
                params[name] = self.first[name] if name in self.first else self._present(name, params)
        return params

    def _present(self, name: str, params: Params) -> Any:
        """Return the value of a parameter in the settings with the other `params`."""
        values, settings = self.space[name], self.settings(params)
        if not isinstance(values, Named):
            return flatten(settings)[name]
        for value in values.values:
            if sketch(settings, values.changes(name, value)) == settings:
                return value
        raise UserError(f"Trial 0 has no {name!r}: give `first` one of its names.")

    def points(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield all combinations of the values of some parameters.

        Raises UserError when one of them is continuous.
        """
        yield from _points(self, {}, names)

    def grid(self) -> list[dict[str, Any]]:
        """Return all combinations, trial 0 first. Raises UserError when a parameter is continuous."""
        points, start = self.points(list(self.space)), self.start()
        return [start, *(point for point in points if point != start)]


def _points(space: Space, params: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    if not names:
        yield params
        return
    distribution = space.distribution(names[0], params)
    if distribution is None:
        yield from _points(space, params, names[1:])
        return
    for value in _countable(names[0], distribution):
        yield from _points(space, params | {names[0]: value}, names[1:])


def _countable(name: str, distribution: BaseDistribution) -> list[Any]:
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


def _suggested(trial: Any, name: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, Categorical):
        return trial.suggest_categorical(name, distribution.choices)
    assert isinstance(distribution, Int | Float)
    suggest = trial.suggest_int if isinstance(distribution, Int) else trial.suggest_float
    low, high = distribution.low, distribution.high
    return suggest(name, low, high, step=distribution.step, log=distribution.log)

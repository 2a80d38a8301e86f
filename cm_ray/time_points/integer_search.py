"""The smallest value of a function of integers, by few evaluations: methods, and the loop that drives them.

A method is an iterator of steps. A step names the candidates whose order decides how the bracket shrinks; the
driver evaluates those that are not known yet, all at once, puts their values into the mapping that the method
was given, and goes on. A method finds the minimum of every function that falls strictly before it and rises
strictly after it (equal values at the minimum itself do no harm).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

from cm_ray.errors import UserError, closest

Values: TypeAlias = Mapping[int, float]
"""Candidate to value, in the order of evaluation; a view that grows while a method runs."""

Evaluate: TypeAlias = Callable[[Sequence[int]], Sequence[float]]
"""Values of a batch of candidates, in its order; finite, or infinite for what must not win."""


class Step(NamedTuple):
    """What a method wants to know next."""

    bracket: tuple[int, int]
    """Lowest and highest candidate that may be the minimum, both included."""
    decides: tuple[int, ...]
    """Candidates whose order decides the next bracket."""
    ahead: tuple[int, ...] = ()
    """Candidates that later steps may want, for actors that would be idle."""


Method: TypeAlias = Callable[[int, int, Values], Iterator[Step]]
"""method(left, right, known): steps on the candidates left .. right."""


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search."""

    best: int
    """The first of the candidates with the smallest value."""
    value: float
    """Its value."""
    values: Values
    """Everything known, in the order in which it was evaluated."""
    rounds: tuple[tuple[int, ...], ...]
    """Batches that were evaluated, one after the other; no candidate is in two of them."""
    path: tuple[tuple[int, int], ...]
    """Brackets, from the widest to the last."""

    @property
    def evaluations(self) -> int:
        """How many candidates this search evaluated."""
        return sum(map(len, self.rounds))


def minimise(method: Method, left: int, right: int, evaluate: Evaluate, known: Values | None = None) -> Found:
    """Search left .. right; the answer is the argmin of all that is known, ties to the earlier.

    known: values that need no evaluation; only those from left to right count.  Raises ValueError when there
    is no candidate, or when `evaluate` returns another number of values or a NaN.
    """
    check_range(left, right)
    values = {i: value for i, value in (known or {}).items() if left <= i <= right}
    rounds, path = [], []
    for step in method(left, right, values):
        path.append(step.bracket)
        if missing := [i for i in step.decides if i not in values]:
            batch = (*missing, *(i for i in step.ahead if i not in values))
            values.update(zip(batch, _checked(batch, evaluate(batch)), strict=True))
            rounds.append(batch)
    best = min(values, key=values.__getitem__)
    return Found(best, values[best], values, tuple(rounds), tuple(path))


def check_range(left: int, right: int) -> None:
    """Raise ValueError when there is no candidate from left to right."""
    if right < left:
        raise ValueError(f"there is no candidate from {left} to {right}")


def _checked(batch: Sequence[int], values: Sequence[float]) -> Sequence[float]:
    if len(values) != len(batch) or any(math.isnan(value) for value in values):
        raise ValueError(f"the candidates {list(batch)} must have a number each, not {list(values)}")
    return values


def ternary(left: int, right: int, known: Values, *, actors: int = 2) -> Iterator[Step]:
    """Probe both thirds and drop the worse outer one.  Song et al. 2023, section 6; OpenAI's ternary_search.

    actors: how many candidates can be evaluated at once; beyond 2, the probes of the brackets that may come
    next are evaluated ahead, nearest rounds first: the path stays the same, in fewer rounds.
    """
    while True:
        probes = _probes(left, right)
        yield Step((left, right), probes, _ahead(left, right, known, actors))
        if right - left < 3:
            return
        left, right = _narrowed(left, right, low_wins=known[probes[0]] < known[probes[1]])


def _probes(left: int, right: int) -> tuple[int, ...]:
    """Return both thirds of a bracket, or all of a bracket that has none."""
    if right - left < 3:
        return tuple(range(left, right + 1))
    return left + (right - left) // 3, right - -(-(right - left) // 3)


def _narrowed(left: int, right: int, *, low_wins: bool) -> tuple[int, int]:
    low, high = _probes(left, right)
    return (left, high) if low_wins else (low, right)


def _ahead(left: int, right: int, known: Values, actors: int) -> tuple[int, ...]:
    """Return the probes of possible later brackets, as many as there are actors beside the bracket's own."""
    if actors < 3:
        return ()
    own = {i for i in _probes(left, right) if i not in known}
    wanted, brackets = dict.fromkeys(own), [(left, right)]
    for bracket in brackets:  # grows while it is read: breadth first
        probes = _probes(*bracket)
        more = [i for i in probes if i not in known and i not in wanted]
        if len(wanted) + len(more) > max(actors, len(own)):
            break
        wanted.update(dict.fromkeys(more))
        if bracket[1] - bracket[0] >= 3:
            decided = all(i in known for i in probes)
            outcomes = [known[probes[0]] < known[probes[1]]] if decided else [True, False]
            brackets += [_narrowed(*bracket, low_wins=outcome) for outcome in outcomes]
    return tuple(i for i in wanted if i not in own)


def fibonacci(left: int, right: int, known: Values) -> Iterator[Step]:
    """Probe at distances of Fibonacci numbers, so that every later step needs one new candidate.

    The fewest evaluations in the worst case, one after the other: F_n - 1 candidates need n - 2.
    Kiefer 1953, Sequential minimax search for a maximum.
    """
    low, small, large = left - 1, 1, 2  # the minimum is strictly between low and low + large = low + F_n
    while large < right + 2 - left:
        small, large = large, small + large
    while large > 2:
        first, second = low + large - small, low + small
        if inside := tuple(i for i in (first, second) if i <= right):
            yield Step((low + 1, min(low + large - 1, right)), inside)
        if second <= right and known[first] >= known[second]:
            low = first
        small, large = large - small, small
    yield Step((low + 1, low + 1), (low + 1,))


def sections(left: int, right: int, known: Values, *, probes: int) -> Iterator[Step]:
    """Cut the bracket by `probes` new candidates a round, 2 or more, and keep what lies around the best."""
    low, high = left - 1, right + 1  # the minimum is strictly between
    while unknown := [i for i in range(low + 1, high) if i not in known]:
        inside = {*range(low + 1, high)} - {*unknown}
        decides = tuple(sorted(inside.union(spread(unknown, probes))))
        yield Step((low + 1, high - 1), decides)
        edges = (low, *decides, high)
        at = min(range(len(decides)), key=lambda place: known[decides[place]])
        low, high = edges[at], edges[at + 2]


def exhaustive(left: int, right: int, known: Values) -> Iterator[Step]:
    """Evaluate every candidate, in one round."""
    yield Step((left, right), tuple(range(left, right + 1)))


def spread(candidates: Sequence[int], count: int) -> list[int]:
    """Return `count` of the candidates, or all, which cut them into runs of about equal length."""
    if count >= len(candidates):
        return list(candidates)
    run = (len(candidates) - count) / (count + 1)
    return [candidates[round(run * (i + 1)) + i] for i in range(count)]


METHODS = ("ternary", "fibonacci", "sections", "exhaustive")


def method_named(name: str, *, actors: int = 2) -> Method:
    """Return a method for so many evaluations at once. Raises UserError when there is none of the name.

    A lone actor evaluates the two probes of `sections` one after the other: one probe alone shows no side.
    """
    if name not in METHODS:
        raise UserError(f"There is no search method {name!r}: {closest(name, list(METHODS))}")
    if actors < 1:
        raise UserError(f"A search needs at least one actor, not {actors}.")
    methods: dict[str, Method] = {
        "ternary": partial(ternary, actors=actors),
        "fibonacci": fibonacci,
        "sections": partial(sections, probes=max(actors, 2)),
        "exhaustive": exhaustive,
    }
    return methods[name]

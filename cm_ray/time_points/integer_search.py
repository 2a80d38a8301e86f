"""Find the minimum of a function of integers with few evaluations: search methods, and their driver.

A method is an iterator of queries. A query names the candidates whose order decides how the bracket shrinks.
The driver evaluates all of them that have no value yet in one batch, puts the values into the mapping that
the method was given, and continues. A method finds the minimum of every function that strictly falls before
it and strictly rises after it; equal values next to the minimum are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

from cm_ray.errors import UserError, closest

Values: TypeAlias = Mapping[int, float]
"""Mapping from candidate to value, in the order of evaluation; it grows while a method runs."""

Evaluate: TypeAlias = Callable[[Sequence[int]], Sequence[float]]
"""Function that returns the values of a batch of candidates, in its order. Infinity means: must not win."""


class Query(NamedTuple):
    """The candidates that a method needs next."""

    bracket: tuple[int, int]
    """Lowest and highest candidate that may be the minimum, both included."""
    decides: tuple[int, ...]
    """Candidates whose order decides the next bracket."""
    ahead: tuple[int, ...] = ()
    """Candidates that later queries may need; idle actors can evaluate them already."""


Method: TypeAlias = Callable[[int, int, Values], Iterator[Query]]
"""method(left, right, known) returns an iterator of queries about the candidates left .. right."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search."""

    best: int
    """The first candidate with the smallest value."""
    value: float
    """Value of the best candidate."""
    values: Values
    """All known values, in the order of evaluation."""
    rounds: tuple[tuple[int, ...], ...]
    """Batches that were evaluated one after another; no candidate is in two of them."""
    path: tuple[tuple[int, int], ...]
    """Brackets, from the widest to the last."""

    @property
    def num_evaluated(self) -> int:
        """Number of candidates that this search evaluated."""
        return sum(map(len, self.rounds))


def minimise(
    method: Method, left: int, right: int, evaluate: Evaluate, known: Values | None = None
) -> SearchResult:
    """Search left .. right for the candidate with the smallest known value; the earlier one wins a tie.

    known: values that need no evaluation; those outside of left .. right are ignored.  Raises ValueError when
    there is no candidate, or when `evaluate` returns a wrong number of values or a NaN.
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
    return SearchResult(best, values[best], values, tuple(rounds), tuple(path))


def check_range(left: int, right: int) -> None:
    """Raise ValueError when there is no candidate from left to right."""
    if right < left:
        raise ValueError(f"there is no candidate from {left} to {right}")


def _checked(batch: Sequence[int], values: Sequence[float]) -> Sequence[float]:
    if len(values) != len(batch) or any(math.isnan(value) for value in values):
        raise ValueError(f"the candidates {list(batch)} must have a number each, not {list(values)}")
    return values


def ternary(left: int, right: int, known: Values, *, actors: int = 2) -> Iterator[Query]:
    """Evaluate the candidates at both thirds and drop the worse outer third.

    Song et al. 2023, section 6; OpenAI's ternary_search. actors: number of candidates that can be evaluated
    at once. With more than 2, the probes of the next possible brackets are evaluated ahead, nearest rounds
    first: the path stays the same and takes fewer rounds.
    """
    while True:
        probes = _probes(left, right)
        yield Query((left, right), probes, _ahead(left, right, known, actors))
        if right - left < 3:
            return
        left, right = _narrowed(left, right, low_wins=known[probes[0]] < known[probes[1]])


def _probes(left: int, right: int) -> tuple[int, ...]:
    """Return both thirds of a bracket, or all candidates of a bracket with fewer than four."""
    if right - left < 3:
        return tuple(range(left, right + 1))
    return left + (right - left) // 3, right - -(-(right - left) // 3)


def _narrowed(left: int, right: int, *, low_wins: bool) -> tuple[int, int]:
    low, high = _probes(left, right)
    return (left, high) if low_wins else (low, right)


def _ahead(left: int, right: int, known: Values, actors: int) -> tuple[int, ...]:
    """Return probes of possible later brackets, for actors that the probes of this bracket leave idle."""
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


def fibonacci(left: int, right: int, known: Values) -> Iterator[Query]:
    """Place probes at distances of Fibonacci numbers, so that every later query needs one new candidate.

    This needs the fewest evaluations in the worst case when they run one after another: F_n - 1 candidates
    need n - 2. Kiefer 1953, Sequential minimax search for a maximum.
    """
    low, small, large = left - 1, 1, 2  # the minimum is strictly between low and low + large = low + F_n
    while large < right + 2 - left:
        small, large = large, small + large
    while large > 2:
        first, second = low + large - small, low + small
        if inside := tuple(i for i in (first, second) if i <= right):
            yield Query((low + 1, min(low + large - 1, right)), inside)
        if second <= right and known[first] >= known[second]:
            low = first
        small, large = large - small, small
    yield Query((low + 1, low + 1), (low + 1,))


def sections(left: int, right: int, known: Values, *, probes: int) -> Iterator[Query]:
    """Divide the bracket by `probes` new candidates per round, 2 or more; keep the sections at the best."""
    low, high = left - 1, right + 1  # the minimum is strictly between
    while unknown := [i for i in range(low + 1, high) if i not in known]:
        inside = {*range(low + 1, high)} - {*unknown}
        decides = tuple(sorted(inside.union(spread(unknown, probes))))
        yield Query((low + 1, high - 1), decides)
        edges = (low, *decides, high)
        at = min(range(len(decides)), key=lambda place: known[decides[place]])
        low, high = edges[at], edges[at + 2]


def exhaustive(left: int, right: int, known: Values) -> Iterator[Query]:
    """Evaluate every candidate in one round."""
    yield Query((left, right), tuple(range(left, right + 1)))


def spread(candidates: Sequence[int], count: int) -> list[int]:
    """Return `count` of the candidates, or all, which divide them into runs of about equal length."""
    if count >= len(candidates):
        return list(candidates)
    run = (len(candidates) - count) / (count + 1)
    return [candidates[round(run * (i + 1)) + i] for i in range(count)]


METHODS = ("ternary", "fibonacci", "sections", "exhaustive")
"""Names that `method_named` accepts."""


def method_named(name: str, *, actors: int = 2) -> Method:
    """Return a search method for a number of actors. Raises UserError when the name or the number is wrong.

    A single actor evaluates the two probes of `sections` one after another: one probe cannot show a
    direction.
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

"""Integer searches find every minimum of what falls and rises, and say the best of whatever they saw."""

import itertools
import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.errors import UserError
from cm_ray.time_points.integer_search import (
    METHODS,
    exhaustive,
    fibonacci,
    method_named,
    minimise,
    sections,
    spread,
    ternary,
)

GOLDEN = {5: 3.649, 9: 3.319, 10: 3.051, 11: 2.928, 12: 3.049, 13: 3.277, 14: 3.460}
"""FID-50k of CIFAR-10's CD model by OpenAI's index on a grid of 18."""

ALL = {
    "ternary": ternary,
    "ternary, ahead": partial(ternary, actors=7),
    "ternary, far ahead": partial(ternary, actors=40),
    "fibonacci": fibonacci,
    "sections, 2": partial(sections, probes=2),
    "sections, 5": partial(sections, probes=5),
    "exhaustive": exhaustive,
}
every_method = pytest.mark.parametrize("method", ALL.values(), ids=ALL)


class Counted:
    """A function of integers that fails when a value is asked for twice."""

    def __init__(self, function):
        self.function, self.batches = function, []

    def __call__(self, batch):
        asked = [i for batch in [*self.batches, batch] for i in batch]
        assert len(asked) == len(set(asked))
        self.batches.append(tuple(batch))
        return [self.function(i) for i in batch]


@st.composite
def unimodal(draw):
    """An interval of any width, and values that fall strictly to a minimum, which may be two wide."""
    falls, rises = (draw(st.lists(st.floats(0.01, 10), max_size=40)) for _ in range(2))
    bottom = [0.0] * draw(st.integers(1, 2))
    up = list(itertools.accumulate(rises))
    values = [*reversed(list(itertools.accumulate(falls))), *bottom, *up]
    left = draw(st.integers(-20, 20))
    return left, dict(enumerate(values, left))


def test_the_published_search_goes_the_published_way():
    """OpenAI's (0,) and (17,) are neighbours, not candidates: as such they lose to everything."""
    ends = {0: math.inf, 17: math.inf}
    found = minimise(ternary, 0, 17, Counted(GOLDEN.__getitem__), known=ends)
    assert found.path == ((0, 17), (5, 17), (9, 17), (9, 14), (10, 14), (10, 12))
    assert found.best == 11
    assert found.value == 2.928
    assert found.rounds == ((5, 11), (9, 13), (14,), (10, 12))
    assert found.num_evaluated == 7


def test_the_published_search_from_the_second_bracket():
    found = minimise(ternary, 5, 17, Counted(GOLDEN.__getitem__))
    assert found.path == ((5, 17), (9, 17), (9, 14), (10, 14), (10, 12))
    assert found.best == 11


@every_method
@given(unimodal())
@settings(max_examples=150, deadline=None)
def test_the_minimum_is_found_on_any_interval(method, function):
    left, values = function
    found = minimise(method, left, max(values), Counted(values.__getitem__))
    assert found.value == min(values.values()) == values[found.best]


@every_method
@pytest.mark.parametrize("width", [0, 1, 2, 3, 4, 5, 11, 16])
def test_every_place_of_the_minimum_is_found(method, width):
    for best in range(3, 4 + width):
        found = minimise(method, 3, 3 + width, Counted(lambda i, best=best: abs(i - best)))
        assert found.best == best
        assert found.num_evaluated <= width + 1


@every_method
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60))
@settings(max_examples=150, deadline=None)
def test_the_answer_to_any_function_is_the_best_of_what_was_evaluated(method, values):
    function = Counted(values.__getitem__)
    found = minimise(method, 0, len(values) - 1, function)
    asked = [i for batch in function.batches for i in batch]
    assert list(found.values) == asked
    assert all(found.values[i] == values[i] for i in asked)
    assert found.best == min(asked, key=values.__getitem__), "the earlier of equals"
    assert found.rounds == tuple(function.batches)
    assert all(a <= c and d <= b for (a, b), (c, d) in itertools.pairwise(found.path))


@every_method
@given(unimodal(), st.data())
@settings(max_examples=60, deadline=None)
def test_known_values_are_not_evaluated_again(method, function, data):
    left, values = function
    known = data.draw(st.lists(st.sampled_from(sorted(values)), unique=True))
    elsewhere = {left - 1: -1.0, max(values) + 1: -1.0}
    counted = Counted(values.__getitem__)
    found = minimise(method, left, max(values), counted, {i: values[i] for i in known} | elsewhere)
    assert not {i for batch in counted.batches for i in batch} & {*known}
    assert found.value == min(values.values())


@pytest.mark.parametrize("width", range(201))
def test_fibonacci_needs_at_most_its_number_and_no_more_than_ternary(width):
    """The count is of the worst case; F_n - 1 candidates need n - 2 evaluations."""
    fibonacci_numbers = [1, 1]
    while fibonacci_numbers[-1] - 1 < width + 1:
        fibonacci_numbers.append(sum(fibonacci_numbers[-2:]))
    worst = {
        method: max(
            minimise(method, 0, width, lambda batch, best=best: [abs(i - best) for i in batch]).num_evaluated
            for best in range(width + 1)
        )
        for method in (fibonacci, ternary)
    }
    assert worst[fibonacci] == len(fibonacci_numbers) - 2
    assert worst[fibonacci] <= worst[ternary]


def test_fibonacci_evaluates_one_candidate_a_round_after_the_first():
    found = minimise(fibonacci, 1, 199, lambda batch: [abs(i - 94) for i in batch])
    assert [len(batch) for batch in found.rounds] == [2, *[1] * (len(found.rounds) - 1)]


@pytest.mark.parametrize("probes", [2, 3, 5, 8, 16])
@given(unimodal())
@settings(max_examples=60, deadline=None)
def test_sections_end_in_the_expected_rounds(probes, function):
    """Of u unknown candidates, k cut the rest into k + 1 runs, of which those beside the best remain."""
    left, values = function
    unknown, rounds = len(values), 0
    while unknown > 0:
        unknown, rounds = 2 * math.ceil(max(unknown - probes, 0) / (probes + 1)), rounds + 1
    found = minimise(partial(sections, probes=probes), left, max(values), Counted(values.__getitem__))
    assert len(found.rounds) <= rounds
    assert all(len(batch) <= probes for batch in found.rounds)


@pytest.mark.parametrize(("probes", "rounds"), [(4, 5), (8, 3), (14, 3), (26, 2), (199, 1)])
def test_sections_of_the_largest_published_grid(probes, rounds):
    for best in (1, 94, 100, 199):
        found = minimise(
            partial(sections, probes=probes), 1, 199, lambda batch, best=best: [abs(i - best) for i in batch]
        )
        assert len(found.rounds) <= rounds


@given(unimodal(), st.integers(3, 40))
@settings(max_examples=150, deadline=None)
def test_evaluating_ahead_goes_the_same_way_in_fewer_rounds(function, actors):
    left, values = function
    plain = minimise(ternary, left, max(values), Counted(values.__getitem__))
    ahead = minimise(partial(ternary, actors=actors), left, max(values), Counted(values.__getitem__))
    assert ahead.path == plain.path
    assert ahead.value == plain.value
    assert len(ahead.rounds) <= len(plain.rounds)
    assert all(len(batch) <= actors for batch in ahead.rounds)
    assert {*plain.values} <= {*ahead.values}


@pytest.mark.parametrize(("actors", "rounds"), [(2, 12), (6, 6), (14, 4), (30, 3)])
def test_rounds_on_the_largest_published_grid(actors, rounds):
    found = minimise(partial(ternary, actors=actors), 1, 199, Counted(lambda i: abs(i - 94)))
    assert found.best == 94
    assert len(found.rounds) <= rounds


def test_exhaustive_search_is_one_round():
    assert minimise(exhaustive, 2, 9, Counted(lambda i: -i)).rounds == (tuple(range(2, 10)),)


@given(st.integers(0, 60), st.integers(1, 70))
def test_spread_candidates_cut_the_others_into_even_runs(size, count):
    chosen = spread(range(size), count)
    assert len(chosen) == min(size, count)
    runs = [high - low - 1 for low, high in itertools.pairwise([-1, *chosen, size])]
    assert max(runs) - min(runs) <= 1


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("actors", [1, 3])
def test_methods_by_name(name, actors):
    assert minimise(method_named(name, actors=actors), 0, 30, Counted(lambda i: abs(i - 7))).best == 7


def test_what_is_no_method_is_refused_in_a_sentence():
    with pytest.raises(UserError, match=r"no search method 'ternery': did you mean 'ternary'\?"):
        method_named("ternery")
    with pytest.raises(UserError, match="at least one actor, not 0"):
        method_named("sections", actors=0)


def test_no_candidates_and_no_numbers_are_refused():
    with pytest.raises(ValueError, match="no candidate from 3 to 2"):
        minimise(ternary, 3, 2, list)
    with pytest.raises(ValueError, match="must have a number each"):
        minimise(ternary, 0, 9, lambda batch: [1.0])
    with pytest.raises(ValueError, match="must have a number each"):
        minimise(ternary, 0, 9, lambda batch: [math.nan for _ in batch])

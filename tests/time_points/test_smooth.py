"""The search by a smooth curve: within its tolerance without noise, and within its share of the samples."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.time_points.sample_budget import SampleBudget, SearchHistory, fixed_size_cost
from cm_ray.time_points.smooth import PROBES, SHARE, TOLERANCE, smooth
from tests.time_points.told import Told

SMALL = SampleBudget(first=10, full=160)


def valley(size, best, width=0.2):
    return lambda i: 1 - math.exp(-(((i - best) / (width * size)) ** 2) / 2)


@pytest.mark.parametrize("width", [*range(1, 21), 38, 149, 199])
def test_without_noise_every_place_of_a_valley_is_found_to_the_tolerance(width):
    for best in range(3, 3 + width, max(1, width // 20)):
        value = valley(width, best)
        scores = Told(value, bias=lambda count: 100 / count)
        found = smooth(3, 2 + width, scores, SMALL)
        assert value(found.best) <= 2 * TOLERANCE
        assert found.best in found.counts
        assert found.spent == scores.spent


@pytest.mark.parametrize("width", range(1, PROBES + 1))
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_evaluated_in_full_is_exact_without_noise(width, data):
    values = data.draw(st.lists(st.integers(0, 9), min_size=width, max_size=width, unique=True))
    assert values[smooth(0, width - 1, Told(values.__getitem__), SMALL).best] == min(values)


@given(st.integers(0, 2**32), st.integers(1, 60), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_any_function_has_an_answer_and_right_accounts_twice_the_same(seed, width, error):
    scores = [Told(lambda i: hash((seed, i)) % 101 / 10, error=error) for _ in range(2)]
    found, again = (smooth(1, width, of, SMALL) for of in scores)
    assert (found, scores[0].requests) == (again, scores[1].requests)
    assert found.best in found.counts
    assert found.spent == scores[0].spent
    searched = [r for r in scores[0].requests if r.first < SMALL.full]
    for i, count in found.counts.items():
        assert count == sum(r.count for r in searched if r.candidate == i) <= SMALL.full
    fresh = {r.candidate for r in scores[0].requests} - {*found.counts}
    assert not fresh


@given(st.integers(0, 2**32), st.integers(8, 199), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_search_itself_stays_within_its_share(seed, width, error):
    """But for the last candidate, its confirmation, and what the fixed size costs with another answer."""
    scores = Told(lambda i: hash((seed, i)) % 101 / 10, error=error)
    smooth(1, width, scores, SMALL)
    most = max(fixed_size_cost(1, width, best, SMALL) for best in range(1, width + 1))
    assert scores.spent <= SHARE * most + 2 * SMALL.full


def test_a_bias_that_depends_on_the_count_alone_changes_nothing():
    plain, biased = (
        Told(valley(38, 17), error=0.05, bias=bias)
        for bias in (lambda count: 0.0, lambda count: 4096 / count)
    )
    assert smooth(1, 38, plain, SMALL).counts == smooth(1, 38, biased, SMALL).counts
    assert plain.requests == biased.requests


@pytest.mark.parametrize("failing", [range(1, 13), range(25, 39), [15, 16, 18], [7], [20], range(1, 39)])
def test_what_fails_neither_wins_nor_breaks_the_search(failing):
    scores = Told(lambda i: math.inf if i in failing else valley(38, 17)(i), error=0.01)
    found = smooth(1, 38, scores, SMALL)
    assert found.best not in failing or {*found.counts} <= {*failing}
    for candidate in failing:
        assert len([r for r in scores.requests if r.candidate == candidate]) <= 2, (
            "nothing more is spent on it"
        )


def test_a_lone_survivor_wins_when_it_was_seen():
    scores = Told(lambda i: 1.0 if i == 19 else math.inf)
    found = smooth(1, 38, scores, SMALL)
    assert found.best == 19 or 19 not in found.counts


def test_no_number_and_no_candidate_are_refused():
    with pytest.raises(ValueError, match="must be numbers"):
        smooth(1, 9, Told(lambda i: math.nan), SMALL)
    with pytest.raises(ValueError, match="no candidate from 3 to 2"):
        smooth(3, 2, Told(float), SMALL)


def test_what_is_remembered_counts_and_is_not_sampled_again():
    history, scores = SearchHistory(), Told(valley(38, 17), error=0.02)
    first = smooth(1, 38, scores, SMALL, history=history)
    again = smooth(1, 38, scores, SMALL, history=history, incumbent=first.best)
    assert first.spent + again.spent == scores.spent
    assert again.spent < first.spent


def test_two_valleys_do_not_break_it():
    def two(i):
        return min(valley(38, 8, 0.1)(i), 0.1 + valley(38, 30, 0.1)(i))

    found = smooth(1, 38, Told(two, error=0.01), SMALL)
    assert two(found.best) < 0.2
    assert found.confirmation.score == pytest.approx(two(found.best))

"""The ledger samples what is missing, once, and compares like with like."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_ray.errors import UserError
from cm_ray.time_points.integer_search import minimise, ternary
from cm_ray.time_points.sample_budget import Difference, Ledger, SampleBudget, SampleRange, fixed_size_cost
from tests.time_points.told import Told

SMALL = SampleBudget(first=10, full=80)


@given(st.integers(1, 700), st.integers(0, 20_000))
def test_levels_double_from_the_first_to_the_budget(first, more):
    counts = SampleBudget(first=first, full=first + more).counts
    assert (counts[0], counts[-1]) == (first, first + more)
    assert all(high == 2 * low for low, high in itertools.pairwise(counts[:-1]))
    assert all(low < high <= 2 * low for low, high in itertools.pairwise(counts))


def test_the_default_is_openais_size_from_a_sixteenth_on():
    assert SampleBudget().counts == (625, 1250, 2500, 5000, 10_000)


@pytest.mark.parametrize(("first", "budget"), [(0, 10), (11, 10), (-1, -1)])
def test_bad_numbers_are_refused_in_a_sentence(first, budget):
    with pytest.raises(UserError, match=f"must be 1 to its budget of {budget}, not {first}; give"):
        SampleBudget(first=first, full=budget)


def test_what_is_missing_is_sampled_in_one_round():
    scores = Told(float)
    ledger = Ledger(scores, SMALL, start=100)
    ledger.bring({3: 0, 5: 1})
    assert scores.requests == [SampleRange(3, 100, 10), SampleRange(5, 100, 10), SampleRange(5, 110, 10)]
    assert ledger.cost({3: 2, 5: 1, 7: 0}) == 30 + 10
    ledger.bring({3: 2, 5: 1})
    assert scores.requests[3:] == [SampleRange(3, 110, 10), SampleRange(3, 120, 20)]
    ledger.bring({3: 1, 5: 0})
    assert (ledger.spent, ledger.rounds) == (60, 2)
    assert ledger.candidates == (3, 5)
    assert [ledger.level(i) for i in (3, 5, 7)] == [2, 1, -1]


def test_candidates_are_compared_over_the_samples_that_both_have():
    ledger = Ledger(Told(float, bias=lambda count: 1000 / count, error=0.5), SMALL)
    ledger.bring({2: 3, 6: 1})
    mean, error = ledger.difference(6, 2)
    assert mean == pytest.approx(4)
    replicates = ledger.score(6, 1) - ledger.score(2, 1)
    assert error == pytest.approx(replicates[1:].std(ddof=1))
    assert ledger.foremost([6, 2]) == 2
    assert ledger.leader([6, 2]) == 2
    assert ledger.leader([6]) == 6


def test_ties_go_to_the_earlier():
    ledger = Ledger(Told(lambda i: 1.0), SMALL)
    ledger.bring({4: 0, 1: 0, 9: 2})
    assert ledger.leader([4, 1, 9]) == 4


def test_what_failed_is_infinitely_worse_and_never_leads():
    ledger = Ledger(Told({1: math.inf, 2: 5.0, 3: math.inf, 4: 3.0}.__getitem__), SMALL)
    ledger.bring({1: 3, 2: 0, 3: 0, 4: 0})
    assert ledger.failed(1)
    assert not ledger.failed(2)
    assert ledger.difference(1, 2) == Difference(math.inf, 0.0)
    assert ledger.difference(2, 1) == Difference(-math.inf, 0.0)
    assert ledger.difference(1, 3) == Difference(0.0, 0.0)
    assert ledger.leader([1, 2, 3, 4]) == 4
    assert ledger.leader([3, 1]) == 3


def test_a_score_with_a_replicate_that_failed_has_failed():
    class Half(Told):
        def score(self, part):
            return np.array([1.0, math.inf, 1.0])

    ledger = Ledger(Half(float), SMALL)
    ledger.bring({1: 0})
    assert ledger.failed(1)


@pytest.mark.parametrize(
    "score", [[math.nan] * 4, [1.0, math.nan, 1.0], [-math.inf, 0, 0], [1.0, 2.0], [[1.0, 2.0, 3.0]]]
)
def test_what_is_no_score_is_refused(score):
    class Bad(Told):
        def score(self, part):
            return np.array(score)

    with pytest.raises(ValueError, match="a score and two or more replicates must be numbers"):
        Ledger(Bad(float), SMALL).bring({1: 0})


def test_another_number_of_parts_is_refused():
    class Short(Told):
        def sample(self, requests):
            return super().sample(requests)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        Ledger(Short(float), SMALL).bring({1: 0, 2: 0})


@given(st.integers(1, 200), st.data())
def test_the_fixed_size_costs_the_budget_for_every_evaluation(right, data):
    best, incumbent = (data.draw(st.integers(1, right)) for _ in range(2))
    found = minimise(ternary, 1, right, lambda batch: [abs(i - best) for i in batch])
    assert fixed_size_cost(1, right, best, SMALL) == 80 * found.num_evaluated
    known = fixed_size_cost(1, right, best, SMALL, incumbent)
    assert known == 80 * (found.num_evaluated - (incumbent in found.values))

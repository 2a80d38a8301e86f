"""Races by every method, and searches of fixed size: right without noise, and honest about what they cost."""

import math
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.time_points.integer_search import METHODS, method_named, minimise, ternary
from cm_ray.time_points.racing import Unconfirmed, confirmed, fixed_size, raced
from cm_ray.time_points.sample_budget import Difference, Ledger, SampleBudget, SearchHistory, fixed_size_cost
from tests.time_points.told import Told

SMALL = SampleBudget(first=10, full=80)

SEARCHES = {
    **{f"{name}, raced": partial(raced, method_named(name, actors=3), zone=0.0) for name in METHODS},
    **{f"{name}, fixed": partial(fixed_size, method_named(name, actors=3)) for name in METHODS},
}
every_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)


@every_search
@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 9, 16, 38])
def test_without_noise_every_place_of_the_minimum_is_found(search, width):
    for best in range(3, 3 + width):
        scores = Told(lambda i, best=best: abs(i - best), bias=lambda count: 100 / count)
        found = search(3, 2 + width, scores, SMALL)
        assert found.best == best
        assert found.spent == scores.spent
        assert found.fixed == fixed_size_cost(3, 2 + width, best, SMALL)


@every_search
@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_answer_to_any_function_is_the_best_of_what_was_evaluated(search, values):
    scores = Told(values.__getitem__)
    found = search(0, len(values) - 1, scores, SMALL)
    assert values[found.best] == min(values[i] for i in found.counts)
    assert {r.candidate for r in scores.requests} == {*found.counts}


@every_search
@given(st.integers(0, 2**32), st.integers(1, 30), st.floats(0, 5))
@settings(max_examples=60, deadline=None)
def test_the_accounts_are_right_and_noise_or_not_the_same_search_gives_the_same(search, seed, width, error):
    scores = [Told(lambda i: hash((seed, i)) % 101 / 10, error=error) for _ in range(2)]
    found, again = (search(1, width, of, SMALL) for of in scores)
    assert (found, scores[0].requests) == (again, scores[1].requests)
    assert found.spent == scores[0].spent
    asked = [r for r in scores[0].requests if r.first < SMALL.full]
    assert {*found.counts} == {r.candidate for r in asked}
    for i, count in found.counts.items():
        assert count == sum(r.count for r in asked if r.candidate == i) <= SMALL.full


@every_search
def test_a_bias_that_depends_on_the_count_alone_changes_nothing(search):
    plain, biased = (
        Told(lambda i: (i - 9) ** 2 / 50, error=0.3, bias=bias)
        for bias in (lambda count: 0.0, lambda count: 4096 / count)
    )
    assert search(1, 30, plain, SMALL).counts == search(1, 30, biased, SMALL).counts
    assert plain.requests == biased.requests


@every_search
@pytest.mark.parametrize("failing", [range(1, 8), range(12, 31), [9, 11], range(1, 31)])
def test_what_fails_neither_wins_nor_breaks_the_search(search, failing):
    scores = Told(lambda i: math.inf if i in failing else abs(i - 10), error=0.01)
    found = search(1, 30, scores, SMALL)
    assert found.best in found.counts
    assert found.best not in failing or {*found.counts} <= {*failing}


@every_search
def test_no_number_and_no_candidate_are_refused(search):
    with pytest.raises(ValueError, match="must be numbers"):
        search(1, 9, Told(lambda i: math.nan), SMALL)
    with pytest.raises(ValueError, match="no candidate from 3 to 2"):
        search(3, 2, Told(float), SMALL)


@pytest.mark.parametrize("name", METHODS)
def test_a_search_of_fixed_size_is_the_exact_one_at_the_budget(name):
    method, scores = method_named(name, actors=2), Told(lambda i: abs(i - 94), error=1.0)
    found = fixed_size(method, 1, 199, scores, SampleBudget())
    exact = minimise(method, 1, 199, lambda batch: [abs(i - 94) for i in batch])
    assert (found.best, found.rounds) == (exact.best, len(exact.rounds))
    assert [r.candidate for r in scores.requests] == list(exact.values)
    assert {(r.first, r.count) for r in scores.requests} == {(0, 10_000)}
    assert found.confirmation is None
    assert name != "ternary" or found.spent == found.fixed


def test_a_race_is_confirmed_on_fresh_samples_only():
    scores = Told(lambda i: abs(i - 9) / 10, error=0.05)
    found = raced(ternary, 1, 30, scores, SMALL, zone=0.0)
    fresh = [r for r in scores.requests if r.first >= SMALL.full]
    assert {r.candidate for r in fresh} == {9, found.confirmation.rival}
    assert found.confirmation.samples == sum(r.count for r in fresh if r.candidate == 9)
    assert found.confirmation.samples <= max(found.counts[9] // 2, SMALL.first)
    assert found.confirmation.score == pytest.approx(0.0)
    assert found.confirmation.behind.mean == pytest.approx(abs(found.confirmation.rival - 9) / 10)
    assert not found.confirmation.overturned


def lucky(deciding, fresh):
    """A ledger, and one of fresh samples, by which candidate 2 is behind candidate 1 by so much."""
    budget = SampleBudget(first=10, full=80)
    ledgers = [
        Ledger(Told({1: 0.0, 2: behind}.__getitem__, error=0.1), budget, start=start)
        for behind, start in ((deciding, 0), (fresh, 80))
    ]
    ledgers[0].bring({1: 2, 2: 2})
    return ledgers


@pytest.mark.parametrize(
    ("deciding", "fresh", "incumbent", "best"),
    [
        (0.01, 0.02, None, 1),
        (0.01, -5.0, None, 2),
        (5.0, -0.01, None, 1),
        (0.0, 0.0, None, 1),
        (0.0, 0.0, 2, 2),
        (0.0, 0.0, 1, 1),
        (0.01, 0.02, 2, 1),
        (0.01, math.inf, 2, 1),
        (0.01, -5.0, 2, 2),
    ],
)
def test_the_winner_is_the_better_one_on_all_samples_and_an_incumbent_stays_in_a_tie(
    deciding, fresh, incumbent, best
):
    ledger, fresh_ledger = lucky(deciding, fresh)
    answer = Unconfirmed(1, {2: ledger.difference(2, 1)}, 800, incumbent)
    found = confirmed(answer, ledger, fresh_ledger)
    assert found.best == best
    assert found.confirmation.rival == 3 - best
    assert found.confirmation.overturned == (best == 2)
    assert (found.spent, found.fixed) == (ledger.spent + fresh_ledger.spent, 800)


def test_a_winner_that_fails_on_fresh_samples_loses():
    ledger, _ = lucky(0.5, 0.5)
    fresh = Ledger(Told({1: math.inf, 2: 9.0}.__getitem__), SMALL, start=80)
    assert confirmed(Unconfirmed(1, {2: ledger.difference(2, 1)}, 800, None), ledger, fresh).best == 2


def test_the_rival_is_the_incumbent_or_who_may_be_better_by_most():
    behind = {4: Difference(0.5, 0.1), 6: Difference(0.6, 0.3), 8: Difference(math.inf, 0.0)}
    assert Unconfirmed(5, behind, 0, None).rival == 6
    assert Unconfirmed(5, behind, 0, 8).rival == 8
    assert Unconfirmed(5, behind, 0, 5).rival == 6
    assert Unconfirmed(5, {}, 0, None).rival is None


@every_search
def test_what_is_remembered_is_not_sampled_again(search):
    history = SearchHistory()
    scores = Told(lambda i: abs(i - 9), error=1.0)
    first = search(1, 30, scores, SMALL, history=history)
    assert {*history.search} == {*first.counts}
    again = search(1, 30, scores, SMALL, history=history, incumbent=first.best)
    assert again.best == first.best
    assert first.spent + again.spent == scores.spent
    assert again.fixed <= first.fixed
    assert again.spent < first.spent

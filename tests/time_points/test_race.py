"""A race doubles the samples while it is open, and only then."""

import math

import pytest

from cm_ray.time_points.race import could_win_by, race
from cm_ray.time_points.sample_budget import Difference, Ledger, SampleBudget
from tests.time_points.told import Told

SMALL = SampleBudget(first=10, full=80)


class Noisy(Told):
    """Replicates that spread by the root of the number of samples, each candidate's own."""

    def score(self, part):
        self.error = 10 / part.count**0.5
        return super().score(part)


def test_a_clear_race_ends_at_the_first_level():
    scores = Told(float, error=0.1)
    assert race(Ledger(scores, SMALL), [7, 3, 5]) == 3
    assert scores.spent == 30


def test_a_race_without_noise_costs_the_first_level():
    scores = Told(float)
    assert race(Ledger(scores, SMALL), [4, 4 + 1]) == 4
    assert scores.spent == 20


def test_samples_double_until_the_difference_is_clear():
    scores, at_level = Noisy(float), []
    ledger = Ledger(scores, SMALL)
    ledger.bring({0: 3, 4: 3})
    for level in range(4):
        gap = ledger.score(4, level) - ledger.score(0, level)
        at_level.append(2 * gap[1:].std(ddof=1) > gap[0])
    assert at_level[0]
    assert not at_level[-1]
    scores = Noisy(float)
    ledger = Ledger(scores, SMALL)
    assert race(ledger, [4, 0]) == 0
    assert ledger.level(0) == ledger.level(4) == at_level.index(False)
    assert ledger.rounds == at_level.index(False) + 1


def test_a_race_of_equals_ends_at_the_budget_or_the_top():
    scores = Told(lambda i: i * 1e-9, error=1.0)
    assert race(Ledger(scores, SMALL), [2, 1]) == 1
    assert scores.spent == 2 * 80
    scores = Told(lambda i: i * 1e-9, error=1.0)
    assert race(Ledger(scores, SMALL), [2, 1], top=1) == 1
    assert scores.spent == 2 * 20


def test_differences_that_do_not_matter_are_left_open():
    scores = Told(lambda i: i * 1e-9, error=1.0)
    assert race(Ledger(scores, SMALL), [2, 1], zone=100.0) == 1
    assert scores.spent == 20


def test_who_is_clearly_behind_leaves_the_race():
    scores = Told({1: 0.0, 2: 1e-9, 3: 50.0}.__getitem__, error=1.0)
    ledger = Ledger(scores, SMALL)
    assert race(ledger, [3, 2, 1]) == 1
    assert [ledger.level(i) for i in (1, 2, 3)] == [3, 3, 0]


@pytest.mark.parametrize("failing", [(1,), (1, 2), (2, 3)])
def test_what_failed_costs_the_first_level_and_does_not_win(failing):
    scores = Told(lambda i: math.inf if i in failing else i, error=1e-3)
    assert race(Ledger(scores, SMALL), [1, 2, 3]) == min({1, 2, 3} - {*failing})
    assert scores.spent == 30


def test_a_race_of_failures_ends():
    scores = Told(lambda i: math.inf)
    assert race(Ledger(scores, SMALL), [1, 2]) == 1
    assert scores.spent == 20


def test_by_how_much_one_may_win():
    assert could_win_by(Difference(mean=0.3, error=0.2)) == pytest.approx(0.1)
    assert could_win_by(Difference(mean=math.inf, error=0.0)) == -math.inf

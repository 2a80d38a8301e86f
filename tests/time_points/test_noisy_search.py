"""Several points by noisy scores: what the exact greedy search finds, asked for once, and replayable."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.errors import UserError
from cm_ray.time_points.greedy import Gap, exactly, greedy, points_by_count
from cm_ray.time_points.integer_search import METHODS, method_named, ternary
from cm_ray.time_points.noisy_search import STRATEGIES, PointSampleRange, find_points
from cm_ray.time_points.sample_budget import SampleBudget
from tests.time_points.told import Told

SMALL = SampleBudget(first=10, full=160)
WAYS = [("smooth", "ternary"), *((way, name) for way in STRATEGIES[1:] for name in METHODS)]
every_way = pytest.mark.parametrize(("strategy", "name"), WAYS, ids=[f"{way}, {name}" for way, name in WAYS])


def coupled(points):
    """The first point alone belongs in the middle; with others, all belong apart."""
    targets = {1: (20,), 2: (10, 30), 3: (8, 20, 32)}[len(points)]
    return sum((a - b) ** 2 for a, b in zip(targets, points, strict=True)) / 100


@every_way
def test_without_noise_the_points_are_those_of_the_exact_search(strategy, name):
    scores, method = Told(coupled, bias=lambda count: 100 / count), method_named(name, actors=3)
    stages = list(
        find_points(
            scores, 40, 3, strategy=strategy, method=method, budget=SMALL, passes=5, zone=0.0, tolerance=1e-4
        )
    )
    exact = greedy(exactly(method, lambda batch: [coupled(points) for points in batch])[0], 40, 3, passes=5)
    assert points_by_count(stages) == points_by_count(exact) == {1: (20,), 2: (10, 30), 3: (8, 20, 32)}
    assert sum(stage.found.spent for stage in stages) == scores.spent


@every_way
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 2), st.integers(6, 24), st.floats(0, 5))
@settings(max_examples=25, deadline=None)
def test_any_scores_give_right_accounts_and_the_same_stages_again(
    strategy, name, seed, count, passes, size, error
):
    scores = [Told(lambda points: hash((seed, points)) % 101 / 10, error=error) for _ in range(2)]
    stages, again = (
        list(
            find_points(
                of, size, count, strategy=strategy, method=method_named(name), budget=SMALL, passes=passes
            )
        )
        for of in scores
    )
    assert (stages, scores[0].requests) == (again, scores[1].requests)
    assert sum(stage.found.spent for stage in stages) == scores[0].spent
    assert [*points_by_count(stages)] == [*range(1, count + 1)]
    for stage in stages:
        assert stage.points == stage.gap.filled(stage.found.best)
        assert (stage.found.confirmation is None) == (strategy == "fixed")


@every_way
@given(st.integers(0, 2**32), st.integers(2, 3), st.integers(6, 24))
@settings(max_examples=25, deadline=None)
def test_a_refinement_never_worsens_without_noise(strategy, name, seed, count, size):
    def value(points):
        return hash((seed, points)) % 1009

    stages = list(
        find_points(
            Told(value), size, count, strategy=strategy, method=method_named(name), budget=SMALL, passes=2
        )
    )
    for before, after in itertools.pairwise(stages):
        if after.gap.incumbent is not None:
            assert value(after.points) <= value(before.points)


def test_openais_procedure_is_fixed_by_ternary_search():
    scores = Told(lambda points: abs(points[0] - 17))
    (stage,) = find_points(scores, 40, 1, strategy="fixed", method=ternary)
    assert (stage.points, stage.gap) == ((17,), Gap((), (), 1, 38))
    assert {(r.first, r.count) for r in scores.requests} == {(0, 10_000)}
    assert scores.requests[0] == PointSampleRange((13,), 0, 10_000)
    assert stage.found.spent == stage.found.fixed == scores.spent


def test_the_driver_sees_a_stage_before_the_next_one_starts():
    scores = Told(coupled)
    stages = find_points(scores, 40, 2, budget=SMALL)
    assert not scores.requests
    next(stages)
    assert {len(r.points) for r in scores.requests} == {1}


@every_way
def test_points_at_which_the_model_fails_are_left(strategy, name):
    def value(points):
        return math.inf if min(points) < 12 else coupled(points)

    stages = find_points(
        Told(value, error=0.001), 40, 2, strategy=strategy, method=method_named(name), budget=SMALL
    )
    for points in points_by_count(stages).values():
        assert math.isfinite(value(points))


def test_bad_arguments_are_refused_at_once():
    with pytest.raises(UserError, match=r"no search strategy 'racd': did you mean 'raced'\?"):
        find_points(Told(coupled), 40, 1, strategy="racd")
    with pytest.raises(UserError, match="A grid of 4 has no room for 3 points"):
        find_points(Told(coupled), 4, 3)

"""The greedy search places points between their neighbours; refinement never worsens."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.errors import UserError
from cm_ray.time_points.greedy import Gap, checked_points, exactly, greedy, points_by_count
from cm_ray.time_points.integer_search import METHODS, SearchResult, method_named


class Bowl:
    """Scores of points on a grid: each is as good as it is near its own target, whatever the others do."""

    def __init__(self, *targets, size=40):
        self.targets, self.size, self.asked = targets, size, []

    def score(self, points):
        """The distance of each target, from the highest down, from the point that is as manieth."""
        return sum(abs(a - b) for a, b in zip(reversed(self.targets), reversed(points), strict=False))

    def __call__(self, batch):
        for points in batch:
            assert points not in self.asked, "nothing is evaluated twice"
            assert checked_points(points, self.size) == points
            self.asked.append(points)
        return [self.score(points) for points in batch]


def search(scores, count, *, passes=0, method="ternary", size=40):
    pinpoint, found = exactly(method_named(method, actors=3), scores)
    return list(greedy(pinpoint, size, count, passes=passes)), found


@pytest.mark.parametrize("method", METHODS)
def test_a_separable_score_is_solved_exactly_from_the_highest_point_down(method):
    scores = Bowl(4, 9, 17, 31)
    stages, found = search(scores, 4, method=method)
    assert [stage.points for stage in stages] == [(31,), (17, 31), (9, 17, 31), (4, 9, 17, 31)]
    assert found[stages[-1].points] == 0
    assert list(found) == scores.asked
    assert stages[1].gap == Gap((), (31,), 1, 30)


def test_the_first_point_of_the_published_two_steps():
    stages, _ = search(Bowl(17), 1)
    assert stages[0].points == (17,)
    assert stages[0].gap == Gap((), (), 1, 38)


def coupled(points):
    """The first point alone belongs in the middle; with others, all belong apart."""
    targets = {1: (20,), 2: (10, 30), 3: (8, 20, 32)}[len(points)]
    return sum((a - b) ** 2 for a, b in zip(targets, points, strict=True))


def test_refinement_mends_what_the_greedy_order_got_wrong():
    rough, scores = search(lambda batch: [coupled(points) for points in batch], 2)
    assert rough[-1].points == (10, 20)
    refined, refined_scores = search(lambda batch: [coupled(points) for points in batch], 2, passes=5)
    assert refined[-1].points == (10, 30)
    assert refined_scores[10, 30] < scores[10, 20]
    assert len(refined) == 2 + 2, "what would be searched between the same neighbours again is not"


def test_the_points_of_every_count_are_refined_before_the_next_one_is_placed():
    stages, _ = search(lambda batch: [coupled(points) for points in batch], 3, passes=5)
    assert points_by_count(stages) == {1: (20,), 2: (10, 30), 3: (8, 20, 32)}
    new = [stage for stage in stages if stage.gap.incumbent is None]
    assert new[2].gap.above == (10, 30)
    assert all(stage.points == stage.gap.filled(stage.found.best) for stage in stages)


def test_stages_come_as_they_end():
    scores = Bowl(4, 9, 17, 31)
    stages = greedy(exactly(method_named("ternary"), scores)[0], 40, 4)
    assert not scores.asked
    assert next(stages).points == (31,)
    assert {len(points) for points in scores.asked} == {1}


@pytest.mark.parametrize("method", METHODS)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 3), st.integers(6, 30))
@settings(max_examples=60, deadline=None)
def test_refinement_never_worsens_any_score_and_points_stay_between_their_neighbours(
    method, seed, count, passes, size
):
    def scores(batch):
        for points in batch:
            assert checked_points(points, size) == points
        return [hash((seed, points)) % 1009 for points in batch]

    stages, found = search(scores, count, passes=passes, method=method, size=size)
    new = [stage for stage in stages if stage.gap.incumbent is None]
    assert [len(stage.points) for stage in new] == [*range(1, count + 1)]
    for stage in stages:
        ladder = (0, *stage.points, size - 1)
        place = len(stage.gap.below)
        assert ladder[place] < stage.gap.left <= ladder[place + 1] <= stage.gap.right < ladder[place + 2]
    for before, after in itertools.pairwise(stages):
        if after.gap.incumbent is not None:
            assert found[after.points] <= found[before.points]


def test_points_that_leave_no_room_below_are_followed_by_one_in_the_widest_gap():
    stages, _ = search(Bowl(1, size=9), 3, size=9)
    assert stages[0].points == (1,)
    assert stages[1].gap == Gap((1,), (), 2, 7)
    assert len(stages[2].points) == 3


@pytest.mark.parametrize(("size", "count"), [(3, 1), (5, 3), (8, 6)])
def test_a_grid_that_is_just_large_enough_is_filled(size, count):
    stages, _ = search(lambda batch: [float(sum(points)) for points in batch], count, size=size)
    assert stages[-1].points == tuple(range(1, count + 1))


def test_bad_numbers_are_refused_in_a_sentence():
    with pytest.raises(
        UserError, match="A grid of 4 has no room for 3 points between its ends; give a larger grid"
    ):
        search(Bowl(1), 3, size=4)
    with pytest.raises(UserError, match="1 or more points and 0 or more passes, not 0 and 0"):
        search(Bowl(1), 0)
    with pytest.raises(UserError, match="0 or more passes"):
        search(Bowl(1), 1, passes=-1)


def test_a_search_that_leaves_its_neighbours_is_a_defect():
    with pytest.raises(ValueError, match="between 1 and 38 was put at 39"):
        next(greedy(lambda gap: SearchResult(39, 0.0, {}, (), ()), 40, 1))

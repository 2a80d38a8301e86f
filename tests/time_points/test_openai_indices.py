"""OpenAI's indices of time points, there and back."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_ray.errors import UserError
from cm_ray.time_points.openai_indices import read_ts, taus, write_ts

PUBLISHED = [
    ("cifar10_cd", 18, "0,11,17", 0.585),
    ("imagenet64_cd_lpips", 40, "0,22,39", 1.38),
    ("imagenet64_cd_l2", 40, "0,22,39", 1.38),
    ("imagenet64_ct", 201, "0,106,200", 1.91),
    ("bedroom256_cd_lpips", 40, "0,17,39", 4.37),
    ("bedroom256_cd_l2", 40, "0,18,39", 3.52),
    ("bedroom256_ct", 151, "0,67,150", 3.99),
    ("cat256_ct", 151, "0,62,150", 5.25),
]


@pytest.mark.parametrize(("model", "steps", "ts", "t"), PUBLISHED)
def test_published_time_points_there_and_back(model, steps, ts, t):
    points = read_ts(ts, steps)
    assert points == (steps - 1 - int(ts.split(",")[1]),)
    assert write_ts(points, steps) == ts
    (tau,) = taus(points, steps)
    assert tau == pytest.approx(t, abs=1e-3 if t < 1 else 5e-3)


@given(st.data())
def test_all_indices_go_there_and_back(data):
    steps = data.draw(st.integers(2, 201))
    points = tuple(sorted(data.draw(st.sets(st.integers(1, max(steps - 2, 1)), max_size=min(steps - 2, 9)))))
    ts = write_ts(points, steps)
    indices = [int(index) for index in ts.split(",")]
    assert indices[0] == 0
    assert indices[-1] == steps - 1
    assert read_ts(ts, steps) == points
    times = [80.0, *taus(points, steps), 0.002]
    assert all(high > low for high, low in itertools.pairwise(times))


def test_one_step_generation_has_no_points():
    assert read_ts("0,39", 40) == ()
    assert write_ts((), 40) == "0,39"
    assert taus((), 40) == ()


@pytest.mark.parametrize(
    ("ts", "steps", "sentence"),
    [
        ("0,30,22,39", 40, "the indices must go up, from 0 for t_max to 39 for t_min"),
        ("0,22,22,39", 40, "the indices must go up"),
        ("39,22,0", 40, "the indices must go up"),
        ("0,22,40", 40, "40 is out of range, 0 to 39"),
        ("-1,22,39", 40, "-1 is out of range"),
        ("0,22", 40, "the indices include both ends, 0 and 39"),
        ("22,39", 40, "the indices include both ends"),
        ("0", 40, "the indices include both ends"),
        ("", 40, "indices are whole numbers with commas between, such as 0,22,39"),
        ("0,2.5,39", 40, "indices are whole numbers"),
        ("0,0", 1, "A grid needs at least 2 steps, not 1"),
    ],
)
def test_bad_indices_are_refused_in_a_sentence(ts, steps, sentence):
    with pytest.raises(UserError) as error:
        read_ts(ts, steps)
    assert sentence in str(error.value)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("points", [(0,), (39,), (5, 5), (6, 5), (-1,), (50,)])
def test_points_off_the_grid_are_refused(points):
    for function in (write_ts, taus):
        with pytest.raises(ValueError, match="points must ascend between 0 and 39"):
            function(points, 40)

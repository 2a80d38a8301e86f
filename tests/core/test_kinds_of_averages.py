"""Kinds of averages: decays, what is left of the initial weights, the lengths of power functions."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.averages import LONGEST, ConstantEMA, PowerEMA, WarmUpEMA, gamma_of, length_of
from cm_ray.core.ema import update_average
from cm_ray.errors import SettingError

KINDS = [
    ConstantEMA(decays=(0.9, 0.0, 0.999)),
    WarmUpEMA(decays=(0.9, 0.0, 0.999)),
    WarmUpEMA(decays=(0.99,), ramp=0.5),
    PowerEMA(lengths=(0.05, 0.1, 0.28)),
]


def weights_of_steps(kind, steps):
    """The weight of theta_0 .. theta_steps in each average, tracked on unit vectors in float64."""
    averages = [[torch.eye(steps + 1, dtype=torch.float64)[0].clone()] for _ in kind.lengths]
    for step in range(steps):
        theta = [torch.eye(steps + 1, dtype=torch.float64)[step + 1]]
        for average, decay in zip(averages, kind.decays_at(step), strict=True):
            update_average(average, theta, decay)
    return [average[0] for average in averages]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("steps", [0, 1, 7, 60])
def test_the_share_of_the_initial_weights_is_exact(kind, steps):
    tracked = weights_of_steps(kind, steps)
    for weights, share in zip(tracked, kind.initial_shares(steps), strict=True):
        assert share == pytest.approx(float(weights[0]), rel=1e-12, abs=1e-300)
        assert float(weights.sum()) == pytest.approx(1, rel=1e-12)
        assert bool((weights >= 0).all())


def test_the_figures_of_short_trainings():
    """A paper's decay leaves most of an average where it began; the other kinds leave nothing."""
    paper, default = ConstantEMA(decays=(0.999943,)), ConstantEMA()
    assert paper.initial_shares(5000)[0] == pytest.approx(0.752, abs=1e-3)
    assert default.initial_shares(5000)[0] == pytest.approx(0.6065, abs=1e-4)
    assert WarmUpEMA().initial_shares(5000) == PowerEMA(lengths=(0.05,)).initial_shares(5000) == (0.0,)


def test_a_warm_up_limits_the_half_life():
    """The decay is constant after the ramp; before it, half of the weight is on a share of the steps."""
    kind = WarmUpEMA(decays=(0.99,), ramp=0.05)
    half_life = math.log(0.5) / math.log(0.99)
    assert kind.decays_at(0) == (0.0,)
    assert kind.decays_at(200)[0] ** 10 == pytest.approx(0.5)
    assert kind.decays_at(math.ceil(half_life / 0.05)) == (0.99,)
    assert kind.decays_at(math.floor(half_life / 0.05))[0] < 0.99


@given(st.floats(1e-4, LONGEST))
@settings(max_examples=200, deadline=None)
def test_exponents_and_lengths_are_each_others_inverse(length):
    gamma = gamma_of(length)
    assert gamma >= 0
    assert length_of(gamma) == pytest.approx(length, rel=1e-12)
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    assert gamma == pytest.approx(max(roots.real), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("length", "gamma"), [(0.01, 96.99), (0.05, 16.97), (0.1, 6.94), (LONGEST, 0.0)])
def test_published_exponents(length, gamma):
    assert gamma_of(length) == pytest.approx(gamma, abs=5e-3)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.2888, math.nan, math.inf])
def test_lengths_that_there_are_not(length):
    with pytest.raises(ValueError, match="must be in"):
        gamma_of(length)


@pytest.mark.parametrize("length", [0.03, 0.1, 0.28])
def test_tracked_weights_are_integrals_of_the_profile(length):
    """The weight of step j of k is (j/k)^(gamma + 1) - ((j - 1)/k)^(gamma + 1)."""
    steps = 400
    (weights,) = weights_of_steps(PowerEMA(lengths=(length,)), steps)
    edges = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** (gamma_of(length) + 1)
    torch.testing.assert_close(weights[1:], edges.diff(), rtol=1e-9, atol=1e-40)
    times = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    mean = float(weights[1:] @ times)
    assert math.sqrt(float(weights[1:] @ (times - mean) ** 2)) == pytest.approx(length, rel=0.01)


@pytest.mark.parametrize("count", [1, 2, 16, 1000])
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 5), (0, 900), (300, 600), (3, 4)])
def test_snapshots_are_at_equal_distances_and_at_the_end(count, start, stop):
    steps = PowerEMA(snapshots=count).snapshot_steps(start, stop)
    assert steps[-1] == stop
    assert len(steps) == min(count, stop - start)
    assert start < steps[0]
    gaps = [b - a for a, b in itertools.pairwise((start, *steps))]
    assert max(gaps) - min(gaps) <= 1


def test_snapshots_are_bounded():
    kind = PowerEMA(snapshots=16)
    assert kind.snapshot_bytes(1000, 800_000) == 16 * 2 * 4 * 1000
    assert kind.snapshot_bytes(1000, 3) == 3 * 2 * 4 * 1000
    assert PowerEMA(snapshots=0).snapshot_steps(0, 9) == ()
    assert PowerEMA(snapshots=0).snapshot_bytes(1000, 9) == 0


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (ConstantEMA, {"decays": ()}, "decays needs at least one decay."),
        (ConstantEMA, {"decays": (0.9, 1.0)}, "decays must be in [0, 1), not (0.9, 1.0)."),
        (ConstantEMA, {"decays": (math.nan,)}, "decays must be in [0, 1), not (nan,)."),
        (WarmUpEMA, {"decays": (-0.1,)}, "decays must be in [0, 1), not (-0.1,)."),
        (WarmUpEMA, {"ramp": 0.0}, "ramp must be positive, not 0.0."),
        (PowerEMA, {"lengths": ()}, "lengths needs at least one length, such as 0.05."),
        (PowerEMA, {"lengths": (0.1, 0.1)}, "lengths must differ from each other."),
        (PowerEMA, {"lengths": (0.3,)}, "lengths must be in (0, 0.2887], not 0.3."),
        (PowerEMA, {"candidates": (0.0,)}, "candidates must be in (0, 0.2887], not 0.0."),
        (PowerEMA, {"snapshots": -1}, "snapshots must not be negative, but is -1."),
        (PowerEMA, {"samples": 1}, "samples must be at least 2 for a score"),
    ],
)
def test_settings_that_cannot_be(kind, values, message):
    with pytest.raises(SettingError) as refused:
        kind(**values)
    assert str(refused.value).startswith(message)

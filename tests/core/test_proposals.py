"""Times to train on follow the laws of the papers, by inversion of uniform numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import erf

from cm_ray.core import proposals
from cm_ray.core.proposals import Grid, Lognormal, LognormalIntervals, Tuned, UniformIntervals
from cm_ray.core.schedules import Adaptive, Constant
from cm_ray.core.times import NoiseLevels, karras_times

UNIFORMS = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
ENDS = torch.tensor([1e-10, 0.5, 1 - 2.0**-24])
LEVELS = NoiseLevels()


def ict_probabilities(times):
    edges = erf((np.log(times.numpy()) + 1.1) / (math.sqrt(2) * 2.0))
    return np.diff(edges) / np.diff(edges).sum()


def test_the_uniform_proposal_takes_all_intervals_alike():
    counts = torch.bincount(UniformIntervals()(karras_times(9), UNIFORMS), minlength=8)
    assert len(counts) == 8
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


@pytest.mark.parametrize("n", [2, 11, 151, 1281])
def test_the_lognormal_proposal_has_icts_probabilities(n):
    times = karras_times(n)
    probabilities = LognormalIntervals().probabilities(times).numpy()
    np.testing.assert_allclose(probabilities, ict_probabilities(times), rtol=1e-9)
    assert probabilities.sum() == pytest.approx(1)


def test_the_lognormal_proposal_draws_by_its_probabilities():
    times = karras_times(11)
    counts = torch.bincount(LognormalIntervals()(times, UNIFORMS), minlength=10).numpy()
    assert stats.chisquare(counts, len(UNIFORMS) * ict_probabilities(times)).pvalue > 0.01


@given(st.integers(2, 60), st.floats(0, 1, exclude_max=True))
@settings(max_examples=60, deadline=None)
def test_the_lognormal_proposal_inverts_its_distribution(n, uniform):
    times = karras_times(n)
    index = int(LognormalIntervals()(times, torch.tensor([uniform], dtype=torch.float64)))
    below = np.concatenate([[0.0], ict_probabilities(times).cumsum()])
    assert below[index] - 1e-12 <= uniform <= below[index + 1] + 1e-12


@pytest.mark.parametrize("proposal", [UniformIntervals(), LognormalIntervals()])
@pytest.mark.parametrize("n", [2, 3, 11, 1281])
def test_proposals_stay_on_the_grid(proposal, n):
    index = proposal(karras_times(n), torch.cat([ENDS, torch.tensor([0.0, 1.0])]))
    assert index.min() >= 0
    assert index.max() <= n - 2


@pytest.mark.parametrize("proposal", [UniformIntervals(), LognormalIntervals()])
def test_grid_pairs_are_neighbours_on_the_grid_of_the_step(proposal):
    pairs = Grid(Adaptive(2, 20), proposal)
    for step in (0, 37, 100):
        n = Adaptive(2, 20)(step, 100)
        assert pairs.gauges(step, 100) == {"num_scales": n}
        grid = karras_times(n).float()
        t, s = pairs(UNIFORMS[:5000], step, 100, LEVELS)
        assert t.dtype == s.dtype == torch.float32
        index = torch.searchsorted(grid, s)
        assert torch.equal(grid[index], s)
        assert torch.equal(grid[index + 1], t)


def test_grid_pairs_keep_their_ends():
    t, s = Grid(Constant(n=2), UniformIntervals())(UNIFORMS[:3], 0, 1, NoiseLevels(t_min=0.01, t_max=50.0))
    assert t.tolist() == [50.0] * 3
    assert torch.equal(s, torch.full((3,), 0.01))


def test_lognormal_times_follow_the_truncated_law_of_edm():
    t, s = Lognormal(-1.2, 1.2)(UNIFORMS, 0, 1, NoiseLevels(t_min=0.05, t_max=5.0))
    low, high = ((math.log(end) + 1.2) / 1.2 for end in (0.05, 5.0))
    law = stats.truncnorm(low, high, loc=-1.2, scale=1.2)
    assert stats.kstest(t.double().log().numpy(), law.cdf).pvalue > 0.01
    assert t.min() >= 0.05
    assert t.max() <= 5.0
    assert (s == 0).all()


@given(st.floats(-3, 2), st.floats(0.3, 3), st.sampled_from([0.002, 0.01, 0.5]), st.sampled_from([1.0, 80.0]))
@settings(max_examples=60, deadline=None)
def test_lognormal_times_stay_between_their_ends(p_mean, p_std, t_min, t_max):
    levels = NoiseLevels(t_min=t_min, t_max=t_max)
    t, _ = Lognormal(p_mean, p_std)(torch.cat([ENDS, UNIFORMS[:100]]), 0, 1, levels)
    assert t.dtype == torch.float32
    assert (t >= torch.tensor(t_min)).all()
    assert (t <= torch.tensor(t_max)).all()


ECT = Tuned(q=2.0, k=8.0, b=1.0, stages=8)


@pytest.fixture
def times_are_given(monkeypatch):
    """The uniform numbers stand for the times themselves, so that s can be computed by hand."""
    monkeypatch.setattr(proposals, "lognormal", lambda mean, std, uniforms, levels: uniforms)


@pytest.mark.usefixtures("times_are_given")
@pytest.mark.parametrize(
    ("step", "t", "s"),
    [
        (0, 0.5, 0.002),  # n = 1 + 8 · 0.3775407 = 4.020325, more than q: the clean end
        (0, 1.0, 0.002),
        (0, 10.0, 4.9981841),  # n = 1.0003632
        (0, 80.0, 40.0),
        (100, 3.0, 1.9654448),  # n = 1 + 8 · 0.04742587 = 1.3794070, over 4
        (200, 1.0, 0.6060586),  # n = 1 + 8 · 0.26894142 = 3.1515314, over 8
        (799, 1.0, 0.9876893),  # over 2^8
        (799, 80.0, 79.6875),
        (10**6, 80.0, 79.6875),
    ],
)
def test_tuned_pairs_are_ects_by_hand(step, t, s):
    t_out, s_out = ECT(torch.tensor([t]), step, 800, LEVELS)
    assert float(t_out) == pytest.approx(t)
    assert float(s_out) == pytest.approx(s, rel=2e-6)


def test_stages_of_tuned_pairs_are_of_equal_length():
    assert [ECT.stage(k, 800) for k in (0, 99, 100, 699, 700, 799, 800, 10**6)] == [0, 0, 1, 6, 7, 7, 7, 7]
    assert ECT.gauges(250, 800) == {"stage": 2}


@pytest.mark.parametrize("q", [2.0, 4.0, 256.0])
def test_tuned_pairs_come_nearer_in_stages_and_stay_above_t_min(q):
    pairs = Tuned(-1.1, 2.0, q=q, k=8.0, b=1.0, stages=4)
    before = torch.zeros(1000)
    for step in range(4):
        t, s = pairs(UNIFORMS[:1000], step, 4, LEVELS)
        assert (s >= torch.tensor(0.002)).all()
        assert (s[t > 0.0021] < t[t > 0.0021]).all(), "equal times train nothing"
        assert (s <= t).all()
        assert (s >= before).all()
        before = s
    ratio = (1 - (1 + 8 * torch.sigmoid(-t)) / q**4).clamp(max=0.999)
    torch.testing.assert_close(s, (t * ratio).clamp(min=0.002))

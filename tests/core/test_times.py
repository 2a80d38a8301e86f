"""Grids and curricula hit the paper's numbers."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erf

from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.times import (
    AdaptiveDecay,
    AdaptiveScales,
    ConstantDecay,
    ConstantScales,
    DoublingScales,
    InverseGapWeight,
    LognormalProposal,
    UniformProposal,
    UniformWeight,
    karras_times,
)


@pytest.mark.parametrize("n", [2, 3, 18, 151])
def test_karras_grid(n):
    times = karras_times(n)
    assert times[0] == 0.002
    assert times[-1] == 80.0
    assert (times.diff() > 0).all()
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(low + i / (n - 1) * (high - low)) ** 7 for i in range(n)]
    np.testing.assert_allclose(times.numpy(), expected, rtol=1e-12)


def test_a_grid_needs_two_boundaries():
    with pytest.raises(ValueError, match="at least 2"):
        karras_times(1)


def test_published_time_points_lie_on_the_grid():
    """OpenAI's two-step indices, descending, give the second point that the paper's samplers used."""
    for steps, index, t in [(18, 11, 0.585), (40, 22, 1.38), (201, 106, 1.91), (151, 67, 3.99)]:
        assert float(karras_times(steps)[steps - 1 - index]) == pytest.approx(t, rel=5e-3)


@pytest.mark.parametrize(("s0", "s1", "total"), [(2, 150, 800_000), (2, 200, 800_000), (2, 150, 1_000_000)])
def test_adaptive_scales_are_algorithm_3(s0, s1, total):
    scales = AdaptiveScales(s0, s1, total)

    def paper(k):
        return math.ceil(math.sqrt(k / total * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1) + 1

    assert scales(0) == s0
    assert scales(total) == scales(10 * total) == s1 + 1
    steps = [*range(0, total, 997), *range(200), total - 1]
    assert [scales(k) for k in steps] == [paper(k) for k in steps]


def test_adaptive_scales_do_not_round_wrongly_at_exact_squares():
    scales = AdaptiveScales(2, 150, 151**2 - 4)  # one more under the root per step
    assert [scales(n * n - 4) for n in range(2, 152)] == list(range(2, 152))
    assert [scales(n * n - 3) for n in range(2, 151)] == list(range(3, 152))


def test_doubling_scales_are_ict():
    scales = DoublingScales(10, 1280, 400_000)
    seen = [scales(k) for k in range(0, 400_001, 1000)]
    assert sorted(set(seen)) == [11, 21, 41, 81, 161, 321, 641, 1281]
    assert seen == sorted(seen)
    assert scales(50_000 - 1) == 11
    assert scales(50_000) == 21


def test_adaptive_decay_is_the_papers_not_openais():
    scales = AdaptiveScales(2, 150, 800_000)
    decay = AdaptiveDecay(0.95, 2, scales)
    assert decay(0) == pytest.approx(0.95)
    assert math.exp(2 * math.log(0.95) / (scales(0) - 1)) == pytest.approx(0.9025)  # theirs: intervals
    assert decay(800_000) == pytest.approx(math.exp(2 * math.log(0.95) / 151))
    assert ConstantDecay(0.0)(5) == 0.0
    assert ConstantScales(18)(5) == 18


def test_uniform_proposal_takes_all_intervals_alike():
    uniforms = uniform(0, 0, torch.arange(40_000), Purpose.TIMES, (1,))[:, 0]
    counts = torch.bincount(UniformProposal()(karras_times(9), uniforms), minlength=8)
    assert len(counts) == 8
    assert (counts - 5000).abs().max() < 350


def test_lognormal_proposal_follows_ict():
    times, proposal = karras_times(11), LognormalProposal()
    edges = erf((np.log(times.numpy()) + 1.1) / (math.sqrt(2) * 2.0))
    expected = np.diff(edges) / np.diff(edges).sum()
    np.testing.assert_allclose(proposal.probabilities(times).numpy(), expected, rtol=1e-12)
    uniforms = uniform(0, 0, torch.arange(100_000), Purpose.TIMES, (1,))[:, 0]
    counts = torch.bincount(proposal(times, uniforms), minlength=10).numpy()
    np.testing.assert_allclose(counts / 1e5, expected, atol=0.006)


@pytest.mark.parametrize("proposal", [UniformProposal(), LognormalProposal()])
@pytest.mark.parametrize("n", [2, 3, 11, 1281])
def test_proposals_stay_on_the_grid(proposal, n):
    ends = torch.tensor([1e-10, 0.5, 1 - 2.0**-24])
    index = proposal(karras_times(n), ends)
    assert index.min() >= 0
    assert index.max() <= n - 2


def test_weights():
    t, s = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0])
    assert UniformWeight()(t, s).tolist() == [1.0, 1.0]
    assert InverseGapWeight()(t, s).tolist() == [2.0, 0.5]

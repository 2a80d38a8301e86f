"""The grid of noise levels hits the published numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.times import karras_times


@pytest.mark.parametrize("n", [2, 3, 18, 151])
def test_the_grid_is_equation_5_with_exact_ends(n):
    times = karras_times(n)
    assert times.dtype == torch.float64
    assert times[0] == 0.002
    assert times[-1] == 80.0
    assert (times.diff() > 0).all()
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(low + i / (n - 1) * (high - low)) ** 7 for i in range(n)]
    np.testing.assert_allclose(times.numpy(), expected, rtol=1e-12)


@given(st.integers(2, 200), st.floats(1e-4, 0.1), st.floats(1, 200), st.floats(1, 9))
@settings(max_examples=50, deadline=None)
def test_every_grid_ascends_between_its_ends(n, t_min, t_max, rho):
    times = karras_times(n, t_min=t_min, t_max=t_max, rho=rho)
    assert len(times) == n
    assert times[0] == t_min
    assert times[-1] == t_max
    assert (times.diff() > 0).all()
    steps = (times ** (1 / rho)).diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-6, atol=1e-10)


def test_a_grid_needs_two_boundaries():
    with pytest.raises(ValueError, match="at least 2"):
        karras_times(1)


def test_published_time_points_lie_on_the_grid():
    """OpenAI's two-step indices, descending, give the second point that the paper's samplers used."""
    for steps, index, t in [(18, 11, 0.585), (40, 22, 1.38), (201, 106, 1.91), (151, 67, 3.99)]:
        assert float(karras_times(steps)[steps - 1 - index]) == pytest.approx(t, rel=5e-3)

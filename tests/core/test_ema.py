"""Averages of weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.ema import update_average
from tests.core.gaussian import normals


@given(st.floats(0, 0.999999), st.integers(1, 5), st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_averages_are_the_formula(decay, count, seed):
    averages, current = ([normals(seed + k, 3, 2).float() for _ in range(count)] for k in (0, 1))
    expected = [decay * a.double() + (1 - decay) * c.double() for a, c in zip(averages, current, strict=True)]
    update_average(averages, current, decay)
    for average, value in zip(averages, expected, strict=True):
        torch.testing.assert_close(average.double(), value, rtol=1e-5, atol=1e-6)


def test_decay_zero_copies_and_the_source_is_left_alone():
    average, current = [torch.zeros(3)], [normals(0, 3).float().requires_grad_()]
    before = current[0].detach().clone()
    update_average(average, current, 0.0)
    assert torch.equal(average[0], before)
    assert torch.equal(current[0].detach(), before)
    assert not average[0].requires_grad


def test_equal_weights_stay():
    """A target that equals the student is moved by no decay."""
    average, current = [normals(1, 5)], [normals(1, 5)]
    update_average(average, current, 0.9)
    assert torch.equal(average[0], current[0])


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_the_distance_to_constant_weights_falls_by_the_decay(decay):
    average, current = [normals(2, 4)], [normals(3, 4)]
    first = (average[0] - current[0]).clone()
    for _ in range(10):
        update_average(average, current, decay)
    torch.testing.assert_close(average[0] - current[0], decay**10 * first)

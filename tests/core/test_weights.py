"""Weights against their formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.weights import (
    InverseGapWeight,
    KarrasWeight,
    SnrPlusOneWeight,
    SnrWeight,
    TruncatedSnrWeight,
    UniformWeight,
)

FORMULAS = [
    (UniformWeight(), lambda t, s: 1.0),
    (SnrWeight(), lambda t, s: 1 / t**2),
    (SnrPlusOneWeight(), lambda t, s: (1 + t**2) / t**2),
    (TruncatedSnrWeight(), lambda t, s: 1 / t**2 if t < 1 else 1.0),
    (KarrasWeight(), lambda t, s: (t**2 + 0.25) / (0.5 * t) ** 2),
    (KarrasWeight(0.3), lambda t, s: (t**2 + 0.09) / (0.3 * t) ** 2),
    (InverseGapWeight(), lambda t, s: 1 / (t - s)),
]


@pytest.mark.parametrize(("weight", "formula"), FORMULAS, ids=lambda value: type(value).__name__)
@given(st.floats(0.002, 80), st.floats(0.1, 0.99))
@settings(max_examples=30, deadline=None)
def test_weights_are_their_formulas(weight, formula, t, share):
    s = share * t
    got = weight(torch.tensor([t, 1.0], dtype=torch.float64), torch.tensor([s, 0.5], dtype=torch.float64))
    assert got.tolist() == pytest.approx([formula(t, s), formula(1.0, 0.5)], rel=1e-9)


@pytest.mark.parametrize(("weight", "_"), FORMULAS, ids=lambda value: type(value).__name__)
def test_weights_are_finite_for_all_times_even_equal_ones(weight, _):
    t = torch.tensor([0.002, 1.0, 80.0])
    assert torch.isfinite(weight(t, t)).all()
    assert (weight(t, t) > 0).all()


def test_the_karras_weight_undoes_c_out():
    """lambda c_out^2 = 1, Karras et al. 2022, Eq. 144: the network's error counts alike at all times."""
    t = torch.tensor([0.002, 0.3, 80.0], dtype=torch.float64)
    c_out = 0.5 * t / (t**2 + 0.25).sqrt()
    torch.testing.assert_close(KarrasWeight()(t, torch.zeros(3)) * c_out**2, torch.ones_like(t))

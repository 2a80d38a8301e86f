"""Weights against their formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.precondition import EDM, VE, VP
from cm_ray.core.weights import (
    SNR,
    InverseGap,
    KarrasWeight,
    SNRPlusOne,
    TruncatedSNR,
    UniformWeight,
)
from cm_ray.errors import SettingError

FORMULAS = [
    (UniformWeight(), EDM(), lambda t, s: 1.0),
    (SNR(), EDM(), lambda t, s: 1 / t**2),
    (SNRPlusOne(), VP(), lambda t, s: (1 + t**2) / t**2),
    (TruncatedSNR(), EDM(), lambda t, s: 1 / t**2 if t < 1 else 1.0),
    (KarrasWeight(), EDM(), lambda t, s: (t**2 + 0.25) / (0.5 * t) ** 2),
    (KarrasWeight(), EDM(sigma_data=0.3), lambda t, s: (t**2 + 0.09) / (0.3 * t) ** 2),
    (InverseGap(), VE(), lambda t, s: 1 / (t - s)),
]


@pytest.mark.parametrize(("weight", "column", "formula"), FORMULAS, ids=lambda value: type(value).__name__)
@given(st.floats(0.002, 80), st.floats(0.1, 0.99))
@settings(max_examples=30, deadline=None)
def test_weights_are_their_formulas(weight, column, formula, t, share):
    s = share * t
    t_both, s_both = torch.tensor([[t, 1.0], [s, 0.5]], dtype=torch.float64)
    got = weight(t_both, s_both, column)
    assert got.tolist() == pytest.approx([formula(t, s), formula(1.0, 0.5)], rel=1e-9)


@pytest.mark.parametrize(("weight", "column", "_"), FORMULAS, ids=lambda value: type(value).__name__)
def test_weights_are_finite_for_all_times_even_equal_ones(weight, column, _):
    t = torch.tensor([0.002, 1.0, 80.0])
    assert torch.isfinite(weight(t, t, column)).all()
    assert (weight(t, t, column) > 0).all()


def test_the_karras_weight_undoes_c_out():
    """lambda c_out^2 = 1, Karras et al. 2022, Eq. 144: the network's error counts alike at all times."""
    t = torch.tensor([0.002, 0.3, 80.0], dtype=torch.float64)
    for column in (EDM(), EDM(sigma_data=0.3)):
        weight = KarrasWeight()(t, torch.zeros(3), column)
        torch.testing.assert_close(weight * column.c_out(t) ** 2, torch.ones_like(t))


@pytest.mark.parametrize("column", [VP(), VE()])
def test_the_karras_weight_needs_a_sigma_data(column):
    with pytest.raises(SettingError, match=r"weight karras needs the sigma_data of column edm or trigflow"):
        KarrasWeight()(torch.ones(1), torch.zeros(1), column)

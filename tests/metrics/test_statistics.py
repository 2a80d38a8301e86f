"""Feature statistics are a monoid, and their moments are those of the vectors."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cm_ray.metrics.statistics import FeatureStatistics


def features(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * 3 + 1


def assert_close(a, b, tolerance=1e-12):
    assert a.n == b.n
    np.testing.assert_allclose(a.total, b.total, rtol=tolerance, atol=tolerance * max(1, a.n))
    np.testing.assert_allclose(a.outer, b.outer, rtol=tolerance, atol=tolerance * max(1, a.n))


def test_moments_are_numpys():
    x = features(40)
    statistics = FeatureStatistics.of(x)
    np.testing.assert_allclose(statistics.mean(), x.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance(), np.cov(x.double().numpy().T), rtol=1e-10)


@given(st.tuples(*[st.integers(0, 9)] * 3))
def test_addition_is_associative_and_zero_is_neutral(sizes):
    a, b, c = (FeatureStatistics.of(features(n, seed=seed)) for seed, n in enumerate(sizes))
    assert_close((a + b) + c, a + (b + c))
    assert_close(a + b, b + a)
    assert_close(a + FeatureStatistics.zero(5), a, tolerance=0)


@given(st.lists(st.integers(0, 60), max_size=6))
def test_any_split_merges_to_the_whole(cuts):
    x = features(60)
    edges = [0, *sorted(cuts), 60]
    parts = [FeatureStatistics.of(x[low:high]) for low, high in itertools.pairwise(edges)]
    assert_close(sum(parts, start=FeatureStatistics.zero(5)), FeatureStatistics.of(x))


def test_half_precision_features_are_summed_in_float64():
    x = torch.full((5000, 2), 0.1, dtype=torch.bfloat16)
    assert FeatureStatistics.of(x).total[0] == pytest.approx(5000 * float(x[0, 0]), rel=1e-12)


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(2, 3, 4), torch.tensor([[float("nan")]])])
def test_what_is_no_batch_of_features_is_refused(bad):
    with pytest.raises(ValueError, match=r"features must be|not finite"):
        FeatureStatistics.of(bad)


def test_too_few_vectors_and_other_lengths_are_refused():
    with pytest.raises(ValueError, match="at least two"):
        FeatureStatistics.of(features(1)).covariance()
    with pytest.raises(ValueError, match="at least one"):
        FeatureStatistics.zero(3).mean()
    with pytest.raises(ValueError, match="cannot be merged"):
        _ = FeatureStatistics.zero(3) + FeatureStatistics.zero(4)

"""The error of the Fréchet distance is the spread of repeated experiments, also where bias is most of it."""

import numpy as np
import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.frechet import FrechetReference, frechet_of_features, frechet_of_groups
from cm_ray.metrics.statistics import FeatureStatistics

D, REPEATS = 32, 200  # the spread is then right to 5 %


def features(n, seed, d=D, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) + shift


def groups_of(x, count=20):
    return [FeatureStatistics.of(part) for part in x.tensor_split(count)]


def reference_of(n, d=D):
    return FrechetReference.of(FeatureStatistics.of(features(n, 10**6, d)))


def standard_normal(d):
    """N(0, I) itself, as a reference."""
    n = 10**9
    return FrechetReference.of(FeatureStatistics(n, np.zeros(d), (n - 1) * np.eye(d)))


def spread_and_errors(n, reference, **settings):
    """Return the deviation of repeated distances, and the mean errors by features and by groups."""
    sets = [features(n, seed, **settings) for seed in range(REPEATS)]
    by_features = [frechet_of_features(x, reference) for x in sets]
    by_groups = [frechet_of_groups(groups_of(x), reference) for x in sets[:50]]  # each right to 16 %
    errors = [np.mean([each.error for each in measured]) for measured in (by_features, by_groups)]
    return np.std([each.value for each in by_features], ddof=1), *errors


@pytest.mark.parametrize("n", [250, pytest.param(1000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(("of_population", "factor"), [(False, (4 / 3) ** 0.5), (True, 2**0.5)])
def test_where_bias_is_all_of_the_distance_the_error_is_near_the_spread(n, of_population, factor):
    """Samples and reference, n draws or the population itself, are of one kind, and the distance is bias.

    The variance that comes of the gradient's own noise counts twice there: with m draws in the reference
    it is d^2 / 2nm + d^2 / 2n^2 for d^2 / 2nm + d^2 / 4n^2. Resamples of 20 groups err by factors of 2 to 7.
    """
    reference = standard_normal(D) if of_population else reference_of(n)
    spread, by_features, by_groups = spread_and_errors(n, reference)
    assert by_features == pytest.approx(factor * spread, rel=0.2)
    assert by_groups == pytest.approx(by_features, rel=0.1)


def test_far_from_the_reference_the_error_is_the_spread():
    spread, by_features, by_groups = spread_and_errors(1000, standard_normal(6), d=6, shift=0.5)
    assert by_features == pytest.approx(spread, rel=0.2)
    assert by_groups == pytest.approx(by_features, rel=0.1)


def test_groups_of_one_sample_are_the_samples():
    x, reference = features(60, 0, 5, shift=3.0), reference_of(200, 5)
    singles = frechet_of_groups([FeatureStatistics.of(row[None]) for row in x], reference)
    by_features = frechet_of_features(x, reference)
    assert singles.value == pytest.approx(by_features.value, rel=1e-10)
    assert singles.error == pytest.approx(by_features.error, rel=1e-8)
    assert by_features.value == pytest.approx(reference.distance(FeatureStatistics.of(x)), rel=1e-12)


def test_groups_may_be_unequal_or_empty():
    x, reference = features(1000, 0, 5, shift=0.3), reference_of(500, 5)
    cuts = np.random.default_rng(0).choice(np.arange(1, 1000), 199, replace=False)
    parts = [FeatureStatistics.of(part) for part in x.tensor_split(sorted(cuts.tolist()))]
    measured = frechet_of_groups([*parts, FeatureStatistics.zero(5)], reference)
    assert measured == frechet_of_groups(parts, reference)
    assert measured.error == pytest.approx(frechet_of_features(x, reference).error, rel=0.15)


def test_the_order_of_classes_does_not_matter_to_features():
    """A sampler may give one class after the other: groups, of a class each, cannot know better."""
    classes = torch.arange(20).repeat_interleave(50)
    x = features(1000, 0, 5) + torch.linspace(-2, 2, 20).double()[classes, None]
    shuffled = x[torch.randperm(1000, generator=torch.Generator().manual_seed(0))]
    reference = reference_of(500, 5)
    in_order, mixed = (frechet_of_features(each, reference).error for each in (x, shuffled))
    assert in_order == pytest.approx(mixed, rel=1e-10)
    by_groups = [frechet_of_groups(groups_of(each), reference).error for each in (x, shuffled)]
    assert by_groups[0] > 2 * in_order
    assert by_groups[1] < 1.5 * in_order


@pytest.mark.parametrize("count", [0, 1])
def test_one_group_has_no_error(count):
    with pytest.raises(UserError, match=f"two groups of samples, not {count}"):
        frechet_of_groups(groups_of(features(30, 0, 5), 1) * count, reference_of(50, 5))

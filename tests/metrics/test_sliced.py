"""The sliced Wasserstein distance against closed forms and the optimal matching."""

import itertools

import pytest
import torch
from scipy.stats import wasserstein_distance

from cm_ray.errors import UserError
from cm_ray.metrics.sliced import sliced_wasserstein, squared_wasserstein_1d


def features(n, d=8, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_in_one_dimension_it_is_the_best_matching():
    x, y = features(5, 1).double(), features(5, 1, seed=1).double()
    matchings = itertools.permutations(range(5))
    best = min(float((x - y[list(m)]).square().mean()) for m in matchings)
    value = squared_wasserstein_1d(x.sort(0).values, y.sort(0).values)
    assert float(value) == pytest.approx(best, rel=1e-12)


@pytest.mark.parametrize("sizes", [(50, 50), (40, 63)])
def test_of_zeros_and_ones_it_is_scipys(sizes):
    """Scipy has the distance with |x - y| only; between zeros and ones that is (x - y)^2."""
    x, y = ((features(n, 1, seed=n) > shift).double() for n, shift in zip(sizes, (0.3, -0.4), strict=True))
    expected = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert expected > 0.05
    value = squared_wasserstein_1d(x.sort(0).values, y.sort(0).values)
    assert float(value) == pytest.approx(expected, rel=1e-12)
    assert sliced_wasserstein(x, y).value == pytest.approx(expected**0.5, rel=1e-12)


def test_it_is_scipys_at_least():
    """The order is Jensen's inequality; the two are equal where all is shifted alike."""
    x, y = features(80, 1).double(), features(90, 1, seed=1, shift=0.5).double()
    first = wasserstein_distance(x[:, 0].numpy(), y[:, 0].numpy())
    assert first < sliced_wasserstein(x, y).value < 1.5 * first
    assert sliced_wasserstein(x, x + 2).value == pytest.approx(2, rel=1e-12)


def test_sets_of_different_sizes_are_matched_as_their_copies():
    x, y = features(6, 2).sort(0).values, features(4, 2, seed=1).sort(0).values
    expected = squared_wasserstein_1d(x.repeat_interleave(2, 0), y.repeat_interleave(3, 0))
    torch.testing.assert_close(squared_wasserstein_1d(x, y), expected)


def test_a_shift_is_seen_by_its_share_in_every_direction():
    """A set and itself shifted by delta: |delta| / sqrt(d), on average over the directions."""
    x = features(200)
    shifted = x + torch.tensor([3.0] + 7 * [0.0])
    measured = sliced_wasserstein(x, shifted, projections=2000)
    assert measured.value == pytest.approx(3 / 8**0.5, rel=0.05)
    assert measured.settings == {"projections": 2000, "projection_seed": 0}


def test_gaussians_of_other_width():
    """N(0, 1) and N(0, 4) are 1 apart in every direction."""
    measured = sliced_wasserstein(features(1500), 2 * features(2000, seed=1))
    assert measured.value == pytest.approx(1, abs=4 * measured.error + 0.01)


def test_the_error_is_that_of_repeated_experiments():
    reference = features(1000, seed=99, shift=0.5)
    values = [sliced_wasserstein(features(300, seed=s), reference, projections=32) for s in range(40)]
    deviation = torch.tensor([each.value for each in values]).std()
    assert values[0].error == pytest.approx(float(deviation), rel=0.4)


def test_it_is_a_function_of_the_seed_and_zero_to_itself():
    x, y = features(50), features(50, seed=1)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y)
    assert sliced_wasserstein(x, y).value != sliced_wasserstein(x, y, seed=1).value
    assert sliced_wasserstein(x, x.flip(0)).value < 1e-6
    with pytest.raises(UserError, match="at least 2 images"):
        sliced_wasserstein(x[:1], y)

"""The bootstrap and the infinitesimal jackknife: their errors are those of repeated experiments."""

import numpy as np
import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.estimate import (
    check_enough,
    check_features,
    infinitesimal_jackknife,
    repeated,
    standard_error,
)


def test_the_error_of_a_mean_is_the_textbooks():
    x = np.random.default_rng(0).standard_normal(400)
    error = standard_error(lambda counts: float(counts @ x) / 400, 400, replicates=400)
    assert error == pytest.approx(x.std() / 20, rel=0.12)  # 3 deviations of 400 replicates


def test_it_is_a_function_of_the_seed():
    def error(seed):
        return standard_error(lambda counts: float(counts[0]), 5, seed=seed)

    assert error(1) == error(1) != error(2)


def test_strata_are_resampled_apart():
    sizes, drawn = [3, 2, 5], []

    def kept(counts):
        drawn.append(counts)
        return 0.0

    standard_error(kept, sizes, replicates=200)
    assert all([c[:3].sum(), c[3:5].sum(), c[5:].sum()] == sizes for c in drawn)
    assert len({tuple(c) for c in drawn}) > 50
    with pytest.raises(ValueError, match="two replicates and two items"):
        standard_error(kept, [3, 1])


def test_the_jackknife_of_a_mean_is_the_textbooks():
    x = np.random.default_rng(0).standard_normal(400) + 7
    influence = x - x.mean()
    assert infinitesimal_jackknife(influence) == pytest.approx(x.std(ddof=1) / 20, rel=1e-12)
    sums = influence.reshape(200, 2).sum(1)
    assert infinitesimal_jackknife(sums, 400) == pytest.approx(x.std(ddof=1) / 20, rel=0.15)
    with pytest.raises(ValueError, match="two influences, not 1"):
        infinitesimal_jackknife(influence[:1])


def test_rows_are_repeated_as_drawn():
    x = torch.arange(6.0).view(3, 2)
    assert torch.equal(repeated(x, np.array([0, 2, 1])), x[[1, 1, 2]])


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two replicates and two items"):
        standard_error(float, 1)
    with pytest.raises(ValueError, match="of one d"):
        check_features(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(UserError, match="at least 2 images in each set, not 1"):
        check_features(torch.zeros(3, 2), torch.zeros(1, 2))
    check_features(torch.zeros(2, 2, dtype=torch.uint8))
    with pytest.raises(UserError, match="KID needs at least 4 samples, not 3; take more"):
        check_enough(3, 4, "KID", "samples")
    check_enough(4, 4)
    with pytest.raises(ValueError, match="not finite"):
        check_features(torch.full((2, 2), float("nan")))

"""The bootstrap: its error is that of repeated experiments."""

import numpy as np
import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.measured import checked_features, repeated, standard_error


def test_the_error_of_a_mean_is_the_textbooks():
    x = np.random.default_rng(0).standard_normal(400)
    error = standard_error(lambda counts: float(counts @ x) / 400, 400, replicates=400)
    assert error == pytest.approx(x.std() / 20, rel=0.12)  # 3 deviations of 400 replicates


def test_it_is_a_function_of_the_seed():
    def error(seed):
        return standard_error(lambda counts: float(counts[0]), 5, seed=seed)

    assert error(1) == error(1) != error(2)


def test_rows_are_repeated_as_drawn():
    x = torch.arange(6.0).view(3, 2)
    assert torch.equal(repeated(x, np.array([0, 2, 1])), x[[1, 1, 2]])


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="two replicates and two things"):
        standard_error(float, 1)
    with pytest.raises(ValueError, match="of one d"):
        checked_features(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(UserError, match="at least 2 images in each set, not 1"):
        checked_features(torch.zeros(3, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="not finite"):
        checked_features(torch.full((2, 2), float("nan")))

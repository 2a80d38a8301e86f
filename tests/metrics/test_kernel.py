"""KID against others' code, its definition, and a closed form."""

import numpy as np
import pytest
import torch

from cm_ray.errors import UserError
from cm_ray.metrics.kernel import kernel_distance, squared_mmd
from cm_ray.networks.vision import torchvision


def features(n, d=5, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_the_estimate_is_clean_fids():
    torchvision()
    from cleanfid.fid import kernel_distance as clean_fid_kernel_distance

    x, y = features(60).double(), features(60, seed=1, shift=0.3).double()
    expected = clean_fid_kernel_distance(x.numpy(), y.numpy(), num_subsets=1, max_subset_size=60)
    assert squared_mmd(x, y) == pytest.approx(expected, rel=1e-8)


def test_the_estimate_is_torchmetrics(image_metrics):
    x, y = features(60).double(), features(60, seed=1, shift=0.3).double()
    assert squared_mmd(x, y) == pytest.approx(float(image_metrics.kid.poly_mmd(x, y)), rel=1e-8)


def test_the_estimate_is_the_sum_over_pairs():
    x, y = features(7), features(9, seed=1, shift=0.5)

    def k(a, b):
        return float(torch.dot(a.double(), b.double()) / 5 + 1) ** 3

    within = sum(k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j) / (7 * 6)
    within += sum(k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j) / (9 * 8)
    between = sum(k(a, b) for a in x for b in y) / (7 * 9)
    assert squared_mmd(x, y) == pytest.approx(within - 2 * between, rel=1e-10)


def closed_form(shift):
    """Squared MMD of N(0, 1) and N(shift, 1) in one dimension: E k is a sum of products of moments."""
    moments = np.array([[1, 0, 1, 0], [1, shift, 1 + shift**2, shift**3 + 3 * shift]])
    binomial = np.array([1, 3, 3, 1])
    within_0, within_1 = (binomial * moments**2).sum(1)
    return within_0 + within_1 - 2 * (binomial * moments[0] * moments[1]).sum()


def test_it_finds_the_closed_form_and_its_error_covers_it():
    truth, covered = closed_form(0.5), 0
    for seed in range(20):
        measured = kernel_distance(
            features(1000, 1, seed=2 * seed), features(1000, 1, seed=2 * seed + 1, shift=0.5), block=50
        )
        covered += abs(measured.value - truth) < 2 * measured.error
    assert covered >= 16  # 95 % of 20 but for chance


def test_the_error_is_that_of_repeated_experiments():
    measured = [
        kernel_distance(features(400, seed=2 * seed), features(400, seed=2 * seed + 1, shift=0.3))
        for seed in range(40)
    ]
    deviation = np.std([each.value for each in measured], ddof=1)
    assert np.mean([each.error for each in measured]) == pytest.approx(deviation, rel=0.4)


def test_blocks_are_settings_and_unbiased():
    x, y = features(400), features(400, seed=1)
    measured = kernel_distance(x, y)
    assert measured.settings == {"block": 40, "block_seed": 0}
    assert abs(measured.value) < 3 * measured.error
    assert kernel_distance(x, y) == measured != kernel_distance(x, y, seed=1)


def test_too_few_vectors_are_refused():
    with pytest.raises(UserError, match="at least 40 images in each set, not 30"):
        kernel_distance(features(30), features(50), block=20)
    with pytest.raises(UserError, match="at least 4 images in each set, not 3"):
        kernel_distance(features(50), features(3))
    with pytest.raises(UserError, match="must have 2 or more vectors, not 1"):
        kernel_distance(features(50), features(50), block=1)
    assert kernel_distance(features(4), features(4, seed=1)).settings["block"] == 2

"""NCSNv2's techniques against brute force, and against the published settings on the real CIFAR-10."""

import io
import math

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from cm_ray.core.techniques import (
    langevin_step_size,
    langevin_variance,
    largest_distance,
    level_ratio,
    number_of_levels,
    overlap,
)
from cm_ray.errors import SettingError
from tests.core.gaussian import normals

D = 3 * 32 * 32


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_largest_distance_is_that_of_all_pairs(block):
    images = normals(0, 100, 1, 3, 3) * normals(1, 100, 1, 1, 1).abs()
    flat = images.flatten(1)
    brute = max(float((a - b).norm()) for a in flat for b in flat)
    assert largest_distance(images, block) == pytest.approx(brute, rel=1e-6)
    assert largest_distance((images * 20).byte(), block) == pytest.approx(
        float(
            torch.cdist(
                (images * 20).byte().flatten(1).double(), (images * 20).byte().flatten(1).double()
            ).max()
        )
    )


def test_most_pairs_of_usual_data_are_not_compared(monkeypatch):
    seen, cdist = [], torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b, **k: seen.append(len(a) * len(b)) or cdist(a, b, **k))
    images = normals(0, 2000, 1, 2, 2)
    images[::50] *= 5
    largest_distance(images, 20)
    assert sum(seen) < 2000**2 / 50
    with pytest.raises(ValueError, match="of two images"):
        largest_distance(images[:1])


def test_the_overlap_is_a_gaussian_integral():
    """Under N(sqrt(D), 1/2), the radius at level 1, the mass of three deviations around that at `ratio`."""
    for ratio in (1.01, 1.0376, 1.1):
        root, spread = math.sqrt(D), math.sqrt(0.5)
        law = stats.norm(root, spread)
        low, high = (ratio * (root + sign * 3 * spread) for sign in (-1, 1))
        assert overlap(ratio, D) == pytest.approx(law.cdf(high) - law.cdf(low), abs=1e-9)


def test_the_radius_of_noise_is_that_of_proposition_2():
    radius = torch.randn(4000, D, generator=torch.Generator().manual_seed(0)).norm(dim=1)
    assert float(radius.mean()) == pytest.approx(math.sqrt(D), abs=0.05)
    assert float(radius.std()) == pytest.approx(math.sqrt(0.5), rel=0.05)


def test_the_ratio_solves_technique_2():
    for dimensions in (64, D, 12288):
        assert overlap(level_ratio(dimensions), dimensions) == pytest.approx(0.5, abs=1e-9)
        assert overlap(level_ratio(dimensions, 0.3), dimensions) == pytest.approx(0.3, abs=1e-9)
    with pytest.raises(SettingError, match="probability must be in"):
        level_ratio(64, 1.0)


def test_the_number_of_levels_is_the_least():
    assert number_of_levels(100.0, 1.0, 10.0) == 3
    assert number_of_levels(100.0, 1.0, 9.99) == 4
    for ratio in (1.02, 1.1, 1.7):
        n = number_of_levels(50.0, 0.01, ratio)
        assert (50 / 0.01) ** (1 / (n - 1)) <= ratio < (50 / 0.01) ** (1 / (n - 2))


def test_the_variance_of_langevin_steps_is_that_of_the_recursion():
    """Data in a point: x is pulled to it by its share, and gets noise; variances by recursion."""
    for size, ratio, repeats in ((0.062, 1.0376, 5), (0.3, 1.5, 3), (0.01, 1.1, 100)):
        variance = ratio**2
        for _ in range(repeats):
            variance = (1 - size) ** 2 * variance + 2 * size
        assert langevin_variance(size, ratio, repeats) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize(("ratio", "repeats"), [(1.0376, 5), (1.0376, 1), (1.5, 5), (1.67, 100)])
def test_the_step_size_is_the_best_of_a_fine_grid(ratio, repeats):
    grid = np.linspace(1e-5, 0.9999, 50_000)
    best = grid[np.argmin([abs(langevin_variance(size, ratio, repeats) - 1) for size in grid])]
    assert langevin_step_size(ratio, repeats) == pytest.approx(best, abs=5e-5)


@pytest.mark.parametrize(
    ("largest", "count", "epsilon", "repeats"),
    [(50.0, 232, 6.2e-6, 5), (90.0, 500, 3.3e-6, 5)],
    ids=["cifar10", "celeba64"],
)
def test_published_step_sizes(largest, count, epsilon, repeats):
    """Song & Ermon 2020, table 3: epsilon of CIFAR-10 and of CelebA 64x64, for sigma_L = 0.01."""
    ratio = (largest / 0.01) ** (1 / (count - 1))
    assert langevin_step_size(ratio, repeats) * 0.01**2 == pytest.approx(epsilon, abs=0.05e-6)


def test_published_numbers_of_levels_have_a_larger_overlap_than_a_half():
    """The equation at 0.5 gives 220 levels for CIFAR-10; all published numbers are those of 0.567."""
    assert number_of_levels(50.0, 0.01, level_ratio(D)) == 220
    for largest, dimensions, count in ((50, D, 232), (90, 12288, 500), (140, 27648, 788)):
        assert overlap((largest / 0.01) ** (1 / (count - 1)), dimensions) == pytest.approx(0.567, abs=1e-3)


def cifar10_images(folder, files, count):
    """The first images of CIFAR-10, uint8 (n, 32, 32, 3)."""
    rows = [
        row
        for file in sorted(folder.glob("*.parquet"))[:files]
        for row in pq.read_table(file)["img"].to_pylist()
    ]
    pixels = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in rows[:count]]
    return torch.from_numpy(np.stack(pixels))


def test_the_largest_distance_of_a_thousand_images_of_cifar10(cifar10):
    images = cifar10_images(cifar10 / "train", 1, 1000)
    flat = images.flatten(1).double() / 255
    assert largest_distance(images, 100) / 255 == pytest.approx(
        float(torch.cdist(flat, flat).max()), rel=1e-6
    )
    assert largest_distance(images) / 255 == pytest.approx(45.63, abs=0.01)


@pytest.mark.slow
def test_the_largest_distance_of_cifar10_is_about_the_published_50(cifar10):
    images = cifar10_images(cifar10 / "train", None, 50_000)
    assert len(images) == 50_000
    assert largest_distance(images) / 255 == pytest.approx(53.41, abs=0.01)

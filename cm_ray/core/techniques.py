"""NCSNv2's techniques: noise levels and step sizes from the data, in closed form.  Song & Ermon 2020.

1: sigma_1 is the largest distance of two images. 2: neighbouring levels overlap by a given probability. 3:
the network is divided by sigma (column ve). 4: the Langevin step size follows from levels and steps. 5:
weights are averaged. Distances and levels are in the unit of the images that are given; a step size is the
ratio epsilon/sigma_L^2, which has none.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch

from cm_ray.errors import require

if TYPE_CHECKING:
    from torch import Tensor

OVERLAP = 0.5
"""The probability of technique 2 that the paper recommends."""


def largest_distance(images: Tensor, block: int = 1024) -> float:
    """Return the largest Euclidean distance of two images (n, ...), exactly: technique 1.

    Images are sorted by their distance r from the mean. Since |a - b| <= r_a + r_b, only blocks of images
    that lie far out are compared, and never all pairs of usual data. Raises ValueError on less than two
    images.
    """
    if len(images) < 2:
        raise ValueError("a largest distance is that of two images")
    parts = [images[start : start + block] for start in range(0, len(images), block)]
    mean = (torch.stack([part.flatten(1).double().sum(0) for part in parts]).sum(0) / len(images)).float()
    radii = torch.cat([(part.flatten(1).float() - mean).norm(dim=1) for part in parts])
    radius, order = radii.sort(descending=True)
    starts = range(0, len(images), block)
    pairs = itertools.combinations_with_replacement(starts, 2)
    best = 0.0
    for i, j in sorted(pairs, key=lambda pair: -float(radius[pair[0]] + radius[pair[1]])):
        if float(radius[i] + radius[j]) <= best:
            break
        a, b = (images[order[k : k + block]].flatten(1).float() - mean for k in (i, j))
        best = max(best, _farthest(a, b))
    return best


def overlap(ratio: float, dimensions: int) -> float:
    """Return the probability of technique 2, by which samples at a level lie where those of the next do.

    Phi(sqrt(2D) (g - 1) + 3g) - Phi(sqrt(2D) (g - 1) - 3g) for the ratio g of two levels (proposition 2): the
    mass, under N of the lower level, of three standard deviations around the higher one's sphere.
    """
    shift = math.sqrt(2 * dimensions) * (ratio - 1)
    return _phi(shift + 3 * ratio) - _phi(shift - 3 * ratio)


def level_ratio(dimensions: int, probability: float = OVERLAP) -> float:
    """Return the ratio of noise levels at which `overlap` has a probability: technique 2, by bisection."""
    require(0 < probability < 0.99, "probability", f"must be in (0, 0.99), not {probability}")
    low, high = 1.0, 2.0
    while overlap(high, dimensions) > probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if overlap(middle, dimensions) > probability else (low, middle)
    return high


def number_of_levels(largest: float, smallest: float, ratio: float) -> int:
    """Return the least number L of levels from `largest` to `smallest` whose ratio is at most `ratio`."""
    return 1 + math.ceil(math.log(largest / smallest) / math.log(ratio) - 1e-9)


def langevin_variance(step_size: float, ratio: float, repeats: int) -> float:
    """Return the variance of the samples of a level over sigma^2, after the steps at it: technique 4, Eq. 11.

    step_size: epsilon/sigma_L^2. ratio: of the level before, whose samples are exact. Steps contract by 1 -
    step_size and have noise 2 step_size (proposition 3, data in a point).
    """
    kept = (1 - step_size) ** 2
    limit = 2 / (2 - step_size)  # 2 step_size/(1 - kept)
    return kept**repeats * (ratio**2 - limit) + limit


def langevin_step_size(ratio: float, repeats: int) -> float:
    """Return the step size epsilon/sigma_L^2 at which `langevin_variance` is nearest to 1: technique 4.

    The variance is always above 1, falls at first and then grows; its least value is found by golden section.
    """
    golden = (math.sqrt(5) - 1) / 2
    low, high = 0.0, 1.0
    for _ in range(80):
        a, b = high - golden * (high - low), low + golden * (high - low)
        left = langevin_variance(a, ratio, repeats) < langevin_variance(b, ratio, repeats)
        low, high = (low, b) if left else (a, high)
    return (low + high) / 2


def _farthest(a: Tensor, b: Tensor) -> float:
    """Return the largest distance of an image of one block to one of another."""
    place = int(torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist").argmax())
    return float((a[place // len(b)] - b[place % len(b)]).double().norm())


def _phi(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))

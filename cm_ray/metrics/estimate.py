"""A number and its standard error, by the bootstrap or the infinitesimal jackknife.

Efron & Tibshirani 1993, An Introduction to the Bootstrap, Ch. 6 and Ch. 21.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics.statistics import Array

Counts = NDArray[np.int64]
"""The number of times that each of n items was drawn (n,)."""
MIN_VECTORS = 2
"""Number of vectors that any score needs of a set: a single vector has no variance."""
REPLICATES = 50
"""Number of bootstrap replicates; with 50, the standard error is right to about 10 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its standard error and the settings that it depends on."""

    value: float
    """The number, computed from all samples."""
    error: float
    """Standard error of the value, in the same unit, from the randomness of the samples alone."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that change the meaning of the value; they are part of a score's key."""


def standard_error(
    statistic: Callable[[Counts], float],
    count: int | Sequence[int],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> float:
    """Return the bootstrap standard error of `statistic`: its standard deviation over resamples.

    statistic: function of the number of times that each of the items (n,) was drawn.  count: n, or the sizes
    of strata that lie one after another; each stratum is resampled to its own size. Raises ValueError on
    fewer than two replicates or fewer than two items in a stratum.
    """
    strata = [count] if isinstance(count, int) else list(count)
    if min(replicates, *strata) < 2:
        raise ValueError(f"a bootstrap needs two replicates and two items, not {replicates} and {count}")
    rng = np.random.default_rng(derived_seed(seed, "bootstrap"))

    def drawn() -> Counts:
        return np.concatenate([rng.multinomial(size, np.full(size, 1 / size)) for size in strata])

    return float(np.std([statistic(drawn()) for _ in range(replicates)], ddof=1))


def infinitesimal_jackknife(influence: Array, n: int | None = None) -> float:
    """Return the standard error of a statistic from the influences of the samples, which sum to 0.

    influence: one per sample (n,), the derivative of the statistic with respect to the weight of the sample;
    the error is their standard deviation over sqrt(n). Or their sums over independent groups of samples (g,),
    with the number of samples n; the relative uncertainty of the error is then 1 / sqrt(2 g - 2).

    Efron & Tibshirani 1993, Ch. 21, with g / (g - 1) for the one degree of freedom. As any jackknife it is
    biased upwards (Efron & Stein 1981), by up to sqrt(2) where the statistic is at its minimum in the
    population and the derivatives are only noise. Raises ValueError on fewer than two influences.
    """
    g = len(influence)
    if g < 2:
        raise ValueError(f"a jackknife needs two influences, not {g}")
    return float(np.sqrt(g / (g - 1) * np.square(influence).sum()) / (n or g))


def repeated(features: Tensor, counts: Counts) -> Tensor:
    """Return each row of `features` (n, d) `counts` (n,) times."""
    return features.repeat_interleave(torch.from_numpy(counts).to(features.device), dim=0)


def check_features(*sets: Tensor, least: int = MIN_VECTORS) -> None:
    """Check sets of feature vectors (n, d) that are to be compared.

    Raises UserError on fewer than `least` vectors; ValueError on other shapes, different lengths, or a
    feature that is not finite.
    """
    for x in sets:
        if x.ndim != 2 or x.shape[1] != sets[0].shape[1]:
            shapes = " and ".join(str(tuple(each.shape)) for each in sets)
            raise ValueError(f"features must be (n, d) of one d, not {shapes}")
        check_enough(len(x), least)
        if x.is_floating_point() and not bool(x.isfinite().all()):
            raise ValueError("a feature is not finite")


def check_enough(n: int, least: int, score: str = "This score", what: str = "images in each set") -> None:
    """Raise UserError, with the name of the score and what is missing, when `n` is below `least`."""
    if n < least:
        raise UserError(f"{score} needs at least {least} {what}, not {n}; take more.")

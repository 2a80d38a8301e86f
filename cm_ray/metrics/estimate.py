"""A measured number and its standard error: by the bootstrap or by the infinitesimal jackknife.

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
MIN_VECTORS = 2
"""Vectors that any score needs of a set: one has no spread."""
REPLICATES = 50
"""Bootstrap replicates; the error is then itself right to about 10 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its uncertainty and what else decides it."""

    value: float
    """The number itself, of all samples."""
    error: float
    """Its standard error, in the same unit: what chance in the samples alone makes of it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the measure that change what the number means; part of a score's key."""


def standard_error(
    statistic: Callable[[Counts], float],
    count: int | Sequence[int],
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> float:
    """Return the standard deviation of `statistic` over resamples of `count` things with replacement.

    statistic: of how often each of the things (n,) was drawn.  count: n, or the sizes of the strata that
    the things come in, one after the other: as many are drawn within each. Raises ValueError on fewer than
    two replicates or things in a stratum, of which there is no deviation.
    """
    strata = [count] if isinstance(count, int) else list(count)
    if min(replicates, *strata) < 2:
        raise ValueError(f"a bootstrap needs two replicates and two things, not {replicates} and {count}")
    rng = np.random.default_rng(derived_seed(seed, "bootstrap"))

    def drawn() -> Counts:
        return np.concatenate([rng.multinomial(size, np.full(size, 1 / size)) for size in strata])

    return float(np.std([statistic(drawn()) for _ in range(replicates)], ddof=1))


def infinitesimal_jackknife(influence: Array, n: int | None = None) -> float:
    """Return a statistic's standard error from its influences, which add up to 0 over all of the n samples.

    influence: of each sample (n,), the derivative of the statistic when the sample's share of the whole
    grows: the error is their standard deviation over sqrt(n).  Or their sums over independent groups of
    samples (g,), which must say n; the error is then itself uncertain by a share of 1 / sqrt(2 g - 2).

    Efron & Tibshirani 1993, Ch. 21, with g / (g - 1) for the one degree of freedom. As any jackknife it
    errs upwards (Efron & Stein 1981): by up to sqrt(2), where the statistic is at its minimum in the
    population, so that the derivatives are but noise. Raises ValueError on fewer than two influences.
    """
    g = len(influence)
    if g < 2:
        raise ValueError(f"a jackknife needs two influences, not {g}")
    return float(np.sqrt(g / (g - 1) * np.square(influence).sum()) / (n or g))


def repeated(features: Tensor, counts: Counts) -> Tensor:
    """Return each row of `features` (n, d) as often as `counts` (n,) says."""
    return features.repeat_interleave(torch.from_numpy(counts).to(features.device), dim=0)


def check_features(*sets: Tensor, least: int = MIN_VECTORS) -> None:
    """Check sets of feature vectors (n, d) that are to be compared.

    Raises UserError on fewer than `least` vectors, ValueError on other shapes, different lengths, or a
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
    """Raise UserError, naming the score and what there is too little of, when `n` is below `least`."""
    if n < least:
        raise UserError(f"{score} needs at least {least} {what}, not {n}; take more.")

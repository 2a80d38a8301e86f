"""A measured number and its bootstrap standard error (Efron & Tibshirani 1993, Ch. 6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError

Counts = NDArray[np.int64]
REPLICATES = 50
"""Bootstrap replicates; the error is then itself right to about 10 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number with its uncertainty and what else decides it."""

    value: float
    """The number itself, of all samples."""
    error: float
    """Its bootstrap standard error, in the same unit."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the measure that change what the number means; part of a score's key."""


def standard_error(
    statistic: Callable[[Counts], float], count: int, *, replicates: int = REPLICATES, seed: int = 0
) -> float:
    """Return the standard deviation of `statistic` over resamples of `count` things with replacement.

    statistic: of how often each of the things (count,) was drawn.  Raises ValueError on fewer than two
    replicates or things, of which there is no deviation.
    """
    if min(replicates, count) < 2:
        raise ValueError(f"a bootstrap needs two replicates and two things, not {replicates} and {count}")
    rng = np.random.default_rng(derived_seed(seed, "bootstrap"))
    drawn = (rng.multinomial(count, np.full(count, 1 / count)) for _ in range(replicates))
    return float(np.std([statistic(counts) for counts in drawn], ddof=1))


def repeated(features: Tensor, counts: Counts) -> Tensor:
    """Return each row of `features` (n, d) as often as `counts` (n,) says."""
    return features.repeat_interleave(torch.from_numpy(counts).to(features.device), dim=0)


def checked_features(*sets: Tensor, least: int = 2) -> None:
    """Check sets of feature vectors (n, d) that are to be compared.

    Raises UserError on fewer than `least` vectors, ValueError on other shapes, different lengths, or a
    feature that is not finite.
    """
    for x in sets:
        if x.ndim != 2 or x.shape[1] != sets[0].shape[1]:
            shapes = " and ".join(str(tuple(each.shape)) for each in sets)
            raise ValueError(f"features must be (n, d) of one d, not {shapes}")
        if len(x) < least:
            raise UserError(f"This score needs at least {least} images in each set, not {len(x)}; take more.")
        if not bool(x.isfinite().all()):
            raise ValueError("a feature is not finite")

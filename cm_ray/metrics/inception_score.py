"""The Inception score (Salimans et al. 2016, Sec. 4): high for clear images of all classes."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.metrics.estimate import REPLICATES, Counts, Estimate, check_features, standard_error

SPLITS = 10
"""Number of splits of Salimans et al."""


def inception_score(
    logits: Tensor, *, splits: int = SPLITS, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """Return exp(E KL(p(y|x) | p(y))) of logits (n, classes), averaged over `splits`; higher is better.

    Samples are shuffled by `seed` and divided into splits of equal size, or nearly so; the bootstrap
    resamples inside of each. The score lies in [1, classes] and grows with the size of a split, so splits and
    n belong to its key. Raises UserError on fewer than two samples per split.
    """
    check_features(logits, least=min_samples(splits))
    rng = np.random.default_rng(derived_seed(seed, "inception score"))
    order = torch.from_numpy(rng.permutation(len(logits))).to(logits.device)
    log_p = logits.double()[order].log_softmax(1)
    p = log_p.exp()
    negentropy = (p * log_p).nan_to_num(0.0).sum(1)
    bounds = np.linspace(0, len(logits), splits + 1).astype(int)
    slices = [slice(low, high) for low, high in itertools.pairwise(bounds)]

    def statistic(counts: Counts) -> float:
        weights = torch.from_numpy(counts).to(p)
        return float(np.mean([_score(p[split], negentropy[split], weights[split]) for split in slices]))

    return Estimate(
        value=statistic(np.ones(len(logits), np.int64)),
        error=standard_error(statistic, np.diff(bounds).tolist(), replicates=replicates, seed=seed),
        settings={"splits": splits, "split_seed": seed},
    )


def min_samples(splits: int = SPLITS) -> int:
    """Return the number of samples that the score needs: two per split."""
    return 2 * splits


def _score(p: Tensor, negentropy: Tensor, weights: Tensor) -> float:
    """Return the score of one split whose samples have `weights` (n,).

    The mean of KL(p_i | q) is the mean of sum(p_i log p_i) minus sum(q log q), as q is the mean of the p_i.
    """
    share = weights / weights.sum()
    marginal = share @ p
    return float((share @ negentropy - torch.special.xlogy(marginal, marginal).sum()).exp())

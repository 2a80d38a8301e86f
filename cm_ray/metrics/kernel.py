"""The kernel distance KID: the squared maximum mean discrepancy (MMD) of features (Bińkowski et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics.estimate import REPLICATES, Counts, Estimate, check_features, standard_error

_BLOCK = 1000  # subset size of Bińkowski et al.


def kernel_distance(
    samples: Tensor, reference: Tensor, *, block: int = 0, replicates: int = REPLICATES, seed: int = 0
) -> Estimate:
    """Return the KID of features (n, d) and (m, d), with the standard error of a bootstrap over blocks.

    The unbiased estimate is averaged over disjoint random blocks of `block` vectors of each set (Zaremba et
    al. 2013). This is unbiased as well and has a cost linear in n. Vectors beyond the last full block, and
    those that the larger set has more, are left out. block: 0 stands for 1,000, or a tenth of the smaller set
    when that is less. The value may be negative, as it is unbiased. Raises UserError when there are fewer
    than two blocks.
    """
    if block and block < 2:
        raise UserError(f"A block of KID must have 2 or more vectors, not {block}; give a larger one.")
    check_features(samples, reference, least=min_vectors(block))
    reference = reference.to(samples.device)
    smaller = min(len(samples), len(reference))
    block = block or min(_BLOCK, max(2, smaller // 10))
    blocks = smaller // block
    rng = np.random.default_rng(derived_seed(seed, "KID"))
    order_x, order_y = (torch.from_numpy(rng.permutation(len(x))).to(x.device) for x in (samples, reference))
    values = np.array(
        [
            squared_mmd(samples[order_x[low : low + block]], reference[order_y[low : low + block]])
            for low in range(0, blocks * block, block)
        ]
    )

    def mean(counts: Counts) -> float:
        return float(counts @ values) / blocks

    return Estimate(
        value=float(values.mean()),
        error=standard_error(mean, blocks, replicates=replicates, seed=seed),
        settings={"block": block, "block_seed": seed},
    )


def min_vectors(block: int = 0) -> int:
    """Return the number of vectors that each set needs: two blocks of `block` vectors, 2 at least."""
    return 2 * max(block, 2)


def squared_mmd(x: Tensor, y: Tensor) -> float:
    """Return the unbiased squared MMD of features (n, d) and (m, d).  Gretton et al. 2012, Lemma 6."""
    n, m = len(x), len(y)
    within_x, within_y = cubic_kernel(x, x), cubic_kernel(y, y)
    return float(
        (within_x.sum() - within_x.trace()) / (n * (n - 1))
        + (within_y.sum() - within_y.trace()) / (m * (m - 1))
        - 2 * cubic_kernel(x, y).mean()
    )


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Return k(x, y) = (x · y / d + 1)^3, (n, m), in float64.  Bińkowski et al. 2018, Sec. 4."""
    return (x.double() @ y.double().T / x.shape[1] + 1) ** 3

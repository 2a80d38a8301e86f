"""Improved precision and recall (Kynkäänniemi et al. 2019): are samples real, and all that is real there?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cm_ray.core.noise import derived_seed
from cm_ray.errors import UserError
from cm_ray.metrics.estimate import REPLICATES, Counts, Estimate, check_features, standard_error

_CELLS = 1 << 26  # of a matrix of distances at a time: 256 MiB in float32
_GROUPS, _SPLITS = 10, 2  # of the samples, for the error of the recall

NEIGHBOUR = 3
"""Kynkäänniemi et al.'s k: balls reach to the third neighbour."""


def precision_and_recall(
    samples: Tensor, reference: Tensor, *, k: int = NEIGHBOUR, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """Return precision and recall of features (n, d) against (m, d), in [0, 1]; higher is better.

    A set's manifold is the union of the balls around its vectors that reach to their k-th neighbour (Eq. 1).
    Precision is the share of samples on the reference's manifold, recall the share of the reference on the
    samples' (Eq. 2). The reference counts as fixed for the errors: that of the precision is a bootstrap over
    samples, that of the recall see `_recall_error`.

    Distances are never held for all pairs: beyond the features it takes about 1 GiB whatever n and m, in
    the features' own precision. Raises UserError when a set has fewer than 2 (k + 1) vectors.
    """
    if k < 1:
        raise UserError(f"Precision and recall need a neighbour: k must be at least 1, not {k}.")
    check_features(samples, reference, least=min_vectors(k))
    reference = reference.to(samples)
    centre = reference.mean(0)  # distances keep more digits near the origin
    x, y = samples - centre, reference - centre
    real = on_manifold(x, y, neighbour_distances(y, k)).double().cpu().numpy()

    def share(counts: Counts) -> float:
        return float(counts @ real) / len(real)

    precision = standard_error(share, len(real), replicates=replicates, seed=seed)
    return (
        Estimate(value=float(real.mean()), error=precision, settings={"k": k}),
        Estimate(value=_recall(x, y, k), error=_recall_error(x, y, k, seed), settings={"k": k}),
    )


def min_vectors(k: int = NEIGHBOUR) -> int:
    """Return how many vectors each set needs: two groups with a k-th neighbour, see `_recall_error`."""
    return 2 * (k + 1)


def neighbour_distances(x: Tensor, k: int) -> Tensor:
    """Return the squared distance (n,) of each vector of x (n, d) to its k-th nearest other vector."""
    radii, rows = [], _rows(len(x))
    for start in range(0, len(x), rows):
        part = x[start : start + rows]
        distances = _squared_distances(part, x)
        here = torch.arange(len(part), device=x.device)
        distances[here, here + start] = -1  # itself comes first, whatever is rounded
        radii.append(distances.topk(k + 1, dim=1, largest=False).values[:, k].clamp(min=0))
    return torch.cat(radii)


def on_manifold(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Tell which of the points (n, d) lie in a ball around one of the centres (m, d): bool (n,).

    radii: squared radii of the balls (m,), as `neighbour_distances` returns them.
    """
    parts = points.split(_rows(len(centres)))
    return torch.cat([(_squared_distances(part, centres) <= radii).any(1) for part in parts])


def _recall(x: Tensor, y: Tensor, k: int) -> float:
    """Return the share of y (m, d) on the manifold of x (n, d)."""
    return float(on_manifold(y, x, neighbour_distances(x, k)).double().mean())


def _recall_error(x: Tensor, y: Tensor, k: int, seed: int) -> float:
    """Return the standard error of the recall of the samples x (n, d): from recalls of disjoint parts.

    A bootstrap will not do: a sample drawn twice is its own neighbour, and its ball vanishes. A tenth of
    the samples makes a manifold of its own, with larger balls; over sqrt(10), the deviation of ten such
    recalls was within a factor 1.5 of that of repeated experiments.
    """
    groups = min(_GROUPS, len(x) // (k + 1))
    rng, variances = np.random.default_rng(derived_seed(seed, "recall")), []
    for _ in range(_SPLITS):
        order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
        recalls = [_recall(x[part], y, k) for part in order.tensor_split(groups)]
        variances.append(np.var(recalls, ddof=1) / groups)
    return float(np.sqrt(np.mean(variances)))


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2, (n, m), by a product of matrices, which large sets need."""
    lengths = torch.addmm(y.square().sum(1), x, y.T, beta=1, alpha=-2)
    return lengths.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)


def _rows(columns: int) -> int:
    return max(1, _CELLS // columns)

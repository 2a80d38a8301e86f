"""Improved precision and recall (Kynkäänniemi et al. 2019): are samples real, and all that is real there?"""

from __future__ import annotations

import torch
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.metrics.measured import REPLICATES, Counts, Measured, checked_features, standard_error

_CELLS = 1 << 26  # of a matrix of distances at a time: 256 MiB in float32


def precision_and_recall(
    samples: Tensor, reference: Tensor, *, k: int = 3, replicates: int = REPLICATES, seed: int = 0
) -> tuple[Measured, Measured]:
    """Return precision and recall of features (n, d) against (m, d), in [0, 1]; higher is better.

    A set's manifold is the union of the balls around its vectors that reach to their k-th neighbour (Eq. 1).
    Precision is the share of samples on the reference's manifold, recall the share of the reference on the
    samples' (Eq. 2). The errors are of these shares with both manifolds given.

    Distances are never held for all pairs: beyond the features it takes about 1 GiB whatever n and m, in
    the features' own precision. Raises UserError when a set has not more than k vectors.
    """
    if k < 1:
        raise UserError(f"Precision and recall need a neighbour: k must be at least 1, not {k}.")
    checked_features(samples, reference, least=k + 1)
    reference = reference.to(samples)
    centre = reference.mean(0)  # distances keep more digits near the origin
    x, y = samples - centre, reference - centre
    radii_x, radii_y = neighbour_distances(x, k), neighbour_distances(y, k)
    of_samples, of_reference = on_manifolds(x, y, radii_x, radii_y)
    return _share(of_samples, k, replicates, seed), _share(of_reference, k, replicates, seed)


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


def on_manifolds(x: Tensor, y: Tensor, radii_x: Tensor, radii_y: Tensor) -> tuple[Tensor, Tensor]:
    """Tell which of x (n, d) lie in a ball around a y (m, d), and which of y in one around an x: bool.

    radii_x (n,), radii_y (m,): squared radii of the balls, as `neighbour_distances` returns them.
    """
    rows = _rows(len(y))
    of_x, of_y = [], torch.zeros(len(y), dtype=torch.bool, device=x.device)
    for part, radii in zip(x.split(rows), radii_x.split(rows), strict=True):
        distances = _squared_distances(part, y)
        of_x.append((distances <= radii_y).any(1))
        of_y |= (distances <= radii[:, None]).any(0)
    return torch.cat(of_x), of_y


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2, (n, m), by a product of matrices, which large sets need."""
    lengths = torch.addmm(y.square().sum(1), x, y.T, beta=1, alpha=-2)
    return lengths.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)


def _rows(columns: int) -> int:
    return max(1, _CELLS // columns)


def _share(inside: Tensor, k: int, replicates: int, seed: int) -> Measured:
    flags = inside.double().cpu().numpy()

    def share(counts: Counts) -> float:
        return float(counts @ flags) / len(flags)

    error = standard_error(share, len(flags), replicates=replicates, seed=seed)
    return Measured(value=float(flags.mean()), error=error, settings={"k": k})

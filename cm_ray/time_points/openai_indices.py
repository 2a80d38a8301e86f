"""Convert OpenAI's time points, such as ``--ts 0,22,39 --boundaries 40``, from and to `Points`.

OpenAI's indices descend in time and include both ends: index 0 is t_max and steps - 1 is t_min. Indices in
`Points` ascend, i = steps - 1 - index, and leave the ends out.
"""

from __future__ import annotations

import itertools

from cm_ray.core.times import karras_times, turned
from cm_ray.errors import UserError, setting
from cm_ray.time_points.greedy import Points, checked_points


def read_ts(ts: str, steps: int) -> Points:
    """Return the points of OpenAI's ``--ts``, a text such as ``0,22,39``, on a grid of `steps` boundaries.

    Raises UserError, which says what is wrong, when the indices do not ascend from 0 to steps - 1.
    """
    where = f"{setting('ts')} {ts} on a grid of {steps}"
    if steps < 2:
        raise UserError(f"A grid needs at least 2 steps, not {steps}: say {setting('boundaries')} 40.")
    try:
        indices = [int(index) for index in ts.split(",")]
    except ValueError as error:
        raise UserError(
            f"{where}: indices are whole numbers with commas between, such as 0,22,39."
        ) from error
    if outside := [index for index in indices if not 0 <= index < steps]:
        raise UserError(f"{where}: {outside[0]} is out of range, 0 to {steps - 1}.")
    if any(low >= high for low, high in itertools.pairwise(indices)):
        raise UserError(f"{where}: the indices must go up, from 0 for t_max to {steps - 1} for t_min.")
    if len(indices) < 2 or (indices[0], indices[-1]) != (0, steps - 1):
        raise UserError(f"{where}: the indices include both ends, 0 and {steps - 1}.")
    return tuple(steps - 1 - index for index in reversed(indices[1:-1]))


def write_ts(points: Points, steps: int) -> str:
    """Return the points as OpenAI's ``--ts``. Raises ValueError when they are not on a grid of `steps`."""
    ladder = (0, *checked_points(points, steps), steps - 1)
    return ",".join(str(steps - 1 - i) for i in reversed(ladder))


def taus(
    points: Points, size: int, *, t_min: float = 0.002, t_max: float = 80.0, rho: float = 7.0
) -> tuple[float, ...]:
    """Return the times of points on the Karras grid of `size` boundaries, descending as in Algorithm 1.

    Raises ValueError when they are not on the grid.
    """
    times = karras_times(size, t_min=t_min, t_max=t_max, rho=rho)
    return turned(float(times[i]) for i in checked_points(points, size))

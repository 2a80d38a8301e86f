"""From noise to images in a few evaluations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

from cm_ray.core.types import Denoise, Images


def multistep(
    denoise: Denoise,
    noise: Callable[[int], Images],
    taus: Sequence[float] = (),
    *,
    t_min: float = 0.002,
    t_max: float = 80.0,
    clip: bool = True,
) -> Iterator[Images]:
    """Yield the images after every evaluation; the last are the sample.  Song et al. 2023, Algorithm 1.

    noise(i): standard normal (b, c, h, w) for evaluation i, 0 .. len(taus).
    taus: descending time points inside (t_min, t_max); t_max comes first by itself, so no taus is
    one-step generation. clip: clamp every estimate to [-1, 1].
    Raises ValueError when the taus do not descend inside the open interval.
    """
    ladder = (t_max, *taus, t_min)
    if any(high <= low for high, low in itertools.pairwise(ladder)):
        raise ValueError(f"taus must descend between t_max {t_max} and t_min {t_min}, got {list(taus)}")

    def estimate(x_t: Images, t: float) -> Images:
        x = denoise(x_t, x_t.new_full((len(x_t),), t))
        return x.clamp(-1.0, 1.0) if clip else x

    x = estimate(t_max * noise(0), t_max)
    yield x
    for index, tau in enumerate(taus, 1):
        x = estimate(x + math.sqrt(tau**2 - t_min**2) * noise(index), tau)
        yield x

"""From the raw network F to the consistency function f."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from cm_ray.core.types import Images, Times, check_same_shape, per_sample


class Network(Protocol):
    """F_theta: scaled noisy images (b, c, h, w) and network times (b,) to a residual (b, c, h, w)."""

    def __call__(self, x: Images, time: Tensor, /) -> Images:
        """Return the residual."""
        ...


@dataclass(frozen=True)
class ConsistencyPrecondition:
    """f(x_t, t) = c_skip(t) x_t + c_out(t) F(c_in(t) x_t, time_scale · ln(t)/4), with f(x, t_min) = x.

    Song et al. 2023, Eq. 5 and appendix C. c_skip and c_out subtract t_min; c_in does not. The denominator
    of c_out is sqrt(t^2 + sigma_data^2), as in OpenAI's code and published weights; some presentations
    write (t - t_min)^2 there. The network sees ln(t)/4 (EDM and the JAX code, time_scale 1) or a thousand
    times that (OpenAI's PyTorch code).
    """

    sigma_data: float = 0.5
    t_min: float = 0.002
    time_scale: float = 1000.0

    def c_skip(self, t: Times) -> Times:
        """Return sigma_data^2 / ((t - t_min)^2 + sigma_data^2), (b,); exactly 1 at t_min."""
        return self.sigma_data**2 / ((t - self.t_min) ** 2 + self.sigma_data**2)

    def c_out(self, t: Times) -> Times:
        """Return sigma_data (t - t_min) / sqrt(t^2 + sigma_data^2), (b,); exactly 0 at t_min."""
        return self.sigma_data * (t - self.t_min) / (t**2 + self.sigma_data**2).sqrt()

    def c_in(self, t: Times) -> Times:
        """Return 1 / sqrt(t^2 + sigma_data^2), (b,): the network sees unit variance."""
        return (t**2 + self.sigma_data**2).rsqrt()

    def network_time(self, t: Times) -> Times:
        """Return time_scale · ln(t)/4, (b,)."""
        return self.time_scale * 0.25 * t.log()

    def __call__(self, network: Network, x_t: Images, t: Times) -> Images:
        """Return f(x_t, t), float32 whatever the precision of the network (b, c, h, w).

        Raises ValueError when the network changes the shape.
        """
        residual = network(per_sample(self.c_in(t), x_t) * x_t, self.network_time(t))
        check_same_shape(residual, x_t)
        return per_sample(self.c_skip(t), x_t) * x_t + per_sample(self.c_out(t), x_t) * residual.float()

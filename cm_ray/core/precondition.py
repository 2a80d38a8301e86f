"""Preconditioning: the scalings that make a denoiser D or a consistency function f from a raw network F.

D(x_t, t) = c_skip(t) x_t + c_out(t) F(c_in(t) x_t, network_time(t)) for the columns of table 1 of Karras
et al. 2022 (EDM, VP, VE). A consistency function is a column with the boundary condition f(x, t_min) = x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from cm_ray.core.types import Images, Times, check_same_shape, per_sample
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor


class Network(Protocol):
    """F_theta, which maps scaled images (b, c, h, w) and network times (b,) to a residual (b, c, h, w)."""

    def __call__(self, x: Images, time: Tensor, /) -> Images:
        """Return the residual."""
        ...


class Scalings(Protocol):
    """The four scalings of a preconditioning, each (b,) to (b,)."""

    def c_skip(self, t: Times, /) -> Times:
        """Return the factor of x_t in the output."""
        ...

    def c_out(self, t: Times, /) -> Times:
        """Return the factor of the network's output."""
        ...

    def c_in(self, t: Times, /) -> Times:
        """Return the factor of the network's input."""
        ...

    def network_time(self, t: Times, /) -> Times:
        """Return the time input of the network."""
        ...


class Column(Scalings, Protocol):
    """A column of table 1 of Karras et al. 2022: the scalings of a denoiser."""


def precondition(scalings: Scalings, network: Network, x_t: Images, t: Times) -> Images:
    """Return c_skip x_t + c_out F(c_in x_t, network_time), of x_t's shape (b, c, h, w).

    The result is float32 for any precision of F; double precision stays double. Raises ValueError when the
    network changes the shape.
    """
    residual = network(per_sample(scalings.c_in(t), x_t) * x_t, scalings.network_time(t))
    check_same_shape(residual, x_t)
    skipped, output = (per_sample(scale, x_t) for scale in (scalings.c_skip(t), scalings.c_out(t)))
    return skipped * x_t + output * residual.to(x_t.dtype)


@dataclass(frozen=True)
class _UnitVariance:
    """The scalings that give the network inputs of unit variance; subclasses add its output and its time."""

    sigma_data: float = 0.5
    """Standard deviation of the data in [-1, 1]."""
    time_scale: float = 1.0
    """Factor of the network's time."""

    def __post_init__(self) -> None:
        """Raise SettingError on a sigma_data or a time scale that is not positive."""
        require(self.sigma_data > 0, "sigma_data", f"must be positive, not {self.sigma_data}")
        require(self.time_scale > 0, "time_scale", f"must be positive, not {self.time_scale}")

    def c_skip(self, t: Times, /) -> Times:
        """Return sigma_data^2 / (t^2 + sigma_data^2), computed so that it is exactly 1 at t = 0."""
        return 1.0 / (1.0 + (t / self.sigma_data) ** 2)

    def c_in(self, t: Times, /) -> Times:
        """Return 1 / sqrt(t^2 + sigma_data^2), which gives inputs of unit variance."""
        return (t**2 + self.sigma_data**2).rsqrt()


@choice(Column, "edm")
@dataclass(frozen=True)
class EDM(_UnitVariance):
    """The column "Ours" of table 1: inputs and targets of unit variance, least amplification of errors."""

    time_scale: float = 1000.0
    """The network's time is time_scale · ln(t)/4: 1000 in OpenAI's code, 1 in EDM's and the JAX code."""

    def c_out(self, t: Times, /) -> Times:
        """Return t sigma_data / sqrt(t^2 + sigma_data^2)."""
        return self.sigma_data * t / (t**2 + self.sigma_data**2).sqrt()

    def network_time(self, t: Times, /) -> Times:
        """Return time_scale · ln(t)/4."""
        return self.time_scale * 0.25 * t.log()


@choice(Column, "trigflow")
@dataclass(frozen=True)
class TrigFlow(_UnitVariance):
    """TrigFlow: the scalings of column edm on a circle, with an angle as the network's time.

    Lu & Song 2024: with the angle u = arctan(t/sigma_data), D = cos^2 u x_t - sigma_data sin u F(cos u
    x_t/sigma_data, u). The angle has a bounded derivative at all noise levels, unlike ln t, so that the
    network can be differentiated in time.
    """

    time_scale: float = 1.0
    """The network's time is time_scale · u."""

    def c_out(self, t: Times, /) -> Times:
        """Return -sigma_data sin u."""
        return -self.sigma_data * t / (t**2 + self.sigma_data**2).sqrt()

    def network_time(self, t: Times, /) -> Times:
        """Return time_scale · u."""
        return self.time_scale * torch.atan2(t, torch.full_like(t, self.sigma_data))


@choice(Column, "linear")
@dataclass(frozen=True)
class Linear:
    """Linear interpolation of data and noise, with the velocity as the network's output (flow matching).

    Lipman et al. 2023; Geng et al. 2025 (MeanFlow). With the time u = t/(1 + t) in [0, 1) the network sees
    x_t/(1 + t) = (1 - u) x + u z, and D is that minus u times its output.
    """

    time_scale: float = 1.0
    """The network's time is time_scale · u."""

    def __post_init__(self) -> None:
        """Raise SettingError on a time scale that is not positive."""
        require(self.time_scale > 0, "time_scale", f"must be positive, not {self.time_scale}")

    def c_skip(self, t: Times, /) -> Times:
        """Return 1 / (1 + t)."""
        return 1 / (1 + t)

    def c_out(self, t: Times, /) -> Times:
        """Return -u."""
        return -t / (1 + t)

    def c_in(self, t: Times, /) -> Times:
        """Return 1 / (1 + t)."""
        return 1 / (1 + t)

    def network_time(self, t: Times, /) -> Times:
        """Return time_scale · u."""
        return self.time_scale * (t / (1 + t))


@choice(Column, "vp")
@dataclass(frozen=True)
class VP:
    """The column VP of table 1: the network predicts the noise, and its time is that of the VP SDE."""

    beta_d: float = 19.9
    """Growth of the SDE's beta."""
    beta_min: float = 0.1
    """The SDE's beta at time 0."""
    steps: int = 1000
    """Number of discrete times of the network."""

    def c_skip(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def c_out(self, t: Times, /) -> Times:
        """Return -t."""
        return -t

    def c_in(self, t: Times, /) -> Times:
        """Return 1 / sqrt(t^2 + 1)."""
        return (t**2 + 1).rsqrt()

    def network_time(self, t: Times, /) -> Times:
        """Return (steps - 1) sigma^-1(t), where sigma(u) = sqrt(exp(beta_d u^2/2 + beta_min u) - 1)."""
        root = (self.beta_min**2 + 2 * self.beta_d * torch.log1p(t**2)).sqrt()
        return (self.steps - 1) * (root - self.beta_min) / self.beta_d


@choice(Column, "ve")
@dataclass(frozen=True)
class VE:
    """The column VE of table 1: the input is not scaled, and the network predicts the negative noise."""

    def c_skip(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def c_out(self, t: Times, /) -> Times:
        """Return t."""
        return t

    def c_in(self, t: Times, /) -> Times:
        """Return 1."""
        return torch.ones_like(t)

    def network_time(self, t: Times, /) -> Times:
        """Return ln(t/2)."""
        return t.log() - math.log(2.0)


@dataclass(frozen=True)
class Boundary:
    """A column with the exact boundary condition f(x, t_min) = x.  Song et al. 2023, Eq. 5 and appendix C.

    c_skip is the column's at t - t_min, c_out is the column's at t, times (t - t_min)/t, and c_in is
    unchanged. For EDM's column these are sigma_data^2/((t - t_min)^2 + sigma_data^2) and sigma_data (t -
    t_min)/sqrt(t^2 + sigma_data^2), as in OpenAI's code and published weights; some publications have (t
    - t_min)^2 under the root. The network has the same meaning as in the column, so that the weights of a
    teacher are a good start.
    """

    column: Scalings
    t_min: float = 0.002

    def c_skip(self, t: Times, /) -> Times:
        """Return the column's c_skip(t - t_min); exactly 1 at t_min."""
        return self.column.c_skip(t - self.t_min)

    def c_out(self, t: Times, /) -> Times:
        """Return the column's c_out(t) (t - t_min)/t; exactly 0 at t_min."""
        return self.column.c_out(t) * ((t - self.t_min) / t)

    def c_in(self, t: Times, /) -> Times:
        """Return the column's c_in(t)."""
        return self.column.c_in(t)

    def network_time(self, t: Times, /) -> Times:
        """Return the column's network time."""
        return self.column.network_time(t)


@dataclass(frozen=True)
class Piecewise:
    """The piecewise boundary condition: f(x, t) = x at t_min, F elsewhere.  Song et al. 2023, Eq. 4.

    Input and time are scaled as in the column; the output is not scaled.
    """

    column: Scalings
    t_min: float = 0.002

    def c_skip(self, t: Times, /) -> Times:
        """Return 1 at t_min, 0 elsewhere."""
        return (t <= self.t_min).to(t.dtype)

    def c_out(self, t: Times, /) -> Times:
        """Return 0 at t_min, 1 elsewhere."""
        return (t > self.t_min).to(t.dtype)

    def c_in(self, t: Times, /) -> Times:
        """Return the column's c_in(t)."""
        return self.column.c_in(t)

    def network_time(self, t: Times, /) -> Times:
        """Return the column's network time."""
        return self.column.network_time(t)

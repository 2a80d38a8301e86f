"""Dormand and Prince's adaptive solver of order 5(4), in which every sample of a batch has its own steps.

A solver that measures the error of a whole batch gives a sample another result in another batch. This one
takes, for each sample, the steps that SciPy's RK45 takes for it alone, but evaluates the samples together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from cm_ray.core.types import Times
from cm_ray.errors import UserError, require

if TYPE_CHECKING:
    from torch import Tensor

_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_FIFTH = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_ERROR = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
_SAFETY, _LEAST_FACTOR, _LARGEST_FACTOR = 0.9, 0.2, 10.0
_MOST_STEPS = 10_000


class Velocity(Protocol):
    """The right-hand side of an ODE, for some samples of a batch."""

    def __call__(self, state: Tensor, time: Times, rows: Tensor, /) -> Tensor:
        """Return dy/dt (k, n) of the states (k, n) at their times (k,); rows: their places in the batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """The error that a step of an adaptive solver may have: atol + rtol times the size of the state."""

    rtol: float = 1e-5
    """Relative tolerance."""
    atol: float = 1e-5
    """Absolute tolerance."""

    def __post_init__(self) -> None:
        """Raise SettingError on a tolerance that is out of range."""
        require(1e-13 <= self.rtol < 1, "rtol", f"must be in [1e-13, 1), not {self.rtol}")
        require(0 < self.atol < 1, "atol", f"must be in (0, 1), not {self.atol}")


class Solution(NamedTuple):
    """The end of a trajectory, for every sample."""

    state: Tensor
    """States at the end (b, n)."""
    evaluations: Tensor
    """Number of evaluations of the velocity, int64 (b,)."""


def integrate(
    velocity: Velocity, state: Tensor, start: float, end: float, tolerance: Tolerance | None = None
) -> Solution:
    """Solve dy/dt = velocity(y, t) from `start` to `end`, in either direction.

    state: y at `start` (b, n), best in float64. Dormand & Prince 1980; the control of the steps is that of
    Hairer, Norsett & Wanner, section II.4, as in SciPy. Raises UserError when a state is not finite, or the
    tolerance cannot be met.
    """
    tolerance = tolerance or Tolerance()
    attempt = _Attempts(velocity, state, start, end, tolerance)
    for _ in range(_MOST_STEPS):
        if not len(attempt.rows):
            return Solution(attempt.state, attempt.evaluations)
        attempt.step()
    raise UserError(f"The ODE is not solved after {_MOST_STEPS:,} steps; a larger rtol needs fewer.")


class _Attempts:
    """Samples on their way; those in `rows` have not arrived."""

    def __init__(
        self, velocity: Velocity, state: Tensor, start: float, end: float, tolerance: Tolerance
    ) -> None:
        self.velocity, self.tolerance = velocity, tolerance
        self.end, self.sign = end, 1.0 if end >= start else -1.0
        self.state = state.clone()
        self.evaluations = torch.zeros(len(state), dtype=torch.int64, device=state.device)
        self.rows = torch.arange(len(state) if start != end else 0, device=state.device)
        self.y = state[self.rows]
        self.t = state.new_full((len(self.rows),), start)
        if len(self.rows):
            self.slope = self._evaluate(self.y, self.t)
            self.size = self._first_size(abs(end - start))
            self.rejected = torch.zeros_like(self.t, dtype=torch.bool)

    def step(self) -> None:
        """Try a step of every sample; those whose error is too large stay where they are."""
        left = (self.end - self.t).abs()
        last = self.size >= left
        size = torch.where(last, left, self.size)
        h = self.sign * size
        if bool((~last & (size <= 10 * torch.finfo(size.dtype).eps * self.t.abs())).any()):
            raise UserError("The ODE is too stiff for its tolerance: take a larger rtol.")
        y, slope, error = self._stages(h)
        scale = self.tolerance.atol + self.tolerance.rtol * torch.maximum(self.y.abs(), y.abs())
        norm = _rms(error / scale)
        if not bool(norm.isfinite().all()):
            raise UserError("The ODE led to values that are not finite.")
        good = norm < 1
        factor = _SAFETY * norm.clamp(min=1e-30) ** -0.2
        grown = factor.clamp(max=_LARGEST_FACTOR)
        grown = torch.where(self.rejected, grown.clamp(max=1.0), grown)
        self.size = size * torch.where(good, grown, factor.clamp(min=_LEAST_FACTOR))
        self.t = torch.where(good, torch.where(last, self.end, self.t + h), self.t)
        self.y = torch.where(good[:, None], y, self.y)
        self.slope = torch.where(good[:, None], slope, self.slope)
        self.rejected = ~good
        self._keep(~(good & last))

    def _stages(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the states after steps h (k,), the slopes there, and the estimated errors, each (k, n)."""
        slopes, h_ = [self.slope], h[:, None]
        for node, weights in zip(_NODES[1:], _STAGES[1:], strict=True):
            y = self.y + h_ * _combined(weights, slopes)
            slopes.append(self._evaluate(y, self.t + node * h))
        y = self.y + h_ * _combined(_FIFTH, slopes)
        slopes.append(self._evaluate(y, self.t + h))
        return y, slopes[-1], h_ * _combined(_ERROR, slopes)

    def _first_size(self, interval: float) -> Tensor:
        """Return the sizes of the first steps (k,).  Hairer, Norsett & Wanner, section II.4."""
        scale = self.tolerance.atol + self.tolerance.rtol * self.y.abs()
        d0, d1 = _rms(self.y / scale), _rms(self.slope / scale)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1.clamp(min=1e-300))
        h0 = h0.clamp(max=interval)
        ahead = self.y + self.sign * h0[:, None] * self.slope
        d2 = _rms((self._evaluate(ahead, self.t + self.sign * h0) - self.slope) / scale) / h0
        largest = torch.maximum(d1, d2)
        h1 = torch.where(largest <= 1e-15, (1e-3 * h0).clamp(min=1e-6), (0.01 / largest) ** 0.2)
        return torch.minimum(100 * h0, h1).clamp(max=interval)

    def _evaluate(self, y: Tensor, t: Tensor) -> Tensor:
        self.evaluations[self.rows] += 1
        return self.velocity(y, t, self.rows)

    def _keep(self, going: Tensor) -> None:
        """Store the samples that have arrived, and go on with the others."""
        if bool(going.all()):
            return
        self.state[self.rows[~going]] = self.y[~going]
        names = ("rows", "y", "t", "slope", "size", "rejected")
        self.rows, self.y, self.t, self.slope, self.size, self.rejected = (
            getattr(self, name)[going] for name in names
        )


def _combined(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = total + weight * slope
    return total


def _rms(values: Tensor) -> Tensor:
    return values.square().mean(1).sqrt()

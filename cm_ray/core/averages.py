"""Kinds of averages of the student's weights over the training steps.

The weights of an average after k steps are a mixture of the weights theta_1 .. theta_k of these steps and of
those that it began with, theta_0. A kind says with which decay an average takes each step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cm_ray.errors import require
from cm_ray.settings.choices import choice

LONGEST = 12**-0.5
"""The relative standard deviation of the uniform average, gamma = 0: the largest length of an average."""


class Averages(Protocol):
    """Averages of the student's weights, of which the first one is sampled from."""

    @property
    def lengths(self) -> tuple[float, ...]:
        """Length of each average, sigma_rel of a power function; 0 for averages of other kinds."""
        ...

    def decays_at(self, step: int, /) -> tuple[float, ...]:
        """Return the decay of each average at a step, counted from 0 since the averages began."""
        ...

    def initial_shares(self, steps: int, /) -> tuple[float, ...]:
        """Return the share of theta_0 in each average after `steps` steps."""
        ...


@choice(Averages, "constant")
@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantEMA:
    """Exponential averages with constant decays, as in the paper: mu^k of theta_0 is left after k steps."""

    decays: tuple[float, ...] = (0.9999,)
    """Decay of each average; the first average is the one to sample from."""

    def __post_init__(self) -> None:
        """Raise SettingError without decays, or on one outside of [0, 1)."""
        _check_decays(self.decays)

    @property
    def lengths(self) -> tuple[float, ...]:
        """0 for each average."""
        return (0.0,) * len(self.decays)

    def decays_at(self, step: int, /) -> tuple[float, ...]:
        """Return the decays."""
        return self.decays

    def initial_shares(self, steps: int, /) -> tuple[float, ...]:
        """Return decay^steps."""
        return tuple(decay**steps for decay in self.decays)


@choice(Averages, "warm-up")
@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpEMA:
    """Exponential averages whose half-lives are at most a share of the steps so far.

    EDM's ramp-up: 2^(-1 / min(half-life, ramp · k)) is the decay of step k (Karras et al. 2022, its code's
    ema_rampup_ratio). The first step replaces theta_0.
    """

    decays: tuple[float, ...] = (0.9999,)
    """Decay of each average when it is warm; the first average is the one to sample from."""
    ramp: float = 0.05
    """Half-life over the number of steps so far, at most."""

    def __post_init__(self) -> None:
        """Raise SettingError without decays, or on numbers that are out of range."""
        _check_decays(self.decays)
        require(self.ramp > 0, "ramp", f"must be positive, not {self.ramp}")

    @property
    def lengths(self) -> tuple[float, ...]:
        """0 for each average."""
        return (0.0,) * len(self.decays)

    def decays_at(self, step: int, /) -> tuple[float, ...]:
        """Return the decays of a step."""
        ramp = 2 ** (-1 / (self.ramp * step)) if step else 0.0
        return tuple(min(decay, ramp) for decay in self.decays)

    def initial_shares(self, steps: int, /) -> tuple[float, ...]:
        """Return 0 after the first step."""
        return (float(steps == 0),) * len(self.decays)


@choice(Averages, "power")
@dataclass(frozen=True, slots=True, kw_only=True)
class PowerEMA:
    """Power-function averages, of which any length can be reconstructed after the training.

    Step t of k has a weight in proportion to t^gamma (Karras et al. 2024, EDM2, section 3). The length of an
    average is sigma_rel, the standard deviation of t/k under these weights, so that it grows with the
    training; theta_0 has no weight.
    """

    lengths: tuple[float, ...] = (0.05, 0.1)
    """sigma_rel of each average that is tracked, in (0, 0.2887]; the first one is sampled from while
    training."""
    snapshots: int = 16
    """Snapshots of all averages that are kept, at equal distances over the training, in float32; 0 keeps
    none, and only tracked lengths are left."""
    candidates: tuple[float, ...] = (0.02, 0.03, 0.05, 0.07, 0.1, 0.14, 0.2)
    """Lengths that are scored at the end of the training, of which the best is exported."""
    samples: int = 0
    """Samples for the score of each candidate; 0: as many as for the final scores, at most 10,000."""

    def __post_init__(self) -> None:
        """Raise SettingError on lengths that are missing, repeated or out of range, and negative numbers."""
        require(bool(self.lengths), "lengths", "needs at least one length, such as 0.05")
        require(len(set(self.lengths)) == len(self.lengths), "lengths", "must differ from each other")
        for name in ("lengths", "candidates"):
            for length in getattr(self, name):
                require(0 < length <= LONGEST, name, f"must be in (0, {LONGEST:.4f}], not {length}")
        require(self.snapshots >= 0, "snapshots", f"must not be negative, but is {self.snapshots}")
        few = self.samples == 0 or self.samples >= 2
        require(few, "samples", "must be at least 2 for a score, or 0 for as many as the final scores have")

    def decays_at(self, step: int, /) -> tuple[float, ...]:
        """Return (1 - 1/k)^(gamma + 1) of the step with number k = step + 1.  EDM2, Eq. 127."""
        return tuple((step / (step + 1)) ** (gamma_of(length) + 1) for length in self.lengths)

    def initial_shares(self, steps: int, /) -> tuple[float, ...]:
        """Return 0 after the first step."""
        return (float(steps == 0),) * len(self.lengths)

    def snapshot_steps(self, start: int, stop: int) -> tuple[int, ...]:
        """Return the numbers of finished steps after which a snapshot is kept, ascending; `stop` is the last.

        start, stop: numbers of finished steps when the averages begin, and at the end.
        """
        count, steps = self.snapshots, stop - start
        return tuple(sorted({start - (-i * steps // count) for i in range(1, count + 1)})) if count else ()

    def snapshot_bytes(self, parameters: int, steps: int) -> int:
        """Return the size of all snapshots of a network with so many parameters, in bytes."""
        return len(self.snapshot_steps(0, steps)) * len(self.lengths) * 4 * parameters


def gamma_of(length: float) -> float:
    """Return the exponent gamma >= 0 of the power function with the relative standard deviation `length`.

    It is the largest root of g³ + 7g² + (16 - length⁻²) g + 12 - length⁻² (EDM2, Eq. 126), by the
    trigonometric formula for three real roots. Raises ValueError on a length outside of (0, 12^-1/2].
    """
    if not 0 < length <= LONGEST:
        raise ValueError(f"the length of an average must be in (0, {LONGEST:.4f}], not {length}")
    inverse = length**-2
    p = 16 - inverse - 49 / 3  # of the cubic in g + 7/3 without a square
    q = 2 * (7 / 3) ** 3 - 7 / 3 * (16 - inverse) + 12 - inverse
    radius = math.sqrt(-p / 3)
    angle = math.acos(max(-1.0, min(1.0, -q / (2 * radius**3))))
    root = 2 * radius * math.cos(angle / 3) - 7 / 3
    for _ in range(2):  # Newton's steps take away the rounding of the formula
        value = ((root + 7) * root + 16 - inverse) * root + 12 - inverse
        root -= value / ((3 * root + 14) * root + 16 - inverse)
    return max(root, 0.0)


def length_of(gamma: float) -> float:
    """Return the relative standard deviation of the power function t^gamma.  EDM2, Eq. 123."""
    return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def _check_decays(decays: tuple[float, ...]) -> None:
    require(bool(decays), "decays", "needs at least one decay")
    inside = all(0 <= decay < 1 for decay in decays)
    require(inside, "decays", f"must be in [0, 1), not {decays}")

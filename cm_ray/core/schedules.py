"""Schedules of training: the number of scales N(k), the target's decay mu(k), the learning rate.

Steps k count from 0, and K is the total number of steps. Schedules are functions of both and have no state.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from typing import Protocol

from cm_ray.errors import require
from cm_ray.settings.choices import choice


class Scales(Protocol):
    """N(k): the number of boundaries of the time grid at a training step."""

    def __call__(self, step: int, total_steps: int, /) -> int:
        """Return N(step), at least 2."""
        ...

    @property
    def start(self) -> int:
        """The s0 of mu(k) = exp(s0 ln mu0 / N(k))."""
        ...


@choice(Scales, "constant")
@dataclass(frozen=True, slots=True)
class Constant:
    """N(k) = n, as in consistency distillation."""

    n: int = 18
    """Boundaries of the grid."""

    def __post_init__(self) -> None:
        """Raise SettingError on a grid without an interval."""
        require(self.n >= 2, "n", f"must be at least 2, not {self.n}: a grid has two boundaries")

    def __call__(self, step: int, total_steps: int, /) -> int:
        """Return n."""
        return self.n

    @property
    def start(self) -> int:
        """n: the decay of the target is mu0 throughout."""
        return self.n


@choice(Scales, "adaptive")
@dataclass(frozen=True, slots=True)
class Adaptive:
    """N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1: from s0 to s1 + 1 boundaries.

    Song et al. 2023, section 5 and appendix C. It stops growing at k = K, the total number of steps.
    """

    s0: int = 2
    """Boundaries at the start."""
    s1: int = 150
    """Intervals at the end."""

    def __post_init__(self) -> None:
        """Raise SettingError unless 2 <= s0 <= s1."""
        require(2 <= self.s0 <= self.s1, "s0", f"{self.s0} must be in [2, s1 = {self.s1}]")

    def __call__(self, step: int, total_steps: int, /) -> int:
        """Return N(step). Integer arithmetic decides the ceiling, so that no rounding can move it."""
        k, total = min(step, total_steps), total_steps
        squared = k * ((self.s1 + 1) ** 2 - self.s0**2) + self.s0**2 * total  # times K, exactly
        root = math.isqrt(squared // total)  # floor of the real root
        return root if root * root * total == squared else root + 1

    @property
    def start(self) -> int:
        """s0."""
        return self.s0


@choice(Scales, "doubling")
@dataclass(frozen=True, slots=True)
class Doubling:
    """N(k) = min(s0 2^floor(k/K'), s1) + 1 with K' = floor(K / (log2 floor(s1/s0) + 1)).

    Song & Dhariwal 2023 (iCT), Eq. 19 and table 1.
    """

    s0: int = 10
    """Intervals at the start."""
    s1: int = 1280
    """Intervals at the end."""

    def __post_init__(self) -> None:
        """Raise SettingError unless 1 <= s0 <= s1."""
        require(1 <= self.s0 <= self.s1, "s0", f"{self.s0} must be in [1, s1 = {self.s1}]")

    def __call__(self, step: int, total_steps: int, /) -> int:
        """Return N(step)."""
        period = max(1, int(total_steps / (math.log2(self.s1 // self.s0) + 1)))
        return int(min(self.s0 * 2 ** min(step // period, 62), self.s1)) + 1

    @property
    def start(self) -> int:
        """s0."""
        return self.s0


@dataclass(frozen=True, slots=True)
class Halving:
    """N(k) of progressive distillation: s1 + 1 boundaries, then s1/2 + 1, down to s0 + 1.

    Salimans & Ho 2022, Algorithm 2. The student of a round has as many sampling steps as its grid has
    intervals, and its teacher twice as many. The rounds for two steps and for one step are twice as long
    as the others, as in section 4 of the paper.
    """

    s0: int = 1
    """Sampling steps of the last round's student."""
    s1: int = 512
    """Sampling steps of the first round's student."""

    def __post_init__(self) -> None:
        """Raise SettingError when halving does not lead from s1 to s0."""
        require(1 <= self.s0 <= self.s1, "s0", f"{self.s0} must be in [1, s1 = {self.s1}]")
        ratio, rest = divmod(self.s1, self.s0)
        halves = rest == 0 and ratio & (ratio - 1) == 0
        require(halves, "s1", f"{self.s1} must be s0 = {self.s0} times a power of two: it is halved")

    @property
    def start(self) -> int:
        """s0."""
        return self.s0

    @property
    def intervals(self) -> list[int]:
        """The student's sampling steps in every round, s1 .. s0."""
        return [self.s1 >> i for i in range((self.s1 // self.s0).bit_length())]

    def starts(self, total_steps: int) -> list[int]:
        """Return the training step at which every round begins, and `total_steps`."""
        shares = [2 if intervals <= 2 else 1 for intervals in self.intervals]
        ends = [0, *itertools.accumulate(shares)]
        return [total_steps * end // ends[-1] for end in ends]

    def round(self, step: int, total_steps: int) -> int:
        """Return the index of the round that a step belongs to; the last one's beyond the end."""
        return min(bisect.bisect_right(self.starts(total_steps), step), len(self.intervals)) - 1

    def __call__(self, step: int, total_steps: int, /) -> int:
        """Return N(step), one more than the student's sampling steps."""
        return self.intervals[self.round(step, total_steps)] + 1


class TargetDecay(Protocol):
    """mu(k), the decay of the target network's moving average; with 0, the target is the student."""

    def __call__(self, step: int, total_steps: int, scales: Scales | None, /) -> float:
        """Return mu(step) in [0, 1)."""
        ...


@choice(TargetDecay, "constant")
@dataclass(frozen=True, slots=True)
class ConstantDecay:
    """mu(k) = mu, as in consistency distillation."""

    mu: float = 0.0
    """Decay; 0 is the target of iCT, the student itself without gradient."""

    def __post_init__(self) -> None:
        """Raise SettingError on a decay outside of [0, 1)."""
        require(0 <= self.mu < 1, "mu", f"{self.mu} must be in [0, 1)")

    def __call__(self, step: int, total_steps: int, scales: Scales | None, /) -> float:
        """Return mu."""
        return self.mu


@choice(TargetDecay, "adaptive")
@dataclass(frozen=True, slots=True)
class AdaptiveDecay:
    """mu(k) = exp(s0 ln mu0 / N(k)), a function of the grid's N(k).  Song et al. 2023, section 5.

    N counts boundaries, as in the paper: mu(0) = mu0 for N(0) = s0. OpenAI's code divides by the N - 1
    intervals instead, so that it starts at mu0^2 (0.9025 for 0.95).
    """

    mu0: float = 0.9
    """Decay of the target network at the start."""

    def __post_init__(self) -> None:
        """Raise SettingError on a decay outside of (0, 1)."""
        require(0 < self.mu0 < 1, "mu0", f"{self.mu0} must be in (0, 1)")

    def __call__(self, step: int, total_steps: int, scales: Scales | None, /) -> float:
        """Return mu(step). Raises ValueError without N(k)."""
        if scales is None:
            raise ValueError("an adaptive decay follows N(k), and these times have none")
        return math.exp(scales.start * math.log(self.mu0) / scales(step, total_steps))


@dataclass(frozen=True)
class LearningRate:
    """A constant rate after a linear warm-up, with or without a linear decay to zero.

    inverse_sqrt_after: t_ref > 0 divides it by sqrt(max(k/t_ref, 1)), k being the steps so far (Karras et al.
    2024, Eq. 67). starts: the first step of each round (of progressive distillation; otherwise 0), and the
    last step. Each round has its own warm-up and decay, as in Salimans & Ho 2022.
    """

    base: float
    warmup_steps: int
    decays: bool
    starts: tuple[int, ...]
    inverse_sqrt_after: int = 0

    def __call__(self, step: int, /) -> float:
        """Return the learning rate of a step, positive within the training."""
        index = min(max(bisect.bisect_right(self.starts, step), 1), len(self.starts) - 1)
        start, end = self.starts[index - 1 : index + 1]
        warm = min(1.0, (step - start + 1) / (self.warmup_steps + 1))
        left = (end - step) / (end - start) if self.decays else 1.0
        late = max((step - start) / self.inverse_sqrt_after, 1.0) if self.inverse_sqrt_after else 1.0
        return self.base * warm * max(left, 0.0) / math.sqrt(late)

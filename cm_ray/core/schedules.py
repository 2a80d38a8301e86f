"""What changes while training: the numbers of scales N(k), the target decays mu(k), the learning rate.

Steps k count from 0 and the curricula are functions of the step alone, so that nothing of them is state.
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from typing import Protocol


class Scales(Protocol):
    """N(k): how many boundaries the time grid has at a step."""

    def __call__(self, step: int, /) -> int:
        """Return N(step), at least 2."""
        ...


@dataclass(frozen=True)
class ConstantScales:
    """N(k) = n, as in consistency distillation."""

    n: int

    def __call__(self, step: int, /) -> int:
        """Return n."""
        return self.n


@dataclass(frozen=True)
class AdaptiveScales:
    """N(k) = ceil(sqrt(k/K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1: from s0 to s1 + 1 boundaries.

    Song et al. 2023, section 5 and appendix C. It stops growing at k = K (`total_steps`).
    """

    s0: int
    s1: int
    total_steps: int

    def __call__(self, step: int, /) -> int:
        """Return N(step). Integer arithmetic decides the ceiling, so that no rounding can move it."""
        k, total = min(step, self.total_steps), self.total_steps
        squared = k * ((self.s1 + 1) ** 2 - self.s0**2) + self.s0**2 * total  # times K, exactly
        root = math.isqrt(squared // total)  # floor of the real root
        return root if root * root * total == squared else root + 1


@dataclass(frozen=True)
class DoublingScales:
    """N(k) = min(s0 2^floor(k/K'), s1) + 1 with K' = floor(K / (log2 floor(s1/s0) + 1)).

    Song & Dhariwal 2023 (iCT), Eq. 19 and table 1.
    """

    s0: int
    s1: int
    total_steps: int

    def __call__(self, step: int, /) -> int:
        """Return N(step)."""
        period = max(1, int(self.total_steps / (math.log2(self.s1 // self.s0) + 1)))
        return int(min(self.s0 * 2 ** min(step // period, 62), self.s1)) + 1


@dataclass(frozen=True)
class HalvingScales:
    """N(k) of progressive distillation: s1 + 1 boundaries, then s1/2 + 1, down to s0 + 1.

    Salimans & Ho 2022, Algorithm 2. The student of a round takes as many steps as its grid has intervals,
    its teacher twice as many. The rounds to two steps and to one last twice as long as the others, as in
    section 4 there. Raises ValueError when s1 is not s0 times a power of two.
    """

    s0: int
    s1: int
    total_steps: int

    def __post_init__(self) -> None:
        """Check that halving leads from s1 to s0."""
        ratio = self.s1 // self.s0
        if self.s1 % self.s0 or ratio & (ratio - 1):
            raise ValueError(f"s1 = {self.s1} must be s0 = {self.s0} times a power of two")

    @property
    def intervals(self) -> list[int]:
        """Return the student's sampling steps in every round, s1 .. s0."""
        return [self.s1 >> i for i in range((self.s1 // self.s0).bit_length())]

    @property
    def starts(self) -> list[int]:
        """Return the training step at which every round begins, and `total_steps`."""
        shares = [2 if intervals <= 2 else 1 for intervals in self.intervals]
        ends = [0, *itertools.accumulate(shares)]
        return [self.total_steps * end // ends[-1] for end in ends]

    def round(self, step: int) -> int:
        """Return the index of the round that a step belongs to; the last one's beyond the end."""
        return min(bisect.bisect_right(self.starts, step), len(self.intervals)) - 1

    def __call__(self, step: int, /) -> int:
        """Return N(step), one more than the student's sampling steps."""
        return self.intervals[self.round(step)] + 1


class TargetDecay(Protocol):
    """mu(k): how much of the old target network is kept at a step; 0 makes the target the student."""

    def __call__(self, step: int, /) -> float:
        """Return mu(step) in [0, 1)."""
        ...


@dataclass(frozen=True)
class ConstantDecay:
    """mu(k) = mu, as in consistency distillation; mu = 0 is the stop-gradient target of iCT."""

    mu: float

    def __call__(self, step: int, /) -> float:
        """Return mu."""
        return self.mu


@dataclass(frozen=True)
class AdaptiveDecay:
    """mu(k) = exp(s0 ln mu0 / N(k)).  Song et al. 2023, section 5.

    With the paper's N, which counts boundaries: mu(0) = mu0 for N(0) = s0. OpenAI's code divides by
    N - 1 intervals instead, and so begins at mu0^2 (.9025 for .95).
    """

    mu0: float
    s0: int
    scales: Scales

    def __call__(self, step: int, /) -> float:
        """Return mu(step)."""
        return math.exp(self.s0 * math.log(self.mu0) / self.scales(step))


@dataclass(frozen=True)
class LearningRate:
    """A constant rate, after a linear warm-up, with or without a linear decay to zero.

    starts: steps at which training begins anew (the rounds of progressive distillation) and the last
    step; the decay ends with every round, as in Salimans & Ho 2022, and the warm-up begins with it.
    """

    base: float
    warmup_steps: int
    decays: bool
    starts: tuple[int, ...]

    def __call__(self, step: int, /) -> float:
        """Return the learning rate of a step, positive within the training."""
        index = min(max(bisect.bisect_right(self.starts, step), 1), len(self.starts) - 1)
        start, end = self.starts[index - 1 : index + 1]
        warm = min(1.0, (step - start + 1) / (self.warmup_steps + 1))
        left = (end - step) / (end - start) if self.decays else 1.0
        return self.base * warm * max(left, 0.0)

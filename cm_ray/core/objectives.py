"""What the student is asked to return: the methods differ in this alone.

Every method minimises weight · d(student(x_t, t), aim) over its own aim, which carries no gradient:

=====================================  =======================================================
denoising (training of a teacher)      the clean image
consistency training, iCT, ECT         target(x + s · noise, s)
consistency distillation               target(solver(teacher, x_t, t, s), s)
progressive distillation               the denoised image whose Euler step equals two of the teacher's
=====================================  =======================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cm_ray.core.pairs import distillation_pair, perturb
from cm_ray.core.solvers import Solver, euler_step
from cm_ray.core.types import Denoise, Images, Times, check_same_shape, per_sample


@dataclass(frozen=True)
class Draw:
    """What is drawn for a training step; x_t = x + t · noise."""

    x: Images
    noise: Images
    x_t: Images
    t: Times
    s: Times


class Objective(Protocol):
    """A method of training."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return what student(x_t, t) should be (b, c, h, w). Called without gradient."""
        ...


@dataclass(frozen=True)
class Denoising:
    """The clean image: the student becomes a denoiser, a teacher.  Karras et al. 2022, Eq. 2."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return x."""
        return draw.x


@dataclass(frozen=True)
class ConsistencyTraining:
    """The target's answer at s on the same noise, no teacher.  Song et al. 2023, Algorithm 3."""

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return target(x + s · noise, s)."""
        return target(perturb(draw.x, draw.noise, draw.s), draw.s)


@dataclass(frozen=True)
class ConsistencyDistillation:
    """The target's answer where the teacher's ODE leads from x_t.  Song et al. 2023, Algorithm 2."""

    solver: Solver

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return target(x_s, s), with one solver step x_s from x_t."""
        _, x_s = distillation_pair(teacher, self.solver, draw.x_t, draw.t, draw.s)
        return target(x_s, draw.s)


@dataclass(frozen=True)
class ProgressiveDistillation:
    """Two steps of the teacher in one.  Salimans & Ho 2022, Algorithm 2, with sigma(t) = t and alpha = 1.

    The step in the middle halves the interval on the Karras curve, so that the teacher's grid is the one
    with twice as many intervals.
    """

    rho: float = 7.0

    def middle(self, t: Times, s: Times) -> Times:
        """Return the time between t and s (b,)."""
        power = 1 / self.rho
        return (0.5 * (t.double() ** power + s.double() ** power)).pow(self.rho).to(t.dtype)

    def aim(self, draw: Draw, target: Denoise, teacher: Denoise) -> Images:
        """Return the image whose Euler step from x_t arrives where the teacher's two arrive."""
        middle = self.middle(draw.t, draw.s)
        x_middle = euler_step(teacher, draw.x_t, draw.t, middle)
        x_s = euler_step(teacher, x_middle, middle, draw.s)
        return euler_to_denoised(draw.x_t, draw.t, x_s, draw.s)


def euler_to_denoised(x_t: Images, t: Times, x_s: Images, s: Times) -> Images:
    """Return D such that x_s is Euler's step from x_t: the inverse of `euler_step` (b, c, h, w)."""
    check_same_shape(x_t, x_s)
    return x_t - per_sample(t / (s - t), x_t) * (x_s - x_t)

"""The noise levels and the preconditioning of a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cm_ray.core.precondition import EDM, Boundary, Column, Piecewise, Scalings
from cm_ray.core.times import NoiseLevels

BoundaryCondition = Literal["skip", "piecewise", "zero", "two-times", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion(NoiseLevels):
    """The noise levels, the scalings and the boundary condition of a model: all of it but the network."""

    column: Column = field(default_factory=EDM)
    """The scalings of the network's input, output and time."""
    boundary: BoundaryCondition = "skip"
    """Boundary condition f(x, t_min) = x of a consistency model, by skip connections or piecewise; "zero" for
    f(x, 0) = x, which every column has by itself; "two-times" for a function of two times, a denoiser at s =
    t and a consistency function, of boundary "zero", at s = 0; "none" for a denoiser."""
    guidance: tuple[float, ...] = ()
    """The least and the greatest guidance scale that the network takes as an input; empty: it takes none."""

    @classmethod
    def of(
        cls,
        levels: NoiseLevels,
        column: Column,
        boundary: BoundaryCondition,
        guidance: tuple[float, ...] = (),
    ) -> Diffusion:
        """Return noise levels together with a preconditioning."""
        ends = {"t_min": levels.t_min, "t_max": levels.t_max, "rho": levels.rho}
        return cls(column=column, boundary=boundary, guidance=guidance, **ends)

    @property
    def denoiser(self) -> bool:
        """True for a diffusion model, which has no boundary condition."""
        return self.boundary == "none"

    @property
    def two_times(self) -> bool:
        """True for a function of two times; see `cm_ray.core.two_times`."""
        return self.boundary == "two-times"

    @property
    def scalings(self) -> Scalings:
        """The column, with the boundary condition of a consistency function if there is one."""
        if self.boundary in ("none", "zero", "two-times"):
            return self.column
        kind = Boundary if self.boundary == "skip" else Piecewise
        return kind(self.column, self.t_min)

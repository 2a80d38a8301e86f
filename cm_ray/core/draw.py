"""The random draw of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.types import Images, Times

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """The random draw of a training step; x_t = x + t · noise."""

    x: Images
    noise: Images
    x_t: Images
    t: Times
    s: Times
    diffusion: Diffusion = field(default_factory=Diffusion)
    """The noise levels that t and s are drawn from, and the preconditioning of the student."""
    step: int = 0
    """k, the training step."""
    direction: Images | None = None
    """Random signs along which a method takes a derivative of the student; None for other methods."""
    scale: Times | None = None
    """The guidance scale of the teacher (b,); None without guidance."""
    augment: Tensor | None = None
    """Numbers that describe the augmentation of x (b, n), which the networks take; None: they take none."""

    @property
    def student_scale(self) -> Times | None:
        """The guidance scale as an input of the student; None if it takes none."""
        return self.scale if self.diffusion.guidance else None

    @property
    def end(self) -> Times | None:
        """The student's second time: s for a function of two times, None for one of t alone."""
        return self.s if self.diffusion.two_times else None

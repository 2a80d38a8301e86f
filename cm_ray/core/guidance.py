"""Guidance: an estimate that is drawn away from a weaker one, D_w = D_weak + w (D - D_weak).

With the same model without its class as the weaker one it is classifier-free guidance (Ho & Salimans 2022),
whose score is that of p(x)^(1-w) p(x|c)^w; with a worse model of the same class, autoguidance (Karras et al.
2024). w = 1 is no guidance, and w = 0 the weaker estimate, both to the bit. A classifier of noisy images
guides by its gradient, `towards_class`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cm_ray.core.types import Denoise, Images, Labels, Times, check_same_shape, per_sample
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import Tensor

UNGUIDED = 1.0
"""The guidance scale of a model by itself."""
NULL_LABEL = -1
"""The label of the null class, of networks that have one."""


def guided(estimate: Images, weaker: Images, scale: float | Times) -> Images:
    """Return weaker + scale (estimate - weaker) (b, c, h, w).

    scale: a number, or one for each sample (b,). Raises ValueError on unequal shapes.
    """
    check_same_shape(estimate, weaker)
    if isinstance(scale, int | float):
        return torch.lerp(weaker, estimate, float(scale))
    return torch.lerp(weaker, estimate, per_sample(scale, estimate))


def towards_class(estimate: Images, slope: Images, t: Times, scale: float) -> Images:
    """Return estimate + scale t^2 slope (b, c, h, w): the classifier's gradient is added to the score.

    slope: the gradient of ln p(y | x_t) in x_t. With scale 1 the score is that of p(x_t | y), by Bayes; with
    another one, of p(x_t) p(y | x_t)^scale. Song et al. 2021, Eq. 14; Dhariwal & Nichol 2021, section 4.2.
    Raises ValueError on unequal shapes.
    """
    check_same_shape(estimate, slope)
    return estimate + scale * per_sample(t, estimate) ** 2 * slope


def without_class(labels: Labels) -> Labels:
    """Return the label of the null class for each sample (b,)."""
    return torch.full_like(labels, NULL_LABEL)


def guided_teacher(
    teacher: Any, labels: Labels | None, scale: Times | None, augment: Tensor | None = None
) -> Denoise:
    """Return a teacher as the denoiser that a student learns, guided by the scale of each sample (b,).

    teacher: a map (x_t, t[, labels]) with a `diffusion`. One that takes the scale as an input is given it;
    another is guided by itself without the class. scale: None for no guidance. augment: describes
    the augmentation of the images, for a teacher that takes it.
    """
    added = {} if augment is None else {"augment": augment}

    def teach(x_t: Images, t: Times) -> Images:
        given = () if labels is None else (labels,)
        if scale is None:
            plain: Images = teacher(x_t, t, *given, **added)
            return plain
        if teacher.diffusion.guidance:
            answer: Images = teacher(x_t, t, *given, scale=scale, **added)
            return answer
        if labels is None:
            raise ValueError("guidance needs labels")
        with_class, without = (teacher(x_t, t, each, **added) for each in (labels, without_class(labels)))
        return guided(with_class, without, scale)

    return teach


class TeacherGuidance:
    """The guidance of the teacher of a distillation: the kind of setting that its choices share."""

    @property
    def scales(self) -> tuple[float, ...]:
        """The least and the greatest scale that the student takes as an input; empty if it takes none."""
        return ()

    @property
    def asked(self) -> tuple[float, ...]:
        """The least and the greatest scale by which the teacher is guided; empty without guidance."""
        raise NotImplementedError

    def draw(self, uniforms: Tensor) -> Times | None:
        """Return the scale of each sample, of uniform numbers (b,); None without guidance."""
        raise NotImplementedError


@choice(TeacherGuidance, "none")
@dataclass(frozen=True, slots=True, kw_only=True)
class Unguided(TeacherGuidance):
    """No guidance: the teacher as it is."""

    @property
    def asked(self) -> tuple[float, ...]:
        """Nothing."""
        return ()

    def draw(self, uniforms: Tensor) -> None:
        """Return None."""


@choice(TeacherGuidance, "fixed")
@dataclass(frozen=True, slots=True, kw_only=True)
class FixedGuidance(TeacherGuidance):
    """Classifier-free guidance of the teacher by one scale, which the student learns for good."""

    scale: float = 2.0
    """Guidance scale w; 1 is none."""

    def __post_init__(self) -> None:
        """Raise SettingError on a negative scale."""
        require(self.scale >= 0, "scale", f"must not be negative, but is {self.scale}")

    @property
    def asked(self) -> tuple[float, ...]:
        """The scale, twice."""
        return self.scale, self.scale

    def draw(self, uniforms: Tensor) -> Times:
        """Return the scale for every sample (b,)."""
        return torch.full_like(uniforms, self.scale)


@choice(TeacherGuidance, "drawn")
@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnGuidance(TeacherGuidance):
    """A scale for each sample, uniform on an interval; it is an input of the student.  Meng et al. 2023."""

    low: float = 1.0
    """The least scale; at most 1, so that the student is sampled without guidance, too."""
    high: float = 4.0
    """The greatest scale; at least 1."""

    def __post_init__(self) -> None:
        """Raise SettingError unless 0 <= low <= 1 <= high, and low < high."""
        require(0 <= self.low <= UNGUIDED, "low", f"must be in [0, 1], not {self.low}")
        above = self.high >= UNGUIDED and self.high > self.low
        require(above, "high", f"must be at least 1 and greater than low, not {self.high}")

    @property
    def scales(self) -> tuple[float, ...]:
        """The interval."""
        return self.low, self.high

    @property
    def asked(self) -> tuple[float, ...]:
        """The interval."""
        return self.scales

    def draw(self, uniforms: Tensor) -> Times:
        """Return the scale of each sample (b,)."""
        return self.low + (self.high - self.low) * uniforms

"""Random transformations of the training images, and the numbers by which a network knows them.

A network that sees which transformation an image has had learns the transformed images apart from the others:
sampled with numbers that are zero, it makes none of them (Karras et al. 2022, appendix F.2). All random
numbers are a function of seed, step and position in the global batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.core.resampling import affine
from cm_ray.core.types import Images
from cm_ray.errors import require
from cm_ray.settings.choices import choice


class Augmentation:
    """Random transformations of the training images: the kind of setting that its choices share."""

    values: int = 0
    """Numbers that describe the transformation of an image, which the network gets."""

    def __call__(
        self, x: Images, seed: int, step: int, positions: torch.Tensor
    ) -> tuple[Images, torch.Tensor | None]:
        """Return images (b, c, h, w) after their transformations, and the numbers (b, values) or None."""
        raise NotImplementedError


@choice(Augmentation, "none")
@dataclass(frozen=True, slots=True, kw_only=True)
class NoAugmentation(Augmentation):
    """The images as they are."""

    def __call__(
        self, x: Images, seed: int, step: int, positions: torch.Tensor
    ) -> tuple[Images, torch.Tensor | None]:
        """Return the images."""
        return x, None


@choice(Augmentation, "flip")
@dataclass(frozen=True, slots=True, kw_only=True)
class Flip(Augmentation):
    """Mirrors every second image, at random, unknown to the network: it makes mirrored images, too."""

    def __call__(
        self, x: Images, seed: int, step: int, positions: torch.Tensor
    ) -> tuple[Images, torch.Tensor | None]:
        """Return the images, half of which are mirrored."""
        return _where(_coins(seed, step, positions), x.flip(-1), x), None


@choice(Augmentation, "edm")
@dataclass(frozen=True, slots=True, kw_only=True)
class EDMAugmentation(Augmentation):
    """The transformations of Karras et al. 2022, table 6; the network gets their parameters.

    Mirror images are made first, pixel by pixel. Scaling, rotation, anisotropy and translation are one affine
    map in this order, by `resampling.affine`; images that have none of them keep their bits.
    """

    probability: float = 0.12
    """Probability of each transformation but the horizontal flip, which half of the images have. Published:
    0.12 for CIFAR-10, 0.15 for FFHQ and AFHQv2."""
    horizontal_flip: bool = True
    """Mirror left and right."""
    vertical_flip: bool = True
    """Mirror top and bottom; half of the images that are drawn for it are left as they are."""
    scaling: bool = True
    """Scale by 2^(a/5) with a from N(0, 1)."""
    rotation: bool = True
    """Rotate by any angle."""
    anisotropy: bool = True
    """Stretch by 2^(a/5) along an axis and shrink as much across it, with a from N(0, 1): along any axis, or
    in half of the cases to the right."""
    translation: bool = True
    """Translate by N(0, 1) eighths of width and height."""

    scale: ClassVar[float] = 0.2
    shift: ClassVar[float] = 0.125

    def __post_init__(self) -> None:
        """Raise SettingError on a probability outside of [0, 1], and without any transformation."""
        right = 0 <= self.probability <= 1
        require(right, "probability", f"must be in [0, 1], not {self.probability}")
        require(self.values > 0, "horizontal_flip", "is off as all others are: take augmentation none")

    @property
    def values(self) -> int:  # type: ignore[override]
        """Numbers that describe the transformation of an image: 9 if all are on."""
        ones = self.horizontal_flip + self.vertical_flip + self.scaling
        return ones + 2 * (self.rotation + self.anisotropy + self.translation)

    def __call__(
        self, x: Images, seed: int, step: int, positions: torch.Tensor
    ) -> tuple[Images, torch.Tensor | None]:
        """Return the transformed images, and the numbers that the network gets (b, values)."""
        drawn = self._drawn(seed, step, positions)
        x = _where(drawn["mirrored"] > 0, x.flip(-1), x)
        x = _where(drawn["upside_down"] > 0, x.flip(-2), x)
        if self.scaling or self.rotation or self.anisotropy or self.translation:
            moved = torch.stack([drawn[name] != 0 for name in ("size", "angle", "stretch", "right", "down")])
            x = _where(moved.any(0), affine(x, self._inverse(drawn, *x.shape[2:])), x)
        return x, self._described(drawn)

    def _drawn(self, seed: int, step: int, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the parameters of each image (b,), a_0 to a_7 of table 6; 0: the image does not have it."""
        u = uniform(seed, step, positions, Purpose.AUGMENTATION, (9,)).T
        z = normal(seed, step, positions, Purpose.AUGMENTATION_NORMAL, (4,)).T
        has = [u[k] < self.probability for k in range(5)]
        angles = math.pi * (2 * u[5:7] - 1)
        return {
            "mirrored": _coins(seed, step, positions) * self.horizontal_flip,
            "upside_down": (has[0] & (u[7] < 0.5)) * self.vertical_flip,
            "size": z[0] * has[1] * self.scaling,
            "angle": angles[0] * has[2] * self.rotation,
            "stretch": z[1] * has[3] * self.anisotropy,
            "axis": angles[1] * (u[8] < 0.5),
            "right": z[2] * has[4] * self.translation,
            "down": z[3] * has[4] * self.translation,
        }

    def _inverse(self, drawn: dict[str, torch.Tensor], h: int, w: int) -> torch.Tensor:
        """Return the inverses of the affine maps (b, 2, 3), as `resampling.affine` takes them."""
        size, stretch = 2 ** (-self.scale * drawn["size"]), 2 ** (-self.scale * drawn["stretch"])
        axis = drawn["axis"]
        stretched = _rotation(-axis) @ torch.diag_embed(torch.stack([stretch, 1 / stretch], -1))
        linear = size[:, None, None] * _rotation(drawn["angle"]) @ stretched @ _rotation(axis)
        moved = torch.stack([drawn["right"] * w, drawn["down"] * h], -1) * self.shift
        return torch.cat([linear, -linear @ moved[..., None]], -1)

    def _described(self, drawn: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the last column of table 6 (b, values): all 0 for an image that is left as it is."""
        angle, axis, stretch = drawn["angle"], drawn["axis"], drawn["stretch"]
        columns = [
            (self.horizontal_flip, [drawn["mirrored"]]),
            (self.vertical_flip, [drawn["upside_down"]]),
            (self.scaling, [drawn["size"]]),
            (self.rotation, [angle.cos() - 1, angle.sin()]),
            (self.anisotropy, [stretch * axis.cos(), stretch * axis.sin()]),
            (self.translation, [drawn["right"], drawn["down"]]),
        ]
        return torch.stack([each.float() for on, them in columns if on for each in them], 1)


def _coins(seed: int, step: int, positions: torch.Tensor) -> torch.Tensor:
    """Return True for every second image (b,), at random."""
    return uniform(seed, step, positions, Purpose.FLIP, (1,))[:, 0] < 0.5


def _where(chosen: torch.Tensor, x: Images, y: Images) -> Images:
    return torch.where(chosen[:, None, None, None], x, y)


def _rotation(angle: torch.Tensor) -> torch.Tensor:
    """Return matrices (b, 2, 2) of rotations by angles (b,)."""
    rows = [angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)

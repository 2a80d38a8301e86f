"""Zero-shot editing: one routine that puts what is known back at every step, and what each application knows.

==========================  ==============================  =============================================
paper                       code                            meaning
==========================  ==============================  =============================================
y                           ``reference``                   the image that something is known of (b, c, h, w)
A, A^-1                     ``Transform``                   orthogonal, to the space where it is known
1 - Omega                   ``mask``                        true where A y is known, in that space
t_1 > t_2 > ...             ``times``, ascending            time points, t_min below them
==========================  ==============================  =============================================

Song et al. 2023, Algorithm 4 and appendix D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cm_ray.core.times import NoiseLevels, turned
from cm_ray.core.types import Denoise, Images, Noise, Times, check_same_shape
from cm_ray.sampling.sampling_steps import Step, ascending, full
from cm_ray.sampling.score_samplers import ConditionalSampler

LUMINANCE = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue in the grey of the paper, up to their sum."""
STROKE_TIMES = (5.38, 2.24)
"""Descending time points of stroke-guided generation in the paper."""
GRID = 40
"""Boundaries of the grid of the other applications, in OpenAI's code: the paper names none."""


class Transform(Protocol):
    """An orthogonal map of images: lengths and angles stay, so that normal noise stays normal noise."""

    def forward(self, x: Images, /) -> Tensor:
        """Return A x."""
        ...

    def inverse(self, y: Tensor, /) -> Images:
        """Return A^-1 y."""
        ...


@dataclass(frozen=True)
class Identity:
    """A = I: pixels are known, or are not."""

    def forward(self, x: Images, /) -> Tensor:
        """Return x (b, c, h, w)."""
        return x

    def inverse(self, y: Tensor, /) -> Images:
        """Return y (b, c, h, w)."""
        return y


@dataclass(frozen=True)
class ColourBasis:
    """Change to colours whose first axis is the luminance, times a constant; for images of three channels."""

    def forward(self, x: Images, /) -> Tensor:
        """Return (b, h, w, 3) of images (b, 3, h, w)."""
        return _reflected(x.movedim(1, -1), x.new_tensor(LUMINANCE))

    def inverse(self, y: Tensor, /) -> Images:
        """Return images (b, 3, h, w)."""
        return _reflected(y, y.new_tensor(LUMINANCE)).movedim(-1, 1)


@dataclass(frozen=True)
class PatchBasis:
    """Change to patches of factor x factor pixels whose first axis is their mean, times the factor."""

    factor: int

    def forward(self, x: Images, /) -> Tensor:
        """Return (b, c, h/p, w/p, p^2). Raises ValueError when the factor p does not divide h and w."""
        return _reflected(_to_patches(x, self.factor), x.new_ones(self.factor**2))

    def inverse(self, y: Tensor, /) -> Images:
        """Return images (b, c, h, w)."""
        patches = _reflected(y, y.new_ones(self.factor**2))
        b, c, rows, columns, _ = patches.shape
        split = patches.reshape(b, c, rows, columns, self.factor, self.factor)
        return split.movedim(4, 3).reshape(b, c, rows * self.factor, columns * self.factor)


@dataclass(frozen=True, eq=False)
class Known:
    """The known part of images: A y, where the mask is true."""

    reference: Images
    """y (b, c, h, w); what is not known of it plays no part."""
    transform: Transform
    """A."""
    mask: Tensor
    """Bool, of a shape that broadcasts to A y."""

    def put_into(self, x: Images) -> Images:
        """Return A^-1 of A y where it is known and A x elsewhere."""
        return self.put_noisy(x, 0.0, torch.zeros_like(x))

    def put_noisy(self, x: Images, t: float, noise: Images) -> Images:
        """Return A^-1 of A (y + t noise) where y is known, and A x elsewhere: x_t of the known part.

        A is orthogonal, so that this has the law of the noisy images of which the known part is of y.
        """
        check_same_shape(x, self.reference)
        forward = self.transform.forward
        reference = self.reference + t * noise if t else self.reference
        return self.transform.inverse(torch.where(self.mask, forward(reference), forward(x)))

    def alone(self) -> Images:
        """Return the images with 0 for all that is not known: the first line of Algorithm 4."""
        return self.put_into(torch.zeros_like(self.reference))


def inpainting(reference: Images, mask: Tensor) -> Known:
    """Know pixels: mask is true at those that are kept, (b, 1, h, w) or of a shape that broadcasts to y."""
    return Known(reference, Identity(), mask.bool())


def colorization(reference: Images) -> Known:
    """Know the luminance of images of three channels, grey or in colour. Raises ValueError on others."""
    if reference.shape[1] != 3:
        raise ValueError(f"colours have three channels, not {reference.shape[1]}")
    return Known(reference, ColourBasis(), _first_of(3, reference))


def super_resolution(reference: Images, factor: int) -> Known:
    """Know the means of all patches of factor x factor pixels; see `PatchBasis` for the errors."""
    _check_factor(reference, factor)
    return Known(reference, PatchBasis(factor), _first_of(factor**2, reference))


def replacement(
    denoise: Denoise, noise: Noise, times: Sequence[float], start: Images, known: Known | None = None
) -> Iterator[Step]:
    """Sample in several steps, and put what is known back after each.  Song et al. 2023, Algorithm 4.

    denoise: a consistency function. times: (t_min, t_N, ..., t_1), one evaluation for each but t_min.
    start: what the first noise is added to (b, c, h, w). The applications are settings of this:

    - inpainting, colorization, super-resolution: `known`, and start = known.alone();
    - stroke-guided generation: start is the painting, nothing is known, t_1 is below t_max (there the
      paper's line 1 would erase the painting, so that line is the caller's);
    - denoising at level sigma: start is the noisy image, times = (t_min, sigma), noise is zero;
    - generation is start = 0 and nothing known, interpolation that with the noise of `interpolated`.

    Raises ValueError when the times do not ascend.
    """
    t_min, *above = ascending(times)
    taus = turned(above)
    x = start + taus[0] * noise(0)
    for index, tau in enumerate(taus):
        if index:
            x = x + math.sqrt(tau**2 - t_min**2) * noise(index)
        x = denoise(x, full(x, tau))
        x = known.put_into(x) if known else x
        yield Step(x, t_min)


def conditional(
    sampler: ConditionalSampler, denoise: Denoise, noise: Noise, levels: NoiseLevels, known: Known
) -> Iterator[Step]:
    """Sample a diffusion model with a known part, which is noisy while the images are, and exact at the end.

    Song et al. 2021, appendix I.2: the score of the whole image is taken for that of the unknown part, of
    which the known one is drawn anew at every noise level. denoise: the denoiser, not clipped.
    """
    for step in sampler.conditional_trajectory(denoise, noise, levels, known.put_noisy):
        yield Step(known.put_into(step.x), step.t)


def interpolated(a: Noise, b: Noise, alpha: Times) -> Noise:
    """Return the noise between a (alpha = 0) and b (1), both to the bit: every draw by `spherical`."""
    return lambda draw: spherical(a(draw), b(draw), alpha)


def spherical(a: Images, b: Images, alpha: Times) -> Images:
    """Return sin((1 - alpha) psi)/sin(psi) a + sin(alpha psi)/sin(psi) b, per sample, psi their angle.

    alpha: (n,). Song et al. 2023, appendix D. Images (n, c, h, w) in one direction are mixed linearly.
    """
    check_same_shape(a, b)
    x, y, share = a.flatten(1).double(), b.flatten(1).double(), alpha.double().reshape(-1, 1)
    cosine = (x * y).sum(1, keepdim=True) / (x.norm(dim=1, keepdim=True) * y.norm(dim=1, keepdim=True))
    psi = cosine.clamp(-1, 1).acos()
    parallel = psi.sin() < 1e-6
    safe = torch.where(parallel, 1.0, psi)
    of_a = torch.where(parallel, 1 - share, ((1 - share) * safe).sin() / safe.sin())
    of_b = torch.where(parallel, share, (share * safe).sin() / safe.sin())
    return (of_a * x + of_b * y).to(a.dtype).reshape(a.shape)


def luminance(x: Images) -> Images:
    """Return the grey of images (b, 3, h, w) as (b, 1, h, w); grey images have their own."""
    weights = x.new_tensor(LUMINANCE) / sum(LUMINANCE)
    return (x * weights.reshape(3, 1, 1)).sum(1, keepdim=True)


def patch_means(x: Images, factor: int) -> Images:
    """Return the means of patches, (b, c, h/p, w/p). Raises ValueError when p does not divide h and w."""
    return _to_patches(x, factor).mean(-1)


def _to_patches(x: Images, factor: int) -> Tensor:
    """Return the pixels of every patch, (b, c, h/p, w/p, p^2)."""
    _check_factor(x, factor)
    b, c, h, w = x.shape
    split = x.reshape(b, c, h // factor, factor, w // factor, factor)
    return split.movedim(3, 4).reshape(b, c, h // factor, w // factor, factor**2)


def _check_factor(x: Images, factor: int) -> None:
    h, w = x.shape[-2:]
    if factor < 1 or h % factor or w % factor:
        raise ValueError(f"patches of {factor}x{factor} pixels do not tile images of {w}x{h}")


def _first_of(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device) == 0


def _reflected(x: Tensor, direction: Tensor) -> Tensor:
    """Return H x along the last axis: H is orthogonal, its own inverse, and its first row is the direction.

    H = I - 2 v v^T/(v^T v) with v = e_1 - u for the unit vector u (Householder). What the other rows are does
    not matter for what is put back; the paper completes the basis by QR, whose matrix has p^4 entries.
    """
    if len(direction) == 1:  # u is e_1 itself
        return x
    v = -direction / direction.norm()
    v[0] += 1
    return x - (2 / v.square().sum()) * (x * v).sum(-1, keepdim=True) * v

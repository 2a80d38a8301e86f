"""Affine maps of images with little aliasing: sampled bilinearly among twice as many pixels along each axis.

Karras et al. 2020 (GANs with limited data), appendix B.2, as Karras et al. 2022 use it: the filter of the
wavelet sym6 (Daubechies 1992) makes and removes the pixels between. It is orthonormal to its even shifts, so
that the identity leaves an image as it is. Beyond their borders images are mirrored, once to each side.

The filter is not quite symmetric: its centre is 0.4 of the pixels between away from the middle of its taps.
That is taken into account here, so that maps are exact; where it is not, as in the code of Karras et al., an
image that is turned by half a turn is shifted by 0.4 pixels.
"""

from __future__ import annotations

import functools

import torch

from cm_ray.core.types import Images

SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
"""The low-pass filter of sym6, the least asymmetric wavelet with six vanishing moments."""
_BEFORE = 5  # taps of the filter before the pixel that it belongs to
_DELAY = sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - _BEFORE
_AT_ONCE = 64  # images whose larger copies are in memory at the same time


def affine(x: Images, inverse: torch.Tensor) -> Images:
    """Return images (b, c, h, w) under affine maps, given by their inverses (b, 2, 3), float32.

    inverse maps the place of a pixel in the result to its place in x; places are (to the right, down, 1) in
    pixels from the centre of the image. Farther away than a mirror image, x is 0.
    """
    firsts = range(0, len(x), _AT_ONCE)
    return torch.cat([_affine(x[k : k + _AT_ONCE], inverse[k : k + _AT_ONCE]) for k in firsts])


def _affine(x: Images, inverse: torch.Tensor) -> Images:
    h, w = x.shape[2:]
    larger = _enlarging(h, x.device) @ x @ _enlarging(w, x.device).T
    down, right = (_between(size, x.device) for size in (h, w))
    places = torch.stack(torch.meshgrid(right, down, indexing="xy"), -1)
    places = places @ inverse[:, None, :, :2].mT + inverse[:, None, None, :, 2]
    grid = torch.stack([_unit(places[..., 0], w), _unit(places[..., 1], h)], -1)
    sampled = torch.nn.functional.grid_sample(
        larger, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return _reducing(h, x.device) @ sampled @ _reducing(w, x.device).T


def _between(size: int, device: torch.device) -> torch.Tensor:
    """Return the places of pixels, and of those between and beyond for a reduction (2 size + 10,)."""
    numbers = torch.arange(-_BEFORE, 2 * size + _BEFORE, dtype=torch.float64, device=device)
    return ((numbers - _DELAY) / 2 - (size - 1) / 2).float()


def _unit(places: torch.Tensor, size: int) -> torch.Tensor:
    """Return places as coordinates of `grid_sample`: -1 and 1 are the borders of an enlarged image."""
    numbers = 2 * (places + (size - 1) / 2 + size - 1) + _DELAY
    return (2 * numbers + 1) / _enlarged(size) - 1


def _enlarged(size: int) -> int:
    """Return twice the pixels of a side with its two mirror images, which share the pixels at the mirrors."""
    return 2 * (3 * size - 2)


@functools.lru_cache(maxsize=16)
def _enlarging(size: int, device: torch.device) -> torch.Tensor:
    """Return the map (enlarged, size) to the pixels of a side and its mirror images, and those between."""
    pixels = torch.arange(1 - size, 2 * size - 1)
    inside = torch.zeros(len(pixels), size, dtype=torch.float64)
    inside[torch.arange(len(pixels)), _mirrored(pixels, size)] = 1
    return (_taps(len(pixels), _enlarged(size), 0) @ inside).float().to(device)


@functools.lru_cache(maxsize=16)
def _reducing(size: int, device: torch.device) -> torch.Tensor:
    """Return the map (size, 2 size + 10) from pixels and those between and beyond to pixels."""
    return _taps(size, 2 * size + 2 * _BEFORE, _BEFORE).T.float().to(device)


def _taps(pixels: int, doubled: int, first: int) -> torch.Tensor:
    """Return the taps (doubled, pixels) of the filters of pixels; `first` doubled ones are before pixel 0."""
    rows, columns = torch.arange(doubled)[:, None] - first, torch.arange(pixels)
    index = rows - 2 * columns + _BEFORE
    taps = torch.tensor(SYM6, dtype=torch.float64)[index.clamp(0, len(SYM6) - 1)]
    return taps * ((index >= 0) & (index < len(SYM6)))


def _mirrored(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Return the pixels of a side that those of its mirror images are."""
    period = max(2 * (size - 1), 1)
    return (size - 1) - ((size - 1) - pixels % period).abs()

"""The extractor `scattering`: a fixed transform that describes images of any kind, with nothing to download.

After the scattering transform of Bruna & Mallat 2013: moduli of wavelet coefficients, and moduli of the
wavelet coefficients of these moduli, averaged over the image. Nothing is trained, so that the scores of any
two models of the same images compare. It sees colours, layout, edges, textures and their variety, and knows
nothing of objects: a score by a network that was trained on photographs agrees better with the eye.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cm_ray.metrics.extractors.inference import check_images, plain_float32

_SIDE, _OCTAVES, _ORIENTATIONS = 64, 5, 4
_RADIUS, _WIDTH, _FREQUENCY = 3, 0.8, 0.75 * math.pi
"""Pixels around the centre of a wavelet, its width in pixels and its frequency, in each octave."""
_LAYOUT, _PLACES, _OFFSET = 4, 2, 1 / 64
_BLUR = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_BATCH = 64
_COLOURS = ((3**-0.5,) * 3, (2**-0.5, 0.0, -(2**-0.5)), (6**-0.5, -2 * 6**-0.5, 6**-0.5))
"""Orthonormal: grey, red minus blue, red and blue minus green."""
_VERSION = 1


class Scattering(nn.Module):
    """The transform, from images in [-1, 1] to features; it has wavelets and no weights."""

    wavelets: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("wavelets", _wavelets(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (b, 328) of images (b, 1 or 3, h, w)."""
        x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True)
        colours = torch.einsum("bchw,kc->bkhw", x.expand(-1, 3, -1, -1), x.new_tensor(_COLOURS))
        layout = F.adaptive_avg_pool2d(colours, _LAYOUT).flatten(1)
        return torch.cat([layout, *_of_moduli(colours, self.wavelets)], 1)


@dataclass(frozen=True, slots=True)
class ScatteringExtractor:
    """Extractor of 328 features of grey or RGB images of any size, which are resized to 64x64.

    48 means of the colours in squares of a 4x4 grid, and logarithms of mean moduli: 80 of the grey image in
    5 octaves, 4 orientations and 4 quarters of the image, 40 of the other colours in octaves and
    orientations, 160 of the second order, in pairs of octaves and of orientations.
    """

    network: Scattering
    name: str = field(default="scattering", init=False)
    dim: int = field(default=328, init=False)
    preprocess: str = field(
        default=f"resized to {_SIDE}x{_SIDE}, bilinear, antialiased, / 127.5 - 1", init=False
    )

    @classmethod
    def open(cls, device: torch.device | str = "cpu") -> ScatteringExtractor:
        """Return the extractor on a device."""
        return cls(Scattering().to(device))

    @property
    def weights_sha256(self) -> str:
        """SHA-256, in hex, of the numbers that define the transform, for it has no weights."""
        numbers = (
            _VERSION, _SIDE, _OCTAVES, _ORIENTATIONS, _RADIUS, _WIDTH, _FREQUENCY, _LAYOUT, _PLACES, _OFFSET
        )  # fmt: skip
        return hashlib.sha256(repr((numbers, _BLUR, _COLOURS)).encode()).hexdigest()

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features (b, 328), float32, of uint8 images (b, 1 or 3, h, w).

        Raises UserError on images with other channels or of another type.
        """
        check_images(images, self.name, channels=(1, 3))
        wavelets = self.network.wavelets
        with plain_float32(wavelets):
            batches = [
                self.network(batch.to(wavelets.device).float() / 127.5 - 1) for batch in images.split(_BATCH)
            ]
        return torch.cat(batches) if batches else torch.zeros(0, self.dim)


def _of_moduli(colours: Tensor, wavelets: Tensor) -> Iterator[Tensor]:
    """Yield the features of first and second order of colours (b, 3, h, w), each (b, d)."""
    levels = list(_octaves(colours, _OCTAVES))
    for octave, level in enumerate(levels):
        moduli = _moduli(level, wavelets)
        grey, others = moduli[:, 0], moduli[:, 1:]
        yield _logarithm(F.adaptive_avg_pool2d(grey, _PLACES).flatten(1))
        yield _logarithm(others.mean((3, 4)).flatten(1))
        for deeper in list(_octaves(grey, _OCTAVES - octave))[1:]:
            yield _logarithm(_moduli(deeper, wavelets).mean((3, 4)).flatten(1))


def _moduli(images: Tensor, wavelets: Tensor) -> Tensor:
    """Return the moduli (b, c, orientations, h, w) of the wavelet coefficients of images (b, c, h, w)."""
    b, c, h, w = images.shape
    padded = F.pad(images.reshape(b * c, 1, h, w), (_RADIUS,) * 4, mode="reflect")
    real, imaginary = F.conv2d(padded, wavelets).chunk(2, dim=1)
    return torch.hypot(real, imaginary).view(b, c, _ORIENTATIONS, h, w)


def _octaves(images: Tensor, count: int) -> Iterator[Tensor]:
    """Yield images (b, c, h, w) and smaller ones, each blurred and of half the size of the one before."""
    blur = torch.outer(*(images.new_tensor(_BLUR),) * 2).expand(images.shape[1], 1, 5, 5)
    for octave in range(count):
        if octave:
            padded = F.pad(images, (2,) * 4, mode="reflect")
            images = F.conv2d(padded, blur, stride=2, groups=images.shape[1])
        yield images


def _wavelets() -> Tensor:
    """Return Morlet wavelets (2 orientations, 1, h, w): the real parts, then the imaginary ones.

    They have no mean, and their norms are 1.
    """
    places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    y, x = torch.meshgrid(places, places, indexing="ij")
    made = []
    for number in range(_ORIENTATIONS):
        angle = number * math.pi / _ORIENTATIONS
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        bump = torch.exp(-(along**2 + (across * 4 / _ORIENTATIONS) ** 2) / (2 * _WIDTH**2))
        wave = torch.polar(bump, _FREQUENCY * along)
        wave -= bump * (wave.sum() / bump.sum())
        made.append(wave / wave.abs().square().sum().sqrt())
    waves = torch.stack(made)
    return torch.cat([waves.real, waves.imag])[:, None].float()


def _logarithm(moduli: Tensor) -> Tensor:
    """Return logarithms, so that faint and strong textures count alike."""
    return (moduli + _OFFSET).log()

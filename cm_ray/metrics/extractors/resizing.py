"""The two resizing methods of published FIDs, as linear maps: rows @ image @ columns.

The method changes a FID by more than the difference between many papers (Parmar et al. 2022). So each method
has a name, which is part of a score's key. The names are those of clean-fid.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cm_ray.errors import UserError, closest

RESIZINGS = {
    "legacy_tensorflow": "299x299 TensorFlow-1 bilinear without antialiasing",
    "clean": "299x299 Pillow bicubic with antialiasing",
}
"""Names of the resizing methods, and a short description of each.

`legacy_tensorflow` is the method of Heusel et al. 2017's FID code and of published CIFAR-10 results; it
differs from PyTorch's bilinear resizing (clean-fid's `legacy_pytorch`) by a shift of half a pixel. `clean` is
the method of Parmar et al. 2022.
"""


def check_resizing(name: str) -> None:
    """Raise UserError unless name is one of `RESIZINGS`."""
    if name not in RESIZINGS:
        raise UserError(f"There is no resizing {name!r}: {closest(name, list(RESIZINGS))}")


def resized(images: Tensor, size: int, mode: str) -> Tensor:
    """Return images (b, c, size, size), float32 in 0..255, of uint8 or float images (b, c, h, w).

    mode: one of `RESIZINGS`. Raises KeyError on any other name.
    """
    weights = {"legacy_tensorflow": tensorflow_bilinear, "clean": pillow_bicubic}[mode]
    rows = weights(images.shape[-2], size).to(images.device)
    columns = weights(images.shape[-1], size).to(images.device)
    return (rows @ (images.float() @ columns.T)).clamp(0, 255)


@functools.lru_cache(maxsize=8)
def tensorflow_bilinear(old: int, new: int) -> Tensor:
    """Return the weights (new, old) of TensorFlow 1's bilinear resizing with align_corners off.

    Output pixel i is sampled at i · old / new, so only the first corners coincide. There is no antialiasing.
    """
    at = torch.arange(new, dtype=torch.float32) * (old / new)
    below = at.long().clamp(max=old - 1)
    share = (at - below).clamp(0, 1)[:, None]
    eye = torch.eye(old)
    return (1 - share) * eye[below] + share * eye[(below + 1).clamp(max=old - 1)]


@functools.lru_cache(maxsize=8)
def pillow_bicubic(old: int, new: int) -> Tensor:
    """Return the weights (new, old) of Pillow's bicubic resizing.

    The kernel is Keys' cubic with a = -1/2 around the pixel's centre. It is widened by the scale factor when
    the image shrinks, and normalised where the border cuts it.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * scale
    first = (centre - 2 * stretch + 0.5).floor().clamp(min=0)
    after = (centre + 2 * stretch + 0.5).floor().clamp(max=old)
    pixel = torch.arange(old, dtype=torch.float64)
    weights = _keys_cubic((pixel + 0.5 - centre) / stretch) * ((first <= pixel) & (pixel < after))
    return (weights / weights.sum(1, keepdim=True)).float()


def _keys_cubic(x: Tensor) -> Tensor:
    """Return Keys' cubic kernel with a = -1/2.  Keys 1981, Eq. 4."""
    x = x.abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))

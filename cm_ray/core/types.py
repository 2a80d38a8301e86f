"""Types of the signatures in `core`. PyTorch is imported for type checkers only: settings do not need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Images: TypeAlias = "Tensor"
"""Images, float, shape (b, c, h, w); clean images are in [-1, 1]."""

Times: TypeAlias = "Tensor"
"""One number per sample, float, shape (b,): noise standard deviations, weights or losses."""

Labels: TypeAlias = "Tensor"
"""Class indices, int64, shape (b,)."""


Noise: TypeAlias = "Callable[[int], Images]"
"""noise(i) returns the i-th standard normal images (b, c, h, w) of a sampler; equal i give equal noise."""


class Distance(Protocol):
    """d(a, b), the distance of two batches of images (b, c, h, w) per sample (b,); 0 for equal images."""

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,)."""
        ...


class Denoise(Protocol):
    """A map from noisy images (b, c, h, w) and their times (b,) to clean images: f_theta, or a teacher."""

    def __call__(self, x_t: Images, t: Times, /) -> Images:
        """Return the clean images."""
        ...


class Jump(Protocol):
    """A function of one or two times: with s, the mean clean image of the way from t down to s (b, c, h, w).

    See `cm_ray.core.two_times`. Without s it is a `Denoise`.
    """

    def __call__(self, x_t: Images, t: Times, s: Times | None = None, /) -> Images:
        """Return the clean images."""
        ...


def per_sample(values: Times, images: Images) -> Tensor:
    """Reshape (b,) to (b, 1, 1, 1), to multiply images (b, c, h, w)."""
    return values.reshape(-1, *(1,) * (images.ndim - 1))


def check_same_shape(a: Tensor, b: Tensor) -> None:
    """Raise ValueError when two tensors differ in shape, because broadcasting would hide the mistake."""
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {tuple(a.shape)} and {tuple(b.shape)}")

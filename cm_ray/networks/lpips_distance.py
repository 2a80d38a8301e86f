"""LPIPS as a setting: a distance that loads its network when it is first called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cm_ray.core.types import Distance, Images, Times
from cm_ray.errors import require
from cm_ray.networks.arithmetic import Precision
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    import torch


@choice(Distance, "lpips")
@dataclass(frozen=True, slots=True, kw_only=True)
class LPIPS:
    """Learned perceptual distance of images in [-1, 1].  Zhang et al. 2018.

    It needs the weights of its trunk network. They are downloaded once and their SHA-256 is checked.
    """

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The trunk network."""
    size: int = 224
    """Smaller images are resized to this many pixels, as in OpenAI's code; 0 keeps their size."""
    pooling: Literal["max", "average"] = "max"
    """Pooling between the trunk's slices: max as published and in OpenAI's code for CIFAR-10, average as in
    OpenAI's code for ImageNet 64x64 and LSUN 256x256."""
    weights: str = ""
    """File of the trunk's weights; empty for the cache or, if it is not there, the public address."""

    def __post_init__(self) -> None:
        """Raise SettingError on a negative size."""
        require(self.size >= 0, "size", f"must not be negative, but is {self.size}")

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises UserError when the trunk's weights are not available."""
        return _loaded(self, a.device)(a, b)


def on_device(distance: Distance, device: torch.device, precision: Precision) -> Distance:
    """Return the distance on a device: for LPIPS the module with its trunk, else the distance itself.

    precision: arithmetic of the trunk. Raises UserError when the trunk's weights are not available.
    """
    return _loaded(distance, device, precision) if isinstance(distance, LPIPS) else distance


@lru_cache(maxsize=2)
def _loaded(settings: LPIPS, device: torch.device, precision: Precision = "float32") -> Distance:
    from cm_ray.networks.perceptual import perceptual_distance

    return perceptual_distance(settings, precision=precision).to(device)

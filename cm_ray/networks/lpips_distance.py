"""LPIPS as a setting: a distance whose trunk is loaded when it is first called."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cm_ray.core.types import Distance, Images, Times
from cm_ray.errors import require
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    import torch


@choice(Distance, "lpips")
@dataclass(frozen=True, slots=True, kw_only=True)
class LPIPS:
    """Learned perceptual distance of images in [-1, 1].  Zhang et al. 2018.

    It needs the weights of its trunk, which are downloaded once and whose SHA-256 is checked.
    """

    net: Literal["vgg", "alex", "squeeze"] = "vgg"
    """The trunk."""
    size: int = 224
    """Smaller images are resized to this many pixels, as OpenAI does; 0 keeps them."""
    weights: str = ""
    """File of the trunk's weights; empty: the cache, else its public address."""

    def __post_init__(self) -> None:
        """Raise SettingError on a negative size."""
        require(self.size >= 0, "size", f"must not be negative, but is {self.size}")

    def __call__(self, a: Images, b: Images, /) -> Times:
        """Return the distances (b,). Raises UserError when the trunk's weights are not to be had."""
        return _loaded(self, a.device)(a, b)


def on_device(distance: Distance, device: torch.device) -> Distance:
    """Return a distance that is ready on a device: of LPIPS, the module with its trunk.

    Raises UserError when the trunk's weights are not to be had.
    """
    return _loaded(distance, device) if isinstance(distance, LPIPS) else distance


@lru_cache(maxsize=2)
def _loaded(settings: LPIPS, device: torch.device) -> Distance:
    from cm_ray.networks.perceptual import perceptual_distance

    return perceptual_distance(settings).to(device)

"""Settings of the networks of score-based models that are no U-Nets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cm_ray.errors import require
from cm_ray.networks.architectures import Network
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import nn


@choice(Network, "refinenet")
@dataclass(frozen=True, slots=True, kw_only=True)
class RefineNet(Network):
    """NCSNv2's RefineNet with instance normalisation++, for column ve.  Song & Ermon 2020.

    It sees neither the noise level nor classes.
    """

    conditional: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.0
    label_dropout: ClassVar[float] = 0.0
    unused: ClassVar[tuple[str, ...]] = ("sigmas",)
    """Tensors in state dicts of the public code that the network does not have: its noise levels."""

    channels: int = 128
    """Channels of the full resolution; the others have twice as many."""

    def __post_init__(self) -> None:
        """Raise SettingError without channels."""
        require(self.channels >= 2, "channels", f"must be at least 2, not {self.channels}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return the network. Raises SettingError on images of an odd size."""
        from cm_ray.networks import refinenet

        size = " x ".join(map(str, shape[1:]))
        require(shape[1] % 2 == shape[2] % 2 == 0, "network", f"refinenet halves images, and {size} is odd")
        return refinenet.RefineNet(shape, self.channels)

"""Settings of the networks of score-based models that are no U-Nets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from cm_ray.errors import require
from cm_ray.networks.architectures import Network
from cm_ray.settings.choices import choice

if TYPE_CHECKING:
    from torch import nn


@choice(Network, "refinenet")
@dataclass(frozen=True, slots=True, kw_only=True)
class RefineNet(Network):
    """RefineNet with instance normalisation++: NCSNv2's for column ve, NCSN's for column ncsn.

    Song & Ermon 2020 and 2019. It does not see classes, and noise levels by their index alone, if at all.
    """

    conditional: ClassVar[bool] = False
    dropout: ClassVar[float] = 0.0
    label_dropout: ClassVar[float] = 0.0
    unused: ClassVar[tuple[str, ...]] = ("sigmas",)
    """Tensors in state dicts of the public code that the network does not have: its noise levels."""

    channels: int = 128
    """Channels of the full resolution; the others have two or four times as many."""
    levels: int = 0
    """L, noise levels by which every normalisation is conditioned, as in NCSN, for column ncsn with the same
    count; 0: none, as in NCSNv2."""
    stages: Literal[4, 5, 6] = 4
    """Stages of residual blocks: 4 for 32 and 64 pixels, 5 for 96 and 128, 6 for 256, as in NCSNv2."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        require(self.channels >= 2, "channels", f"must be at least 2, not {self.channels}")
        problem = f"must be at least 2, or 0 for none, not {self.levels}"
        require(self.levels == 0 or self.levels >= 2, "levels", problem)
        require(self.stages in (4, 5, 6), "stages", f"must be 4, 5 or 6, not {self.stages}")

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Return the network. Raises SettingError on images of a size that it cannot halve."""
        from cm_ray.networks import refinenet

        size, times = " x ".join(map(str, shape[1:])), refinenet.halvings(self.stages)
        fits = all(side % 2**times == 0 for side in shape[1:])
        often = "" if times == 1 else f" {times} times"
        problem = f"refinenet of {self.stages} stages halves images{often}, and {size} cannot be halved so"
        require(fits, "network", problem)
        return refinenet.RefineNet(shape, self.channels, levels=self.levels, stages=self.stages)

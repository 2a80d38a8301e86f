"""Settings of the U-Nets F_theta. The image size, channels and classes come from the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from cm_ray.errors import require
from cm_ray.settings.choices import choice, word_of


class Network:
    """Base class of the settings of a network F_theta; each subclass is a choice of `network`."""

    if TYPE_CHECKING:

        @property
        def conditional(self) -> bool:
            """True if the network takes class labels."""

        @property
        def dropout(self) -> float:
            """Probability of dropout; 0 for a network without dropout."""

        @property
        def label_dropout(self) -> float:
            """Share of the labels that are replaced by the null class in training; 0 without a null class."""

    @property
    def family(self) -> str:
        """Name of the network on the command line."""
        return word_of(self)


def check_label_dropout(network: Network) -> None:
    """Raise SettingError unless the share of dropped labels is in [0, 1), and 0 without labels."""
    share = network.label_dropout
    require(0 <= share < 1, "label_dropout", f"must be in [0, 1), not {share}")
    labelled = not share or network.conditional
    require(labelled, "label_dropout", "is of networks with labels: set conditional, or set it to 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture(Network):
    """Settings that all U-Nets have."""

    channels: int = 128
    """Channels that the levels' are multiples of."""
    channel_mult: tuple[int, ...] = (2, 2, 2)
    """Factor of `channels` for each level; each further level halves the resolution."""
    blocks: int = 4
    """Residual blocks per level."""
    attention_resolutions: tuple[int, ...] = (16,)
    """Resolutions at which attention is used: pixels of the shorter side."""
    dropout: float = 0.0
    """Probability of dropout in residual blocks."""
    conditional: bool = False
    """Condition on the class labels of the data."""
    label_dropout: float = 0.0
    """Share of the labels that are replaced by the null class in training; 0: the network has none. Guidance
    needs it, as does sampling without a class."""
    gradient_checkpointing: bool = False
    """Recompute residual blocks in the backward pass: less memory, about a third more time."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        for name in ("channels", "blocks"):
            require(getattr(self, name) >= 1, name, f"must be at least 1, not {getattr(self, name)}")
        require(bool(self.channel_mult), "channel_mult", "needs at least one level")
        require(0 <= self.dropout < 1, "dropout", f"must be in [0, 1), not {self.dropout}")
        check_label_dropout(self)

    if TYPE_CHECKING:

        @property
        def head_channels(self) -> int:
            """Channels per attention head; 0 for one head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNormUNet(Architecture):
    """Settings of the U-Nets with group normalisation; `channels` is a multiple of `norm_groups`."""

    norm_groups: int = 32
    """Groups of every group normalisation."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        Architecture.__post_init__(self)
        require(self.norm_groups >= 1, "norm_groups", f"must be at least 1, not {self.norm_groups}")

    if TYPE_CHECKING:

        @property
        def scale_shift(self) -> bool:
            """True if the time embedding scales and shifts the normalised features."""

        @property
        def resample_blocks(self) -> bool:
            """True if residual blocks change the resolution."""

        @property
        def fourier_scale(self) -> float:
            """Standard deviation of the frequencies of the time embedding."""


@choice(Network, "adm")
@dataclass(frozen=True, slots=True, kw_only=True)
class ADM(GroupNormUNet):
    """OpenAI's U-Net.  Dhariwal & Nichol 2021."""

    fourier_scale: ClassVar[float] = 1.0

    head_channels: int = 64
    """Channels per attention head; 0 for one head."""
    scale_shift: bool = True
    """Scale and shift the normalised features by the time embedding; else the embedding is added."""
    resample_blocks: bool = True
    """Change the resolution in residual blocks; else by strided convolutions and upsampling convolutions."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        GroupNormUNet.__post_init__(self)
        _check_heads(self.head_channels)


@choice(Network, "ddpm++")
@dataclass(frozen=True, slots=True, kw_only=True)
class DDPMpp(GroupNormUNet):
    """DDPM++ of Song et al. 2021, as in EDM: one attention head, and the time is added to the features."""

    head_channels: ClassVar[int] = 0
    scale_shift: ClassVar[bool] = False
    resample_blocks: ClassVar[bool] = True
    fourier_scale: ClassVar[float] = 1.0


@choice(Network, "ncsn++")
@dataclass(frozen=True, slots=True, kw_only=True)
class NCSNpp(GroupNormUNet):
    """NCSN++ of Song et al. 2021, as in EDM: one attention head, and the time is added to the features."""

    head_channels: ClassVar[int] = 0
    scale_shift: ClassVar[bool] = False
    resample_blocks: ClassVar[bool] = True

    fourier_scale: float = 16.0
    """Standard deviation of the frequencies of the time embedding; iCT's is 0.02."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        GroupNormUNet.__post_init__(self)
        require(self.fourier_scale > 0, "fourier_scale", f"must be positive, not {self.fourier_scale}")


@choice(Network, "edm2")
@dataclass(frozen=True, slots=True, kw_only=True)
class EDM2(Architecture):
    """EDM2's magnitude-preserving U-Net, config G.  Karras et al. 2024; `channels` 192 is its size S."""

    channels: int = 192
    """Channels that the levels' are multiples of."""
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    """Factor of `channels` for each level; each further level halves the resolution."""
    blocks: int = 3
    """Residual blocks per level."""
    attention_resolutions: tuple[int, ...] = (16, 8)
    """Resolutions at which attention is used: pixels of the shorter side. The middle has it in any case."""
    head_channels: int = 64
    """Channels per attention head; 0 for one head."""
    fourier_scale: float = 1.0
    """Standard deviation of the frequencies of the time embedding; the paper's bandwidth."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        Architecture.__post_init__(self)
        _check_heads(self.head_channels)
        require(self.fourier_scale > 0, "fourier_scale", f"must be positive, not {self.fourier_scale}")


def _check_heads(channels: int) -> None:
    require(channels >= 0, "head_channels", f"must be at least 1, or 0 for one head, not {channels}")

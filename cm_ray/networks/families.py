"""Fixed properties of each U-Net architecture that are not settings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cm_ray.networks.architectures import GroupNormUNet


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Fixed properties of an architecture. A `UNet` is built from them and the `Architecture` settings."""

    time: Literal["cos-sin", "sin-cos", "fourier"]
    """Features of the time: sinusoids of geometric frequencies (with sin-cos, the last frequency is exactly
    1/10,000), or of random frequencies (fourier)."""
    time_width: int
    """Channels of the time features, as a multiple of `Architecture.channels`."""
    labels_first: bool
    """True if labels are added to the time features, False if they are added to the time embedding."""
    first_mult: bool
    """True if the first convolution has the channels of the first level, else `Architecture.channels`."""
    attention_last: bool
    """True if only the last block of a level of the decoder has attention."""
    filter: tuple[float, ...]
    """Taps of the resampling filter along each axis; (1, 1) is average pooling and nearest neighbours."""
    project_resampled: bool
    """True if a skip connection that resamples has a 1x1 convolution even with equal channels."""
    pyramid: bool
    """True if the downsampled and convolved input is added to every level of the encoder."""
    skip_scale: float
    """Factor of the sum of a block and its skip connection."""
    eps: float
    """Epsilon of group normalisation."""
    xavier: bool
    """True for the initial weights of Song et al. 2021, False for PyTorch's with last layers at zero."""


ADM = Family(
    time="cos-sin",
    time_width=1,
    labels_first=False,
    first_mult=True,
    attention_last=False,
    filter=(1, 1),
    project_resampled=False,
    pyramid=False,
    skip_scale=1.0,
    eps=1e-5,
    xavier=False,
)
"""ADM of Dhariwal & Nichol 2021."""

DDPMPP = Family(
    time="sin-cos",
    time_width=1,
    labels_first=True,
    first_mult=False,
    attention_last=True,
    filter=(1, 1),
    project_resampled=True,
    pyramid=False,
    skip_scale=math.sqrt(0.5),
    eps=1e-6,
    xavier=True,
)
"""DDPM++ of Song et al. 2021, in the setting of Karras et al. 2022, appendix F.4."""

NCSNPP = Family(
    time="fourier",
    time_width=2,
    labels_first=True,
    first_mult=False,
    attention_last=True,
    filter=(1, 3, 3, 1),
    project_resampled=True,
    pyramid=True,
    skip_scale=math.sqrt(0.5),
    eps=1e-6,
    xavier=True,
)
"""NCSN++ of Song et al. 2021, in the setting of Karras et al. 2022, appendix F.4."""

FAMILIES = {"adm": ADM, "ddpm++": DDPMPP, "ncsn++": NCSNPP}


def family_of(config: GroupNormUNet) -> Family:
    """Return the fixed properties of the architecture of these settings."""
    return FAMILIES[config.family]

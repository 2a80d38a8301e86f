"""What tells the architectures apart, beside the settings that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cm_ray.networks.architectures import Architecture


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The traits of an architecture. One U-Net is built of these and of a `Architecture`."""

    time: Literal["cos-sin", "sin-cos", "fourier"]
    """Features of the time: geometric frequencies (sin-cos: the last is 1/10,000 itself), or random ones."""
    time_width: int
    """Channels of these features over `Architecture.channels`."""
    labels_first: bool
    """Whether labels join the time before the layers that embed it, or after them."""
    first_mult: bool
    """Whether the first convolution has the channels of the first level, or `Architecture.channels`."""
    attention_last: bool
    """Whether, on the way up, only the last block of a level has attention."""
    filter: tuple[float, ...]
    """Taps of resampling, along each side; (1, 1): the mean of 2x2, and nearest neighbours."""
    project_resampled: bool
    """Whether a skip connection that resamples has a 1x1 convolution, whatever its channels."""
    pyramid: bool
    """Whether the input, resampled and convolved, joins every level on the way down."""
    skip_scale: float
    """What a sum of two paths is multiplied by."""
    eps: float
    """Of group normalisation."""
    xavier: bool
    """Whether weights begin as in Song et al. 2021, or as PyTorch's, last layers at zero."""


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
"""Dhariwal & Nichol 2021."""

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


def family_of(config: Architecture) -> Family:
    """Return the traits that a config names."""
    return FAMILIES[config.family]

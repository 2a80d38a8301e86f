"""The levels of U-Nets: the sizes that they halve images to."""

from __future__ import annotations

from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import Architecture


def level_sizes(config: Architecture, shape: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Return the height and width of each level for images (c, h, w).

    Raises UserError, with the names of the settings, when the images cannot be halved so often.
    """
    check_levels(config, shape)
    _, height, width = shape
    return [(height >> level, width >> level) for level in range(len(config.channel_mult))]


def attends(config: Architecture, size: tuple[int, int]) -> bool:
    """Return True if a level of this height and width has attention."""
    return min(size) in config.attention_resolutions


def check_levels(config: Architecture, shape: tuple[int, int, int]) -> None:
    """Raise UserError, with the names of the settings, when images (c, h, w) cannot be halved so often."""
    _, height, width = shape
    halvings = len(config.channel_mult) - 1
    size = f"{height}" if height == width else f"{height}x{width}"
    refuse_unless(
        height % 2**halvings == width % 2**halvings == 0,
        f"images of {size} pixels cannot be halved {halvings} times; set "
        f"{setting('network.channel_mult')} to fewer levels, or set another {setting('data.size', 'size')}",
    )


def refuse_unless(holds: bool, sentence: str) -> None:
    """Raise UserError that the network does not fit, unless a condition holds."""
    if not holds:
        raise UserError(f"The network does not fit: {sentence}.")

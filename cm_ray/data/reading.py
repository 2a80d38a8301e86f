"""The settings by which the colours of image files become 8-bit pixels.

A model keeps those of its training, so that images that are edited get the pixels that they would have had
there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cm_ray.errors import require

_NAMED = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The settings that decide the colours of an image."""

    background: str = "white"
    """The colour behind transparent pixels: white, black, grey or #rrggbb."""
    bits: int = 0
    """The bits that samples of more than 8 bits use at least: white is 2^bits - 1. Of all images, the one
    that uses most decides; 0 leaves it to them."""

    def __post_init__(self) -> None:
        """Raise SettingError on a colour without meaning and on bits that there are not."""
        known = self.background in _NAMED or _HEX.fullmatch(self.background)
        require(bool(known), "background", f"is white, black, grey or #rrggbb, not {self.background!r}")
        require(self.bits == 0 or 8 <= self.bits <= 16, "bits", f"is 8 to 16, or 0, not {self.bits}")

    @property
    def ground(self) -> tuple[int, int, int]:
        """The background as levels of red, green and blue."""
        if self.background in _NAMED:
            return _NAMED[self.background]
        red, green, blue = bytes.fromhex(self.background[1:])
        return red, green, blue

"""The settings by which image files become pixels.

A model keeps those of its training that decide colours, so that images that are edited get the pixels that
they would have had there.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, TypeVar, get_args

from cm_ray.data.interface.columns import Columns
from cm_ray.errors import require

_Options = TypeVar("_Options", bound="ReadOptions")
OnBadImage = Literal["raise", "skip"]
MOST_PIXELS = 250_000_000
"""The default limit of the pixels of an image: about 1 GB while it is decoded."""
_NAMED = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128)}
_DEFAULT = "white"
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The settings that decide the colours of an image."""

    background: str = ""
    """The colour behind transparent pixels: white, black, grey or #rrggbb; empty: white."""
    bits: int = 0
    """The bits that samples of more than 8 bits use at least: white is 2^bits - 1. Of all images, the one
    that uses most decides; 0 leaves it to them."""

    def __post_init__(self) -> None:
        """Raise SettingError on a colour without meaning and on bits that there are not."""
        known = self.background in ("", *_NAMED) or _HEX.fullmatch(self.background)
        require(bool(known), "background", f"is white, black, grey or #rrggbb, not {self.background!r}")
        require(self.bits == 0 or 8 <= self.bits <= 16, "bits", f"is 8 to 16, or 0, not {self.bits}")

    @property
    def ground(self) -> tuple[int, int, int]:
        """The background as levels of red, green and blue."""
        name = self.background or _DEFAULT
        if name in _NAMED:
            return _NAMED[name]
        red, green, blue = bytes.fromhex(name[1:])
        return red, green, blue

    def used(self, bits: int) -> Reading:
        """Return the reading of images whose samples used `bits` in the end, 0 where all had 8."""
        return Reading(background=self.background or _DEFAULT, bits=bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions(Reading):
    """Options for reading images. Raises SettingError on values that are not allowed."""

    split: str = ""
    """Split of data that has several, such as train, val or test; empty: the one for training."""
    size: int = 0
    """Crop the centre to a square and resize it to this many pixels; 0 takes images as they are."""
    channels: Literal[0, 1, 3] = 0
    """1 reads all images as grey, 3 as RGB; 0 as they are, and as RGB where there are both."""
    on_bad_image: OnBadImage = "raise"
    """The reaction to an image that cannot be read; skipped ones are counted in the manifest."""
    most_pixels: int = MOST_PIXELS
    """The largest number of pixels of an image. A larger JPEG is decoded at a fraction of its size, if `size`
    allows it; any other larger image cannot be read."""
    image_column: str = ""
    """Column of the images in Parquet files, or array of them in an .npz; empty: found by its name."""
    label_column: str = ""
    """Column or array of the labels; empty: found by its name; none: the images get no labels."""

    @property
    def columns(self) -> Columns:
        """The columns that are named."""
        return Columns(self.image_column, self.label_column)

    def __post_init__(self) -> None:
        """Raise SettingError on values that are not allowed."""
        Reading.__post_init__(self)
        require(self.size >= 0, "size", f"must not be negative, but is {self.size}")
        require(self.channels in (0, 1, 3), "channels", f"is 1, 3 or 0, not {self.channels}")
        known = self.on_bad_image in get_args(OnBadImage)
        require(known, "on_bad_image", f"is 'raise' or 'skip', not {self.on_bad_image!r}")
        require(self.most_pixels >= 1, "most_pixels", f"must be at least 1, not {self.most_pixels}")

    def updated(self: _Options, by: ReadOptions) -> _Options:
        """Return the options with those of `by` that differ from the default."""
        plain, wanted = asdict(ReadOptions()), asdict(by.read_options)
        return replace(self, **{name: wanted[name] for name in plain if wanted[name] != plain[name]})

    @property
    def read_options(self) -> ReadOptions:
        """These options alone, of settings that have others too."""
        return ReadOptions(**{field.name: getattr(self, field.name) for field in fields(ReadOptions)})

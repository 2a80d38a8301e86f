"""Durations as people write them: 90s, 30m, 1h30m, 2d."""

from __future__ import annotations

import re

from cm_ray.errors import SettingError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as 90s, 30m, 1.5h or 1h30m; 0 needs no unit.

    Raises ValueError, with the end of a sentence, on any other text.
    """
    parts = _PART.findall(text)
    if text != "0" and (not parts or "".join(map("".join, parts)) != text):
        raise ValueError(f"must be a duration such as 90s, 30m or 2h, not {text!r}")
    return float(sum(float(number) * _SECONDS[unit] for number, unit in parts))


def check_duration(field: str, text: str) -> None:
    """Raise SettingError when the value of a field is no duration."""
    try:
        seconds_of(text)
    except ValueError as error:
        raise SettingError(field, str(error)) from None

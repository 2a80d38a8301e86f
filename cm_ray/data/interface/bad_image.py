"""The errors that mean: this image cannot be read, though others may be."""

from __future__ import annotations

from cm_ray.errors import setting


class BadImageError(Exception):
    """Raised for an image that cannot be read; the message gives the reason."""

    advice = "repair or remove it"

    @property
    def problem(self) -> str:
        """The rest of a sentence that begins with the image's name."""
        return f"is not a readable image ({self})"


class TooManyPixelsError(BadImageError):
    """Raised for an image of more pixels than are allowed."""

    advice = f"make it smaller or raise {setting('most_pixels', 'data.most_pixels')}"

    @property
    def problem(self) -> str:
        """The rest of a sentence that begins with the image's name."""
        return str(self)


class IncompleteRowError(BadImageError):
    """Raised for a row of a table that lacks its image or its label, which the message names."""

    advice = "complete or remove it"

    @property
    def problem(self) -> str:
        """The rest of a sentence that begins with the row's name."""
        return f"has no {self}"

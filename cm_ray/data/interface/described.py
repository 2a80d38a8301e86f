"""The description that every data set gives of its images, in shards or in memory."""

from __future__ import annotations

from typing import Protocol

from cm_ray.data.interface.reading import Reading


class DescribedImages(Protocol):
    """The images' source, content and number; a `Manifest` and an `ImageSet` have them."""

    @property
    def source(self) -> str:
        """Short name of the source of the images."""

    @property
    def fingerprint(self) -> str:
        """Digest of the images that does not depend on their order."""

    @property
    def count(self) -> int:
        """Number of images."""


class ReadImages(Protocol):
    """Notes on the images that were read; a `Manifest` and an `ImageSet` have them."""

    @property
    def skipped(self) -> int:
        """Number of bad images that were left out."""

    @property
    def reading(self) -> Reading:
        """The background and the bits that image files were read with."""

    @property
    def transparent(self) -> int:
        """Number of images through which the background is seen."""

    @property
    def profiles_ignored(self) -> int:
        """Number of images with a colour profile that is damaged or does not fit."""


def remarks(images: ReadImages) -> list[str]:
    """Return phrases for what is not as in the files, and for what was left out."""
    found = []
    if images.skipped:
        found.append(f"{images.skipped:,} unreadable ones were skipped")
    if images.transparent:
        found.append(f"{images.transparent:,} transparent ones are on {images.reading.background}")
    if images.reading.bits:
        found.append(f"samples of {images.reading.bits} bits were scaled to 8")
    if images.profiles_ignored:
        found.append(f"{images.profiles_ignored:,} colour profiles that do not fit were ignored")
    return found

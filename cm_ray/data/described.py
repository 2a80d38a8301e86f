"""The description that every data set gives of its images, in shards or in memory."""

from __future__ import annotations

from typing import Protocol


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

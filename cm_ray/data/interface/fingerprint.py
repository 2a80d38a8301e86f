"""Fingerprints of images and labels: the same images give the same fingerprint, whatever their form."""

from __future__ import annotations

import hashlib

import numpy as np

from cm_ray.data.interface.source import Labels, Pixels

_MODULUS = 1 << 256


class ContentHash:
    """Running hash of labelled images; `add` them in order."""

    def __init__(self) -> None:
        self._sum = 0
        self._order = hashlib.sha256()

    def add(self, images: Pixels, labels: Labels) -> None:
        """Add uint8 images (n, c, h, w) with their int64 labels (n,)."""
        numbers = np.ascontiguousarray(labels, dtype="<i8")
        for image, number in zip(images, numbers, strict=True):
            digest = hashlib.sha256(image.tobytes() + number.tobytes()).digest()
            self._order.update(digest)
            self._sum = (self._sum + int.from_bytes(digest, "big")) % _MODULUS

    @property
    def content(self) -> str:
        """Sum, modulo 2^256 and in hex, of the SHA-256 of every image's pixels and label (little-endian).

        Sums of several hashes add up, so the total depends neither on the order nor on the grouping.
        """
        return f"{self._sum:064x}"

    @property
    def order(self) -> str:
        """SHA-256, in hex, of the images' hashes in their order."""
        return self._order.hexdigest()


def fingerprint(shape: tuple[int, int, int], count: int, contents: list[str]) -> str:
    """Return the fingerprint of `count` images of `shape` (c, h, w), given the `content` of their hashes."""
    total = sum(int(content, 16) for content in contents) % _MODULUS
    return hashlib.sha256(f"{shape} {count} {total:064x}".encode()).hexdigest()

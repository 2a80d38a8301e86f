"""The agreement of a data set's images on their shape, and on the bits that their samples use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from cm_ray.data.source import MixedBitsError, MixedChannelsError, ReadOptions
from cm_ray.errors import UserError

_T = TypeVar("_T")


def in_agreement(read: Callable[[ReadOptions], _T], options: ReadOptions) -> _T:
    """Call `read` until all images have the same channels, and their samples the same bits.

    Grey images become RGB where there are others, and samples of more than 8 bits are scaled by the bits of
    the image that uses most.
    """
    while True:
        try:
            return read(options)
        except MixedChannelsError:
            options = replace(options, channels=3)
        except MixedBitsError as error:
            options = replace(options, bits=error.bits)


def agreed_bits(bits: int, others: int) -> int:
    """Return the bits that the samples of two images, or of two groups of them, use; 0 where all have 8 bits.

    Raises MixedBitsError, with the greater number, when they differ.
    """
    if bits and others and bits != others:
        raise MixedBitsError(max(bits, others))
    return bits or others


def check_same_shape(name: str, shape: tuple[int, ...], other: str, other_shape: tuple[int, ...]) -> None:
    """Compare two images' shapes (h, w, c).

    Raises UserError when the sizes differ, MixedChannelsError when only the channels do.
    """
    if shape[:2] != other_shape[:2]:
        raise UserError(
            f"The images have different sizes: {name} is {shape[1]}x{shape[0]} and {other} is "
            f"{other_shape[1]}x{other_shape[0]}; set size to crop and resize them all."
        )
    if shape != other_shape:
        raise MixedChannelsError(f"{name} has {shape[2]} channels, {other} has {other_shape[2]}")

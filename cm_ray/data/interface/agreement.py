"""The agreement of a data set's images on their shape, and on the bits that their samples use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from cm_ray.data.interface.source import MixedBitsError, MixedChannelsError, ReadOptions
from cm_ray.errors import UserError, setting

_T = TypeVar("_T")
Shape = tuple[int, int, int]


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
            f"{other_shape[1]}x{other_shape[0]}; set {setting('size', 'data.size')} to crop and resize them "
            "all."
        )
    if shape != other_shape:
        raise MixedChannelsError(f"{name} has {shape[2]} channels, {other} has {other_shape[2]}")


def check_comparable(
    name: str, shape: Shape, other: str, other_shape: Shape, *, size: str, channels: str
) -> None:
    """Compare the shapes (c, h, w) of two sets of images.

    name, other: what the images are called in a message. size, channels: the instruction of the message when
    the sizes differ, and when the channels do. Raises UserError.
    """
    if shape[1:] != other_shape[1:]:
        raise UserError(
            f"{name} are {shape[2]}x{shape[1]}, and {other} are {other_shape[2]}x{other_shape[1]}; {size}."
        )
    if shape != other_shape:
        raise UserError(
            f"{name} are {colours(shape[0])}, and {other} are {colours(other_shape[0])}; {channels}."
        )


def colours(channels: int) -> str:
    """Return the word for images of 1 or 3 channels."""
    return "grey" if channels == 1 else "RGB"

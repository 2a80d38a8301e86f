"""Comparison of shards with the options by which images are wanted."""

from __future__ import annotations

from pathlib import Path

from cm_ray.data.interface.agreement import colours
from cm_ray.data.interface.reading import Reading, ReadOptions
from cm_ray.data.shards.manifest import Manifest
from cm_ray.errors import UserError, setting


def check_made(folder: Path, manifest: Manifest, options: ReadOptions) -> None:
    """Compare shards with the options that are set.

    Raises UserError when another size, other channels, another background or more bits are wanted.
    """
    channels, height, width = manifest.shape
    made = manifest.reading
    if options.size and (height, width) != (options.size, options.size):
        raise UserError(
            f"{folder} holds shards of {width}x{height} images, not of size {options.size}; make shards of "
            f"that size, or set {setting('size', 'data.size')} to 0."
        )
    if options.channels not in (0, channels):
        raise UserError(
            f"{folder} holds shards of {colours(channels)} images, not of {colours(options.channels)} ones; "
            f"make shards of such, or set {setting('channels', 'data.channels')} to 0."
        )
    wanted = Reading(background=options.background)
    if options.background and manifest.transparent and wanted.ground != made.ground:
        raise UserError(
            f"{folder} holds shards of transparent images on {made.background}, not on {options.background}; "
            "make shards on that background, or leave it out."
        )
    if 0 < made.bits < options.bits:
        raise UserError(
            f"{folder} holds shards of samples of {made.bits} bits, not of {options.bits}; make shards of as "
            f"many bits, or set {setting('bits', 'data.bits')} to 0."
        )


def check_given(folder: Path, manifest: Manifest, options: ReadOptions) -> None:
    """Compare shards that a user gives with the options that are set.

    Raises UserError as `check_made`, and when a split or columns are named.
    """
    if options.split:
        raise UserError(f"{folder} holds shards, which have no split {options.split!r}; leave split out.")
    if options.columns:
        raise UserError(f"{folder} holds shards, which have no columns to name; leave them out.")
    check_made(folder, manifest, options)

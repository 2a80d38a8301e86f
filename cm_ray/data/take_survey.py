"""Surveys of data in any form, without reading its images."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cm_ray.data.interface.classes import count_labels
from cm_ray.data.interface.outline import outline_of_pixels
from cm_ray.data.interface.reading import MOST_PIXELS, OnBadImage, ReadOptions
from cm_ray.data.interface.source import LeftOut, Source
from cm_ray.data.open_images import ArrayImages, OpenedImages, SourceImages, open_images
from cm_ray.data.shards.manifest import Manifest, is_shard_folder
from cm_ray.data.shards.shard_options import check_given
from cm_ray.data.survey import Survey
from cm_ray.errors import UserError


def survey(
    data: object,
    *,
    size: int = 0,
    split: str = "",
    channels: Literal[0, 1, 3] = 0,
    background: str = "",
    bits: int = 0,
    on_bad_image: OnBadImage = "raise",
    most_pixels: int = MOST_PIXELS,
    image_column: str = "",
    label_column: str = "",
) -> Survey:
    """Return what is understood of images in any form that `load_images` takes; printed, it says it in words.

    Labels are counted, and the headers of up to 256 images that are spread over the data are looked at;
    nothing is written. The arguments are those of `load_images`. Raises UserError when the data is missing,
    cannot be understood, or could be read in two ways.
    """
    options = ReadOptions(
        split=split,
        size=size,
        channels=channels,
        background=background,
        bits=bits,
        on_bad_image=on_bad_image,
        most_pixels=most_pixels,
        image_column=image_column,
        label_column=label_column,
    )
    return take_survey(data, options)


def take_survey(data: object, options: ReadOptions) -> Survey:
    """Return the survey of images in any form; see `survey`."""
    if isinstance(data, str | Path) and str(data) and is_shard_folder(Path(data).expanduser()):
        folder = Path(data).expanduser()
        manifest = Manifest.load(folder)
        check_given(folder, manifest, options)
        return survey_of_shards(manifest)
    opened = open_images(data, options)
    if isinstance(opened, SourceImages):
        return survey_of_source(opened.source, options)
    return _survey_in_memory(opened, options)


def survey_of_source(source: Source, options: ReadOptions) -> Survey:
    """Return the survey of a file, a folder or a named data set."""
    return Survey.of(
        source.name,
        source.layout,
        source.outline(options),
        options,
        class_names=source.class_names,
        split=source.split,
        left_out=source.left_out,
    )


def survey_of_shards(manifest: Manifest) -> Survey:
    """Return the survey of shards, from their manifest."""
    channels, height, width = manifest.shape
    left = (LeftOut(manifest.skipped, "images", "they cannot be read"),) if manifest.skipped else ()
    return Survey(
        source=manifest.source,
        layout="shards",
        count=manifest.count,
        class_names=manifest.class_names,
        class_counts=manifest.class_counts,
        looked_at=manifest.count,
        sizes={f"{width}x{height}": manifest.count},
        colours={"grey" if channels == 1 else "RGB": manifest.count},
        left_out=left,
        made_of=manifest.survey,
    )


def _survey_in_memory(opened: OpenedImages, options: ReadOptions) -> Survey:
    """Return the survey of arrays. Raises UserError for a data set, which tells what it has by being read."""
    if not isinstance(opened, ArrayImages):
        raise UserError(
            f"The images of {opened.name} are a data set in memory, whose sizes and labels are known when it "
            "is read; give a path or arrays."
        )
    _, height, width, channels = opened.array.images.shape
    outline = outline_of_pixels(count_labels(opened.array.labels), width, height, grey=channels == 1)
    return Survey.of(opened.name, "images in memory", outline, options, class_names=opened.class_names)

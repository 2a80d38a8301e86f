"""Headers of encoded images: their sizes and colours, without decoding a pixel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cm_ray.data.interface.bad_image import BadImageError, IncompleteRowError
from cm_ray.data.interface.outline import Head, Outline
from cm_ray.data.interface.reading import ReadOptions
from cm_ray.data.pictures.flattening import is_turned
from cm_ray.data.pictures.image_formats import READABLE_FORMATS
from cm_ray.data.pictures.pillow_files import decoding, open_file

_GREY = ("1", "L", "LA", "La", "I", "F")


def outline_of_files(
    labels: Counter[int], items: Iterable[tuple[str, bytes | str, int]], options: ReadOptions
) -> Outline:
    """Return the outline of encoded images.

    items: name, bytes, or the name of what is missing instead of them, and label of the images to look at.
    """
    heads, damaged = [], []
    for name, data, _ in items:
        try:
            if isinstance(data, str):
                raise IncompleteRowError(data)
            heads.append(head_of(data, options))
        except BadImageError as error:
            damaged.append(f"{name} {error.problem}")
    return Outline(labels, tuple(heads), tuple(damaged))


def head_of(data: bytes, options: ReadOptions) -> Head:
    """Return the header of an image file's bytes. Raises BadImageError as `decode` does."""
    with decoding(), open_file(data, READABLE_FORMATS, options.most_pixels, options.size) as image:
        width, height = image.size[::-1] if is_turned(image) else image.size
        grey = image.mode in _GREY or image.mode.startswith("I;")
        return Head(width, height, grey, image.has_transparency_data)

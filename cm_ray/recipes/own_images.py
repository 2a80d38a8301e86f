"""Recipes for images of one's own: the CIFAR-10 recipe of a method, with a network for their size."""

from __future__ import annotations

from dataclasses import replace

from cm_ray.core.averages import PowerEMA
from cm_ray.core.precondition import EDM, TrigFlow
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import Architecture
from cm_ray.recipes import cifar10
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import TrackingSettings

METHODS = {
    "edm": cifar10.edm_cifar10,
    "cd": cifar10.cd_cifar10,
    "ct": cifar10.ct_cifar10,
    "pd": cifar10.pd_cifar10,
    "ict": cifar10.ict_cifar10,
    "ect": cifar10.ect_cifar10,
    "tcm": cifar10.tcm_cifar10,
    "meanflow": cifar10.meanflow_cifar10,
    "trigflow": cifar10.trigflow_cifar10,
    "scd": cifar10.scd_cifar10,
    "sct": cifar10.sct_cifar10,
}
"""Recipes by the words of their methods and settings."""
_LOWEST = 8
"""Pixels per side of the last level, if the size allows it."""


def recipe_for_images(
    method: str, shape: tuple[int, int, int], *, classes: int = 0, sigma_data: float = 0.5
) -> Recipe:
    """Return the recipe of a method for images of a shape (c, h, w).

    The network gets as many levels as lead from the shorter side to 8 pixels, if both sides can be halved so
    often, and attention at 16 and 8.
    Averages are power functions, which suit trainings of any length.
    classes: of the data; a network for labelled images is conditional. sigma_data: standard deviation of the
    data in [-1, 1]. Scores are by the extractor of `extractor_for`. Raises UserError on images that are
    too small.
    """
    _, height, width = shape
    if min(height, width) < _LOWEST:
        raise UserError(
            f"The images are {width}x{height}: sides of at least {_LOWEST} are needed; "
            f"set {setting('data.size', 'size', python='size')}."
        )
    base = METHODS[method]()
    assert isinstance(base.network, Architecture)
    column = base.column
    if isinstance(column, EDM | TrigFlow):
        column = replace(column, sigma_data=round(sigma_data, 4))
    network = replace(
        base.network,
        channel_mult=_channel_mult(height, width),
        attention_resolutions=(16, 8),
        conditional=classes > 0,
    )
    return replace(
        base,
        name=f"{method}_{size_in_words(shape)}",
        averages=PowerEMA(),
        network=network,
        column=column,
        data=replace(base.data, path=""),
        evaluation=replace(base.evaluation, extractor=extractor_for(shape)),
        tracking=TrackingSettings(),
    )


def extractor_for(shape: tuple[int, int, int]) -> str:
    """Return an extractor that needs no download, for images of any kind; none if not grey or RGB."""
    return "scattering" if shape[0] in (1, 3) else "none"


def size_in_words(shape: tuple[int, int, int]) -> str:
    """Return the size of images (c, h, w) for names: 64, or 96x64 as width and height."""
    _, height, width = shape
    return str(height) if height == width else f"{width}x{height}"


def _channel_mult(height: int, width: int) -> tuple[int, ...]:
    """Return the channels of each level, over the base: 2, but 1 at 128 pixels and more."""
    levels = 1
    while height % 2 == width % 2 == 0 and min(height, width) // 2 >= _LOWEST:
        height, width = height // 2, width // 2
        levels += 1
    return tuple(1 if levels - level > 4 else 2 for level in range(levels))

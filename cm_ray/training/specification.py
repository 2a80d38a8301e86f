"""The specification of the model that a recipe trains on given images."""

from __future__ import annotations

from typing import Protocol

from cm_ray.data.interface.reading import Reading
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import EDM2, Architecture, GroupNormUNet, Network
from cm_ray.networks.edm2 import check_heads
from cm_ray.networks.levels import check_levels
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import check_widths
from cm_ray.recipes.recipe import Recipe
from cm_ray.sampling.multistep import TimePoints
from cm_ray.sampling.samplers import Jumps, Multistep, PointSampler
from cm_ray.sampling.text import parse


class ShapedImages(Protocol):
    """The properties of the data that a model's specification needs; a manifest and an ImageSet have them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (c, h, w) of every image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""

    @property
    def reading(self) -> Reading:
        """The background and the bits that image files were read with."""

    @property
    def class_counts(self) -> tuple[int, ...]:
        """Number of images of each class; empty without labels."""


def check_before_images(config: Recipe) -> None:
    """Raise UserError when the network cannot be built, as far as can be told before the images are known."""
    size = config.data.size
    _check_network(config.network, (3, size, size) if size else None)


def _check_network(network: Network, shape: tuple[int, int, int] | None) -> None:
    """Raise UserError when the settings of a U-Net do not fit each other, or images of a known shape."""
    if isinstance(network, Architecture) and shape is not None:
        check_levels(network, shape)
    if isinstance(network, EDM2):
        check_heads(network)
    elif isinstance(network, GroupNormUNet):
        check_widths(network)


def model_spec(config: Recipe, data: ShapedImages) -> ModelSpec:
    """Return the specification of the model for these images.

    Raises UserError when the network does not fit the images, or when it needs labels and there are none.
    """
    _check_network(config.network, data.shape)
    if config.network.conditional and not data.class_names:
        raise UserError(
            f"The images have no labels, but {setting('network.conditional')} needs them; give labels, or "
            "turn it off."
        )
    return ModelSpec(
        network=config.network,
        diffusion=config.diffusion,
        shape=data.shape,
        class_names=data.class_names,
        class_counts=data.class_counts,
        time_points=_time_points(config),
        sampler=config.own_sampler(),
        reading=data.reading,
        augment=config.augmentation.values,
    )


def _time_points(config: Recipe) -> TimePoints:
    """Return the time points of the samplers in a few steps that are scored; a search replaces them later."""
    if config.diffusion.boundary == "none":
        return ()
    own = config.own_sampler()
    samplers = [parse(text, config.diffusion, own=own) for text in config.evaluation.samplers]
    kind: type[PointSampler] = Jumps if config.diffusion.two_times else Multistep
    first = {each.nfe: each.taus for each in reversed(samplers) if isinstance(each, kind)}
    return tuple(first[count] for count in sorted(first))

"""Training in a line: a recipe or the name of one, and images in any form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from cm_ray.api.run import Run
from cm_ray.data.glimpse import glimpse_of
from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError, closest
from cm_ray.networks.model import from_uint8
from cm_ray.own_code import Code
from cm_ray.recipes import RECIPES
from cm_ray.recipes.own_images import METHODS, recipe_for_images
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings
from cm_ray.settings.tree import override
from cm_ray.training.trainer import Callback, Trainer


class TrainingImages(Protocol):
    """Images that a recipe is made for: in shards, or a glimpse of them."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of every image."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each class; empty without labels."""

    def blocks(self) -> Iterator[Tensor]:
        """Yield the images, uint8 (b, c, h, w)."""


def train(
    recipe: str | Recipe,
    data: Any = None,
    *,
    out: str | Path = "",
    size: int = 0,
    steps: int = 0,
    changes: Mapping[str, Any] | None = None,
    network: type[nn.Module] | None = None,
    device: str = "auto",
    callbacks: Sequence[Callback] = (),
    quiet: bool = False,
    own_code: Code | Iterable[Code] = (),
) -> Run:
    """Train to the last step in this process, and return the finished run.

    The same call goes on from the last checkpoint of `out`, a directory or an address of an object store
    (s3://bucket/run). recipe: a `Recipe`, the name of one
    (ict_digits), or of a method (ct, ict, ect, cd, pd, edm), for which a recipe is made that fits the images.
    data: a folder of images, Parquet, an .npz, the name of a data set, a tensor or array, (images, labels), a
    PyTorch or a Ray data set; by default the recipe's. size: crop and resize the images to this many pixels.
    steps: training steps, else the recipe's. changes: settings by dotted path, such as {"distance": "l2"}.
    network, device, callbacks, quiet, own_code: see `Trainer`. Raises UserError before the first step.
    """
    wanted = _changes(data, size, steps, changes)

    def opened() -> TrainingImages | None:
        nonlocal data
        if data is None:
            return None
        data = load_images(data, **asdict(data_settings(DataSettings(), wanted).read_options))
        return glimpse_of(data)

    chosen = override(recipe if isinstance(recipe, Recipe) else recipe_for(recipe, opened), wanted)
    how: Any = {"device": device, "callbacks": callbacks, "quiet": quiet, "own_code": own_code}
    trainer = Trainer(chosen, data, out=out, network=network, **how).train()
    if not trainer.run.result_file.is_file():
        raise UserError(f"A callback stopped the training in {trainer.run.root}; train again to go on.")
    return Run(trainer.run.place, device)


def _changes(data: Any, size: int, steps: int, changes: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings that a call changes, by dotted path; those of the images are recorded with them."""
    given: dict[str, Any] = {}
    if data is not None:
        given["data.path"] = str(data) if isinstance(data, str | Path) else ""
    if size:
        given["data.size"] = size
    if steps:
        given["steps"] = steps
    return {**(changes or {}), **given}


def data_settings(settings: DataSettings, changes: Mapping[str, Any]) -> DataSettings:
    """Return the settings of data with those of the changes, by dotted path, that are about data."""
    prefix = "data."
    return override(
        settings,
        {path.removeprefix(prefix): value for path, value in changes.items() if path.startswith(prefix)},
    )


def recipe_for(name: str, images: Callable[[], TrainingImages | None]) -> Recipe:
    """Return a recipe by its name, or by the word of a method for given images.

    images: opens the images, where a method's word needs them. Raises UserError when there is no such recipe,
    or a method's word comes without images.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name not in METHODS:
        raise UserError(f"There is no recipe {name!r}: {closest(name, [*RECIPES, *METHODS])}")
    if (found := images()) is None:
        raise UserError(f"The recipe {name!r} is made for given images: pass data, or name {name}_cifar10.")
    deviation = float(from_uint8(next(iter(found.blocks()))).std())
    return recipe_for_images(name, found.shape, classes=len(found.class_names), sigma_data=deviation)

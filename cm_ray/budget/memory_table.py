"""A table of the memory that recipes need, counted for a device or measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cm_ray.budget.measured_memory import check_measurable, measured_memory
from cm_ray.budget.memory import accumulate_for, most_rows, of_one_image, training_memory
from cm_ray.command_line.settings.memory import MemoryQuestion
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes import named
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings
from cm_ray.settings.tree import override

_NAMED = {"digits": ((1, 8, 8), 10), "cifar10": ((3, 32, 32), 10)}
"""Shape of the images and number of classes of named data sets; the others have three channels and 1,000
classes."""
_GIB = 2**30
MARGIN = 0.2
"""Fraction of the memory that is left free for buffers of libraries and for gaps between tensors."""


def memory_table(asked: MemoryQuestion) -> Iterator[str]:
    """Yield the lines of a table with two rows for each recipe: without and with recomputed activations.

    Raises UserError on an unknown recipe, when the workers do not divide its batch size, and before the
    first line when nothing can be measured here.
    """
    if asked.measure:
        check_measurable(asked.device)
    counted = ["held", "of one image", "images at a time", "--accumulate", "scores", "copies on the host"]
    if asked.measure:
        counted = [f"{asked.measure} at a time: counted", "measured", "measured / counted"]
    yield _line("recipe", "recomputing", "parameters", *counted)
    yield _line("---", "---", *["---:"] * (1 + len(counted)))
    for name in asked.recipes:
        for recompute in (False, True):
            yield _row(name, recompute, asked)


def _row(name: str, recompute: bool, asked: MemoryQuestion) -> str:
    config = _configured(name, recompute, asked)
    shape, classes = _images(config.data)
    spec = ModelSpec(
        network=config.network, diffusion=config.diffusion, shape=shape, class_names=placeholders(classes)
    )
    cells = _measured(config, spec, asked) if asked.measure else _fitting(config, spec, asked)
    parameters = training_memory(config, spec, 1, asked.device).parameters
    return _line(f"`{name}`", "yes" if recompute else "no", f"{parameters / 1e6:.2f} M", *cells)


def _fitting(config: Recipe, spec: ModelSpec, asked: MemoryQuestion) -> list[str]:
    one = training_memory(config, spec, 1, asked.device)
    share = config.batch_size // asked.num_workers
    rows = min(share, most_rows(config, spec, (1 - MARGIN) * _GIB * asked.gib, asked.device))
    each = of_one_image(config, spec, asked.device)
    accumulate = str(accumulate_for(config, rows)) if rows else "does not fit"
    scores = training_memory(config, spec, rows or 1, asked.device)
    cells = [_gib(one.state + one.optimizing), _gib(each), str(rows), accumulate]
    return [*cells, _gib(scores.extractor + scores.evaluating), _gib(one.copies)]


def _measured(config: Recipe, spec: ModelSpec, asked: MemoryQuestion) -> list[str]:
    counted = training_memory(config, spec, asked.measure, asked.device).total
    found = measured_memory(config, spec, asked.measure, asked.device, whole=True)
    return [_gib(counted), _gib(found), f"{found / counted:.2f}"]


def _configured(name: str, recompute: bool, asked: MemoryQuestion) -> Recipe:
    """Return the recipe's settings for these workers, with accumulation of gradients where possible."""
    config = named(name)
    if config.batch_size % asked.num_workers:
        raise UserError(
            f"{setting('num_workers')} {asked.num_workers} does not divide the batch size of {name}, "
            f"which is {config.batch_size}; give another number."
        )
    share = config.batch_size // asked.num_workers
    changes: dict[str, Any] = {
        "network.gradient_checkpointing": recompute,
        "accumulate": next((count for count in range(2, share + 1) if share % count == 0), 1),
        "cluster.num_workers": asked.num_workers,
    }
    if asked.precision:
        changes["precision"] = asked.precision
    return override(config, changes)


def _images(data: DataSettings) -> tuple[tuple[int, int, int], int]:
    """Return the shape (c, h, w) of a recipe's images, and the number of their classes."""
    return _NAMED.get(data.path, ((3, data.size, data.size), 1000))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |" if cells[0] != "---" else f"|{'|'.join(cells)}|"


def _gib(count: float) -> str:
    return f"{count / _GIB:.2f} GiB"

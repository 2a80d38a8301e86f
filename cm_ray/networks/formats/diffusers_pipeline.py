"""Reads and writes directories of diffusers' `ConsistencyModelPipeline`, without diffusers.

The U-Net is a `UNet2DModel` and the scheduler a `CMStochasticIterativeScheduler`. Its time points are
integers: indices of a Karras grid of `num_train_timesteps` boundaries, with 0 at t_max.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.diffusers_config import MADE_WITH, UNET, config_of, write_config
from cm_ray.networks.formats.diffusers_files import STEM
from cm_ray.networks.formats.diffusers_names import to_diffusers
from cm_ray.networks.formats.diffusers_unet import (
    CONFIG,
    FIXED_STEPS,
    INDEX,
    PIPELINE,
    SCHEDULER,
    STEPS,
    read_unet,
)
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import AUGMENT
from cm_ray.settings.choices import word_of
from cm_ray.storage.files import folder_written_aside, write_files

_GRID = setting("boundaries", python="grid")


def is_pipeline(folder: Path) -> bool:
    """Return True if a folder holds a pipeline of diffusers."""
    return (folder / INDEX).is_file()


def read_pipeline(folder: Path) -> tuple[ModelSpec, Weights]:
    """Return the specification and the weights of a pipeline's consistency model.

    Classes are named by their numbers. Raises UserError, with the names of the file and of the setting,
    when it is another pipeline, or when its network is not an ADM U-Net.
    """
    return read_unet(folder / "unet", None)


def write_pipeline(
    folder: Path,
    spec: ModelSpec,
    weights: Weights,
    boundaries: int = 40,
    also: Mapping[str, bytes] = {},
) -> dict[int, tuple[int, ...]]:
    """Write a directory for ``ConsistencyModelPipeline.from_pretrained``, atomically.

    boundaries: number of boundaries of the grid that time points are rounded to (num_train_timesteps;
    OpenAI's models have 40 when distilled, 201 or 151 when trained).  also: content of more files by their
    names. Returns the pipeline's ``timesteps``
    for each number of evaluations for which the model has time points. Raises UserError when the pipeline
    cannot hold the model. The numbers of augmentations, which are zero for samples, have no place there.
    """
    _check_fits(spec, boundaries)
    written = {len(taus) + 1: _timesteps(taus, spec.diffusion, boundaries) for taus in spec.time_points}
    with folder_written_aside(folder) as aside:
        write_files(aside, also)
        for place in ("unet", "scheduler"):
            (aside / place).mkdir()
        write_config(aside / INDEX, _index())
        write_config(aside / "unet" / CONFIG, config_of(spec))
        write_config(aside / SCHEDULER, _scheduler_config(spec.diffusion, boundaries))
        known = {name: tensor for name, tensor in weights.items() if not name.startswith(AUGMENT)}
        tensors = {name: tensor.contiguous() for name, tensor in to_diffusers(spec, known).items()}
        save_file(tensors, aside / "unet" / f"{STEM}.safetensors", metadata={"format": "pt"})
    return written


def _scheduler_config(diffusion: Diffusion, boundaries: int) -> dict[str, Any]:
    assert isinstance(diffusion.column, EDM)
    sigma_data = diffusion.column.sigma_data
    return {
        "_class_name": STEPS,
        "_diffusers_version": MADE_WITH,
        "num_train_timesteps": boundaries,
        "sigma_min": diffusion.t_min,
        "sigma_max": diffusion.t_max,
        "sigma_data": sigma_data,
        "rho": diffusion.rho,
    } | FIXED_STEPS


def _index() -> dict[str, Any]:
    return {
        "_class_name": PIPELINE,
        "_diffusers_version": MADE_WITH,
        "scheduler": ["diffusers", STEPS],
        "unet": ["diffusers", UNET],
    }


def _check_fits(spec: ModelSpec, boundaries: int) -> None:
    """Raise UserError, with the reason, when the pipeline cannot compute the same as the model."""
    network, diffusion = spec.unet, spec.diffusion
    for holds, sentence in [
        (network.family == "adm", f"the network is {network.family}, and diffusers has only adm"),
        (diffusion.boundary != "none", "it is a diffusion model, and the pipeline is for consistency models"),
        (
            diffusion.boundary in ("skip", "none"),
            f"its boundary is {diffusion.boundary}, and the pipeline's is by skip connections",
        ),
        (not diffusion.guidance, "its network takes a guidance scale, and diffusers' does not"),
        (
            isinstance(diffusion.column, EDM),
            f"its column is {word_of(diffusion.column)}, and the pipeline's is edm",
        ),
        (
            (time_scale := getattr(diffusion.column, "time_scale", 1000)) == 1000,
            f"its time scale is {time_scale:g}, and the pipeline's is 1000",
        ),
        (
            network.channel_mult[0] == 1,
            f"{setting('network.channel_mult')} begins with {network.channel_mult[0]}, and diffusers' "
            "must begin with 1",
        ),
        (
            spec.shape[1] == spec.shape[2],
            f"its images are {spec.shape[2]}x{spec.shape[1]}, and the pipeline's are square",
        ),
        (boundaries >= 2, f"{_GRID} must be at least 2, not {boundaries}"),
    ]:
        if not holds:
            raise UserError(
                f"This model cannot be written as a ConsistencyModelPipeline: {sentence}; choose another "
                "format or other settings."
            )


def _timesteps(taus: tuple[float, ...], diffusion: Diffusion, boundaries: int) -> tuple[int, ...]:
    """Return the nearest indices of the pipeline's grid, descending to 0 (t_max), as the pipeline expects
    them.

    Raises UserError when two time points have the same index.
    """
    grid = karras_times(boundaries, t_min=diffusion.t_min, t_max=diffusion.t_max, rho=diffusion.rho).flip(0)
    points = torch.tensor((diffusion.t_max, *taus), dtype=torch.float64)
    straight = 1 / diffusion.rho
    nearest = (grid**straight - points[:, None] ** straight).abs().argmin(dim=1).tolist()
    if nearest != sorted({*nearest}):
        raise UserError(
            f"{_GRID} {boundaries} is too few to distinguish the time points {list(taus)}; give more."
        )
    return tuple(reversed(nearest))

"""Reads the U-Net of diffusers, `UNet2DModel`: its folder alone, or one of its files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.errors import UserError, tell_once
from cm_ray.networks.formats.diffusers_config import UNET, check_class, read_config, spec_of, unet_config
from cm_ray.networks.formats.diffusers_files import read_weights, weight_files
from cm_ray.networks.formats.diffusers_names import from_diffusers
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.storage.files import read_json

INDEX, CONFIG, SCHEDULER = "model_index.json", "config.json", Path("scheduler", "scheduler_config.json")
PIPELINE, STEPS = "ConsistencyModelPipeline", "CMStochasticIterativeScheduler"
FIXED_STEPS = {"s_noise": 1.0, "clip_denoised": True}
LEVELS = {"sigma_min": 0.002, "sigma_max": 80.0, "sigma_data": 0.5, "rho": 7.0, "num_train_timesteps": 40}
"""The other settings of the scheduler with their defaults."""


def is_unet(folder: Path) -> bool:
    """Return True if a folder holds a U-Net of diffusers, without the rest of a pipeline."""
    return folder.is_dir() and bool(weight_files(folder))


def read_unet(folder: Path, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    """Return the specification and the weights of a U-Net's folder.

    The noise levels are those of the pipeline around the folder, else of the run that assumes them, else the
    defaults of diffusers' scheduler, which is said. Raises UserError, with the names of the file and of the
    setting, when it is another network, or its weights cannot be read.
    """
    unet, diffusion = unet_config(folder / CONFIG), _diffusion(folder, assumed)
    weights, file = read_weights(folder)
    return _converted(unet, diffusion, folder / CONFIG, weights, file)


def read_unet_file(file: Path, weights: Weights, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    """Return the specification and the weights of a file of weights beside its config.json; see "
    "`read_unet`."""
    if not (file.parent / CONFIG).is_file():
        raise UserError(
            f"{file} has the names of diffusers, and no {CONFIG} is beside it: put the U-Net's there."
        )
    unet = unet_config(file.parent / CONFIG)
    return _converted(unet, _diffusion(file.parent, assumed), file.parent / CONFIG, weights, file)


def _converted(
    unet: Mapping[str, Any], diffusion: Diffusion, config: Path, weights: Weights, file: Path
) -> tuple[ModelSpec, Weights]:
    embedding = weights.get("class_embedding.weight")
    spec = spec_of(unet, diffusion, config, 0 if embedding is None else len(embedding))
    return spec, from_diffusers(spec, weights, file)


def _diffusion(folder: Path, assumed: ModelSpec | None) -> Diffusion:
    pipeline = folder.absolute().parent
    if (pipeline / INDEX).is_file():
        return pipeline_diffusion(pipeline)
    if assumed is not None:
        return assumed.diffusion
    tell_once(
        f"{folder} has no scheduler: read as a consistency model for noise from {LEVELS['sigma_min']} to "
        f"{LEVELS['sigma_max']:g} and data of deviation {LEVELS['sigma_data']}, diffusers' defaults."
    )
    return diffusion_of(LEVELS)


def pipeline_diffusion(folder: Path) -> Diffusion:
    """Return the noise levels and the preconditioning of a pipeline.

    Raises UserError, with the file and the setting, when it is another pipeline than of a consistency model.
    """
    index = read_json(folder / INDEX)
    check_class(folder / INDEX, index, PIPELINE)
    parts = {"unet": ["diffusers", UNET], "scheduler": ["diffusers", STEPS]}
    for name in {**parts, **index}:
        found = index.get(name)
        if not name.startswith("_") and found != parts.get(name):
            raise UserError(
                f"{folder / INDEX} has {name} {found}; give a pipeline of {UNET} and {STEPS} alone."
            )
    place = folder / SCHEDULER
    scheduler = read_config(place, STEPS, FIXED_STEPS, LEVELS)
    try:
        return diffusion_of(scheduler)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{place} is not the config of a scheduler ({error}); restore it.") from error


def diffusion_of(levels: Mapping[str, Any]) -> Diffusion:
    """Return the noise levels and the preconditioning of a scheduler's config."""
    numbers = {name: float(levels[name]) for name in LEVELS}
    return Diffusion(
        t_min=numbers["sigma_min"],
        t_max=numbers["sigma_max"],
        rho=numbers["rho"],
        column=EDM(sigma_data=numbers["sigma_data"]),
    )

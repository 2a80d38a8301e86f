"""The models that a run begins with, copied into its directory: the teacher, and the initial weights."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cm_ray.config import TrainConfig
from cm_ray.errors import UserError
from cm_ray.files import folder_written_aside, remove
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, load_model, load_weights, save_model
from cm_ray.run_directory import RunDirectory
from cm_ray.tracking.locate import locate_model

TEACHER = "teacher"
"""The word of `init_from` that stands for the teacher."""


def prepare_teachers(config: TrainConfig, spec: ModelSpec, run: RunDirectory) -> None:
    """Copy the teacher and the initial model into the run directory, unless the run has begun with some.

    Raises UserError when one is not to be found, broken, or not a model that this run can start with.
    """
    if config.teacher.model:
        _adopt(config.teacher.model, run.teacher, run, config, spec)
        _check_teacher(load_model(run.teacher).spec, config, spec)
    if config.init_from and config.init_from != TEACHER:
        _adopt(config.init_from, run.initial, run, config, spec)
    if config.init_from:
        _check_initial(load_model(_initial_folder(config, run)), config, spec)


def read_teacher(config: TrainConfig, run: RunDirectory) -> Model | None:
    """Return the teacher of a prepared run, None if its method has none."""
    return load_model(run.teacher) if config.method in ("cd", "pd") else None


def read_initial(config: TrainConfig, run: RunDirectory) -> dict[str, Tensor] | None:
    """Return the weights that a prepared run starts from, None for random ones."""
    return load_file(_initial_folder(config, run) / WEIGHTS) if config.init_from else None


def _initial_folder(config: TrainConfig, run: RunDirectory) -> Path:
    return run.teacher if config.init_from == TEACHER else run.initial


def _adopt(name: str, folder: Path, run: RunDirectory, config: TrainConfig, spec: ModelSpec) -> None:
    """Copy a model to `folder`; what happens to the original once the run has begun does not change it."""
    if folder.is_dir() and run.config_file.is_file():
        return
    remove(folder)  # of a command that was refused
    file = Path(name).expanduser()
    if file.is_file():
        save_model(folder, _spec_of_file(config, spec), _read_weights(file, config, spec))
        return
    source = locate_model(name, config.tracking.uri if name.startswith("models:") else "")
    load_model(source)  # a broken one is refused before it is copied
    with folder_written_aside(folder) as aside:
        for part in (SPEC, WEIGHTS):
            shutil.copy(source / part, aside / part)


def _spec_of_file(config: TrainConfig, spec: ModelSpec) -> ModelSpec:
    """Return what a file of weights is taken for: a diffusion model with this run's network."""
    diffusion = dataclasses.replace(config.diffusion, column=config.teacher.column, boundary="none")
    return dataclasses.replace(spec, diffusion=diffusion, sampler="heun:18", taus=())


def _read_weights(file: Path, config: TrainConfig, spec: ModelSpec) -> dict[str, Tensor]:
    """Return the tensors of a file, checked against this run's network. Unpickles no code."""
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise UserError(
            f"{file} is no file of weights (.safetensors, or .pt with tensors by name): "
            f"{str(error).splitlines()[0]}."
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f"{file} does not hold tensors by name; give a state dict.")
    load_weights(Model(_spec_of_file(config, spec)).network, weights, file)
    return weights


def _check_teacher(teacher: ModelSpec, config: TrainConfig, spec: ModelSpec) -> None:
    if teacher.diffusion.boundary != "none":
        raise UserError(
            f"--teacher {config.teacher.model} is a consistency model; give a diffusion model, such as "
            "jobs/edm_cifar.py trains."
        )
    _check_same_images(teacher, spec, f"--teacher {config.teacher.model}")


def _check_initial(model: Model, config: TrainConfig, spec: ModelSpec) -> None:
    """Refuse weights that mean something else in this run's network."""
    name = f"--init-from {config.init_from}"
    _check_same_images(model.spec, spec, name)
    before, now = model.spec.diffusion, spec.diffusion
    for setting in ("column", "time_scale", "sigma_data"):
        if getattr(before, setting) != getattr(now, setting):
            raise UserError(
                f"{name} was trained with {setting} {getattr(before, setting)}, and this run has "
                f"{getattr(now, setting)}: set --diffusion.{setting.replace('_', '-')} to it."
            )
    load_weights(Model(spec).network, model.network.state_dict(), name)


def _check_same_images(model: ModelSpec, spec: ModelSpec, name: str) -> None:
    if model.shape != spec.shape:
        raise UserError(f"{name} makes images {model.shape}, and the data's are {spec.shape}.")
    if model.classes != spec.classes:
        raise UserError(
            f"{name} knows {model.classes} classes, and this run {spec.classes}: give the same data and "
            "--network.conditional or --network.no-conditional."
        )

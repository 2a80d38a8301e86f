"""The models that a run begins with, copied into its directory: the teacher, and the initial weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from cm_ray.core.methods import ModelSource
from cm_ray.core.precondition import Column
from cm_ray.core.samplers import Heun
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, load_weights, save_model
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.choices import classes_of, word_of
from cm_ray.settings.tree import differences
from cm_ray.tracking.locate import locate_model


def prepare_teachers(config: Recipe, spec: ModelSpec, run: RunDirectory) -> None:
    """Copy the teacher and the initial model into the run directory, unless the run has begun with some.

    What happens to the originals later does not change the run. Raises UserError, before anything is
    written, when one is not to be found, broken, or not a model that this run can start with.
    """
    models = check_teachers(config, spec, run)
    for model, folder in zip(models, (run.teacher, run.initial), strict=True):
        if model is not None and not _begun_with(folder, run):
            save_model(folder, model.spec, model.network.state_dict())


def read_teacher(config: Recipe, run: RunDirectory) -> Model | None:
    """Return the teacher of a prepared run, None if its method has none."""
    return load_model(run.teacher) if config.method.needs_teacher else None


def read_initial(config: Recipe, run: RunDirectory) -> dict[str, Tensor] | None:
    """Return the weights that a prepared run starts from, None for random ones."""
    if not config.init_from.model:
        return None
    return load_file((run.teacher if config.init_from.model == TEACHER else run.initial) / WEIGHTS)


def check_teachers(config: Recipe, spec: ModelSpec, run: RunDirectory) -> tuple[Model | None, Model | None]:
    """Return the teacher and the initial model, those that the run has begun with if it has.

    Raises UserError when a run could not start with them there.
    """
    from_teacher = config.init_from.model == TEACHER
    teacher = _open(config.teacher or ModelSource(), run.teacher, run, config, spec)
    if teacher is not None:
        _check_teacher(teacher.spec, config, spec)
    initial = _open(ModelSource() if from_teacher else config.init_from, run.initial, run, config, spec)
    if config.init_from.model:
        _check_initial(teacher if from_teacher else initial, config, spec)
    return teacher, initial


def _begun_with(folder: Path, run: RunDirectory) -> bool:
    return run.config_file.is_file() and folder.is_dir()


def _open(
    source: ModelSource, folder: Path, run: RunDirectory, config: Recipe, spec: ModelSpec
) -> Model | None:
    """Return the model of a source, or the copy of it in `folder` that the run has begun with."""
    name = source.model
    if not name:
        return None
    if _begun_with(folder, run):
        return load_model(folder)
    if folder.is_dir() and {file.name for file in folder.iterdir()} - {SPEC, WEIGHTS}:
        raise UserError(f"{folder} is in the way of the copy of {name}; choose another --run-dir.")
    tracking_uri = "" if config.tracking.uri == "none" else config.tracking.uri
    return load_model(locate_model(name, tracking_uri), assumed=_denoiser(source, config, spec))


def _denoiser(source: ModelSource, config: Recipe, spec: ModelSpec) -> ModelSpec:
    """Return the specification of a file without one: a diffusion model with this run's network."""
    own = source.column in ("own", word_of(config.column))
    column = config.column if own else classes_of(Column)[source.column]()
    diffusion = dataclasses.replace(config.diffusion, column=column, boundary="none")
    return dataclasses.replace(spec, diffusion=diffusion, sampler=Heun(steps=18), time_points=())


def _check_teacher(teacher: ModelSpec, config: Recipe, spec: ModelSpec) -> None:
    name = f"teacher.model {config.teacher.model if config.teacher else ''}"
    if teacher.diffusion.boundary != "none":
        raise UserError(
            f"{name} is a consistency model; give a diffusion model, such as cm-ray train edm_cifar10 trains."
        )
    _check_same_images(teacher, spec, name)


def _check_initial(model: Model | None, config: Recipe, spec: ModelSpec) -> None:
    """Refuse weights that mean something else in this run's network."""
    name = f"init_from.model {config.init_from.model}"
    if model is None:
        raise UserError(f"{name}: there is no teacher.")
    _check_same_images(model.spec, spec, name)
    before, now = model.spec.diffusion, spec.diffusion
    if others := differences(before, now, ("t_min", "t_max", "rho", "boundary")):
        raise UserError(
            f"{name} was trained with another column: {', '.join(others)}. Set it to the model's."
        )
    if (before.boundary == "piecewise") != (now.boundary == "piecewise"):
        raise UserError(
            f"{name} has boundary {before.boundary}, and this run {now.boundary}: what a "
            "piecewise network returns means something else."
        )
    _check_same_network(model.spec, spec, name)
    load_weights(Model(spec).network, model.network.state_dict(), name)


def _check_same_network(before: ModelSpec, now: ModelSpec, name: str) -> None:
    """Refuse settings that decide what weights compute and do not show in their shapes."""
    for setting in ("family", "head_channels", "norm_groups"):
        there, here = getattr(before.network, setting), getattr(now.network, setting)
        if there != here:
            raise UserError(
                f"{name} has the network's {setting} {there}, and this run has {here}: set network"
                + ("" if setting == "family" else f".{setting}")
                + " to it."
            )


def _check_same_images(model: ModelSpec, spec: ModelSpec, name: str) -> None:
    if model.shape != spec.shape:
        raise UserError(f"{name} makes images {model.shape}, and the data's are {spec.shape}.")
    if model.classes != spec.classes:
        raise UserError(
            f"{name} knows {model.classes} classes, and this run {spec.classes}: give the same data, and the "
            "same network.conditional."
        )

"""The teacher and the initial model of a run, which are copied into its directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from cm_ray.core.methods import ModelSource
from cm_ray.core.precondition import Column
from cm_ray.data.agreement import check_comparable
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, load_weights, save_model
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.sampling.samplers import Heun
from cm_ray.settings.choices import classes_of, word_of
from cm_ray.settings.tree import differences
from cm_ray.tracking.locate import locate_model


def prepare_teachers(config: Recipe, spec: ModelSpec, run: RunDirectory) -> None:
    """Copy the teacher and the initial model into the run directory, unless a started run has copies already.

    Later changes of the originals do not affect the run. Raises UserError, before anything is written, when a
    model is missing, is damaged, or does not fit the run.
    """
    models = check_teachers(config, spec, run)
    for model, folder in zip(models, (run.teacher, run.initial), strict=True):
        if model is not None and not _begun_with(folder, run):
            save_model(folder, model.spec, model.network.state_dict())


def read_teacher(config: Recipe, run: RunDirectory) -> Model | None:
    """Return the teacher of a prepared run; None if its method has none."""
    return load_model(run.teacher) if config.method.needs_teacher else None


def read_initial(config: Recipe, run: RunDirectory) -> dict[str, Tensor] | None:
    """Return the initial weights of a prepared run; None for random ones."""
    if not config.init_from.model:
        return None
    return load_file((run.teacher if config.init_from.model == TEACHER else run.initial) / WEIGHTS)


def check_teachers(config: Recipe, spec: ModelSpec, run: RunDirectory) -> tuple[Model | None, Model | None]:
    """Return the teacher and the initial model; the copies of a started run, else the originals.

    Raises UserError when a model does not fit the run.
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
    """Return the model of a source, or its copy in `folder` if the run has started; None without a source."""
    name = source.model
    if not name:
        return None
    if _begun_with(folder, run):
        return load_model(folder)
    if folder.is_dir() and {file.name for file in folder.iterdir()} - {SPEC, WEIGHTS}:
        raise UserError(f"{folder} exists, where {name} is to be copied; choose {ANOTHER_DIRECTORY}.")
    tracking_uri = "" if config.tracking.uri == "none" else config.tracking.uri
    model = load_model(locate_model(name, tracking_uri), assumed=_denoiser(source, config, spec))
    warn_of_initial_weights(model.spec, name)
    return model


def _denoiser(source: ModelSource, config: Recipe, spec: ModelSpec) -> ModelSpec:
    """Return the specification for files without one: a diffusion model with this run's network."""
    own = source.column in ("own", word_of(config.column))
    column = config.column if own else classes_of(Column)[source.column]()
    diffusion = dataclasses.replace(config.diffusion, column=column, boundary="none")
    return dataclasses.replace(spec, diffusion=diffusion, sampler=Heun(steps=18), time_points=())


def _check_teacher(teacher: ModelSpec, config: Recipe, spec: ModelSpec) -> None:
    name = f"{setting('teacher.model')} {config.teacher.model if config.teacher else ''}"
    if teacher.diffusion.boundary != "none":
        raise UserError(
            f"{name} is a consistency model; give a diffusion model, such as cm-ray train edm_cifar10 trains."
        )
    _check_same_images(teacher, spec, name)


def _check_initial(model: Model | None, config: Recipe, spec: ModelSpec) -> None:
    """Raise UserError on initial weights that compute something else in this run's network."""
    name = f"{setting('init_from.model')} {config.init_from.model}"
    if model is None:
        raise UserError(f"{name} needs a teacher, and there is none; set {setting('teacher.model')}.")
    _check_same_images(model.spec, spec, name)
    before, now = model.spec.diffusion, spec.diffusion
    if others := differences(before, now, ("t_min", "t_max", "rho", "boundary")):
        raise UserError(
            f"{name} was trained with another column: {', '.join(others)}; set it to the model's."
        )
    if (before.boundary == "piecewise") != (now.boundary == "piecewise"):
        raise UserError(
            f"{name} has boundary {before.boundary}, and this run has {now.boundary}; set the boundary to "
            "the model's, because a piecewise network returns something else."
        )
    _check_same_network(model.spec, spec, name)
    load_weights(Model(spec).network, model.network.state_dict(), name)


def _check_same_network(before: ModelSpec, now: ModelSpec, name: str) -> None:
    """Raise UserError when settings differ that change what weights compute, but not their shapes."""
    for field in ("family", "head_channels", "norm_groups"):
        there, here = getattr(before.network, field), getattr(now.network, field)
        if there != here:
            path = "network" if field == "family" else f"network.{field}"
            raise UserError(
                f"{name} has the network's {field} {there}, and this run has {here}; set "
                f"{setting(path)} to {there}."
            )


def _check_same_images(model: ModelSpec, spec: ModelSpec, name: str) -> None:
    c, h, w = model.shape
    check_comparable(
        f"The images of {name}",
        model.shape,
        "those of the data",
        spec.shape,
        size=f"set {setting('data.size')} to {h}" if h == w else "give data of that size",
        channels=f"set data.channels to {c}",
    )
    if model.classes != spec.classes:
        raise UserError(
            f"{name} has {model.classes} classes, and this run has {spec.classes}; give the same data, and "
            f"the same {setting('network.conditional')}."
        )

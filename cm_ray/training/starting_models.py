"""The teacher and the initial model of a run, which are copied into its directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cm_ray.core.diffusion import BoundaryCondition
from cm_ray.core.methods import ModelSource
from cm_ray.core.precondition import Column
from cm_ray.core.times import NoiseLevels
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.data.interface.classes import match_classes, names_in_words
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import SPEC, WEIGHTS, Model, ModelSpec, load_weights, save_model
from cm_ray.networks.renumbering import renumbered
from cm_ray.networks.unet import starting_weights
from cm_ray.recipes.recipe import TEACHER, Recipe
from cm_ray.runs.directory import ANOTHER_DIRECTORY, RunDirectory
from cm_ray.sampling.samplers import Heun, OneStep
from cm_ray.settings.choices import classes_of, word_of
from cm_ray.settings.tree import differences
from cm_ray.storage.tensor_files import read_safetensors
from cm_ray.tracking.locate import locate_model

Say = Callable[[str], object]
"""A function that shows a sentence to the user."""


def prepare_teachers(config: Recipe, spec: ModelSpec, run: RunDirectory, say: Say | None = None) -> None:
    """Copy the teacher and the initial model into the run directory, unless a started run has copies already.

    Later changes of the originals do not affect the run. The copies have the class numbers of the run's data;
    say: gets a sentence when those of the originals differ. Raises UserError, before anything is written,
    when a model is missing, is damaged, or does not fit the run.
    """
    models = check_teachers(config, spec, run, say)
    for model, folder in zip(models, (run.teacher, run.initial), strict=True):
        if model is not None and not _begun_with(folder, run):
            save_model(folder, model.spec, model.network.state_dict())


def read_teacher(config: Recipe, run: RunDirectory) -> Model | None:
    """Return the teacher of a prepared run, which has checked its weights; None if its method has none."""
    return load_model(run.teacher, check=False) if config.method.needs_teacher else None


def read_initial(config: Recipe, run: RunDirectory) -> dict[str, Tensor] | None:
    """Return the initial weights of a prepared run, which has checked them; None for random ones."""
    if not config.init_from.model:
        return None
    folder = run.teacher if config.init_from.model == TEACHER else run.initial
    return read_safetensors(folder / WEIGHTS, check=False)[0]


def check_teachers(
    config: Recipe, spec: ModelSpec, run: RunDirectory, say: Say | None = None
) -> tuple[Model | None, Model | None]:
    """Return the teacher and the initial model: the copies of a started run, else the originals.

    Their classes have the numbers that they have in the run's data; say: as of `prepare_teachers`. Raises
    UserError when a model does not fit the run.
    """
    from_teacher = config.init_from.model == TEACHER
    boundary = config.method.boundary if config.method.teacher_is_consistent else "none"
    teacher = _open(config.teacher or ModelSource(), run.teacher, run, config, spec, boundary)
    if teacher is not None:
        name = _check_teacher(teacher.spec, config, spec)
        teacher = _with_classes_of(spec, teacher, name, say)
    initial = _open(ModelSource() if from_teacher else config.init_from, run.initial, run, config, spec)
    if config.init_from.model:
        name = _check_initial(teacher if from_teacher else initial, config, spec)
        initial = initial and _with_classes_of(spec, initial, name, say)
    return teacher, initial


def _begun_with(folder: Path, run: RunDirectory) -> bool:
    return run.config_file.is_file() and folder.is_dir()


def _open(
    source: ModelSource,
    folder: Path,
    run: RunDirectory,
    config: Recipe,
    spec: ModelSpec,
    boundary: BoundaryCondition = "none",
) -> Model | None:
    """Return the model of a source, or its copy in `folder` if the run has started; None without a source.

    boundary: of a model whose files do not say it.
    """
    name = source.model
    if not name:
        return None
    if _begun_with(folder, run):
        return load_model(folder)
    if folder.is_dir() and {file.name for file in folder.iterdir()} - {SPEC, WEIGHTS}:
        raise UserError(f"{folder} exists, where {name} is to be copied; choose {ANOTHER_DIRECTORY}.")
    tracking_uri = "" if config.tracking.uri == "none" else config.tracking.uri
    model = load_model(locate_model(name, tracking_uri), assumed=_assumed(source, config, spec, boundary))
    warn_of_initial_weights(model.spec, name)
    return model


def _assumed(source: ModelSource, config: Recipe, spec: ModelSpec, boundary: BoundaryCondition) -> ModelSpec:
    """Return the specification for files without one: a model with this run's network."""
    own = source.column in ("own", word_of(config.column))
    column = config.column if own else classes_of(Column)[source.column]()
    diffusion = dataclasses.replace(config.diffusion, column=column, boundary=boundary)
    return dataclasses.replace(
        spec,
        diffusion=diffusion,
        class_names=placeholders(len(spec.class_names)),
        class_counts=(),
        time_points=(),
        sampler=Heun(steps=18) if diffusion.denoiser else OneStep(),
        augment=0,
    )


def _with_classes_of(spec: ModelSpec, model: Model, name: str, say: Say | None) -> Model:
    """Return a model whose classes have the numbers and names of a run's, `spec`.

    say: gets a sentence when the model's have others. Raises UserError when they are not the same classes.
    """
    theirs, ours = model.spec.class_names, spec.class_names
    if not spec.classes or theirs == ours:
        return model
    match = match_classes(theirs, ours)
    if len(theirs) != len(ours) or -1 in match.numbers:
        raise UserError(f"{name} has other classes than the data: {_difference(theirs, ours)}.")
    changed = renumbered(model, match.numbers, ours)
    if say and match.how == "name":
        moved = next(number for number, other in enumerate(match.numbers) if number != other)
        say(
            f"The classes of {name} have other numbers than those of the data, such as {ours[moved]} "
            f"({match.numbers[moved]} there, {moved} here); they are matched by their names."
        )
    elif say:
        say(f"The classes of {name} are those of the data by number, since only one of them has names.")
    return changed


def _difference(theirs: tuple[str, ...], ours: tuple[str, ...]) -> str:
    """Return the classes that only one side has, and an instruction."""
    sides = (("it", theirs, ours), ("the data", ours, theirs))
    only = [
        f"only {side} has {names_in_words([each for each in these if each not in those])}"
        for side, these, those in sides
        if {*these} - {*those}
    ]
    if not only:
        return "several are called alike, and their order differs; give every class a name of its own"
    return " and ".join(only) + "; give data of the same classes, or another model"


def _check_teacher(teacher: ModelSpec, config: Recipe, spec: ModelSpec) -> str:
    """Raise UserError on a model that cannot be a teacher of this run; return its name for messages."""
    name = f"{setting('teacher.model')} {config.teacher.model if config.teacher else ''}"
    if config.method.teacher_is_consistent and teacher.diffusion.denoiser:
        raise UserError(
            f"{name} is a diffusion model; give a consistency model, such as cm-ray train ict_cifar10 trains."
        )
    if not config.method.teacher_is_consistent and not teacher.diffusion.denoiser:
        raise UserError(
            f"{name} is a consistency model; give a diffusion model, such as cm-ray train edm_cifar10 trains."
        )
    if spec.augment != teacher.augment and spec.augment:
        raise UserError(
            f"{name} was not trained with this augmentation, whose images it would take for its own; set "
            f"{setting('augmentation')} to flip or none."
        )
    _check_same_images(teacher, spec, name)
    _check_noise(teacher.diffusion, config, name)
    _check_guidance(teacher, config, name)
    return name


def _check_noise(known: NoiseLevels, config: Recipe, name: str) -> None:
    """Raise UserError when a run asks its teacher at noise levels that it has not learned."""
    asked, slack = config.noise, 1 + 1e-6
    lowest = max(asked.t_min, config.method.lowest_time)
    if known.t_min <= lowest * slack and asked.t_max <= known.t_max * slack:
        return
    raise UserError(
        f"{name} knows noise levels from {known.t_min:g} to {known.t_max:g}, and this run has those from "
        f"{asked.t_min:g} to {asked.t_max:g}; set {setting('noise.t_min')} and {setting('noise.t_max')} to "
        "levels within the teacher's."
    )


def _check_guidance(teacher: ModelSpec, config: Recipe, name: str) -> None:
    """Raise UserError when a teacher cannot be guided as a run wants, or asked for the null class."""
    asked, scales = config.method.guidance.asked, teacher.diffusion.guidance
    if asked and scales and not scales[0] <= asked[0] <= asked[1] <= scales[1]:
        raise UserError(
            f"{name} takes guidance scales from {scales[0]:g} to {scales[1]:g} as an input; set "
            f"{setting('guidance')} to scales among them, or to none."
        )
    without = asked and not scales
    if (without or config.network.label_dropout) and not teacher.null_class:
        what = "guidance" if without else "network.label_dropout"
        raise UserError(
            f"{name} has not learned to do without a class, which {setting(what)} asks of it; give a model "
            f"that was trained with label dropout, or set {setting(what)} to {'none' if without else 0}."
        )


def _check_initial(model: Model | None, config: Recipe, spec: ModelSpec) -> str:
    """Raise UserError on weights that do something else in this run's network; return the model's name."""
    name = f"{setting('init_from.model')} {config.init_from.model}"
    if model is None:
        raise UserError(f"{name} needs a teacher, and there is none; set {setting('teacher.model')}.")
    _check_same_images(model.spec, spec, name)
    before, now = model.spec.diffusion, spec.diffusion
    if others := differences(before, now, ("t_min", "t_max", "rho", "boundary", "guidance")):
        raise UserError(
            f"{name} was trained with another column: {', '.join(others)}; set it to the model's."
        )
    if (before.boundary == "piecewise") != (now.boundary == "piecewise"):
        raise UserError(
            f"{name} has boundary {before.boundary}, and this run has {now.boundary}; set the boundary to "
            "the model's, because a piecewise network returns something else."
        )
    _check_same_network(model.spec, spec, name)
    network = Model(spec).network
    load_weights(network, starting_weights(model.network.state_dict(), network), name)
    return name


def _check_same_network(before: ModelSpec, now: ModelSpec, name: str) -> None:
    """Raise UserError when settings differ that change what weights compute, but not their shapes."""
    for field in ("family", "head_channels", "norm_groups"):
        there, here = (getattr(each.network, field, None) for each in (before, now))
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
        channels=f"set {setting('data.channels')} to {c}",
    )
    if bool(model.classes) != bool(spec.classes):
        raise UserError(
            f"{name} has {model.classes} classes, and this run has {spec.classes}; set "
            f"{setting('network.conditional')} to {bool(model.classes)}, or give another model."
        )
    if model.classes != spec.classes:
        raise UserError(
            f"{name} has {model.classes} classes, and the data has {spec.classes}: "
            f"{_difference(model.class_names, spec.class_names)}."
        )

"""What an editing job is asked to do, and which files that concerns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cm_ray.data.folder import EXTENSIONS, image_files
from cm_ray.editing.files import EditRequest
from cm_ray.editing.model_edits import check_label
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.measuring import ActorSettings


@dataclass(frozen=True, kw_only=True)
class Editing:
    """What to do to which images, by what model."""

    task: Annotated[
        Literal["inpaint", "colorize", "upscale", "stroke", "denoise", "interpolate"],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="TASK"),
    ]
    """inpaint: make anew what a mask does not keep. colorize: keep the luminance. upscale: keep the means of
    patches. stroke: make an image of a coarse painting. denoise: remove noise of a known level. interpolate:
    the way from the samples of one seed to those of another."""
    model: str
    """Run directory, model folder, or models:/NAME@ALIAS."""
    image: str = ""
    """An image file, or a folder of them (and of its sub-folders), which is edited on Ray. upscale takes
    small images, and those of the model's size, of which it keeps the means alone."""
    mask: str = ""
    """Of inpaint: an image that is white where the image is kept and black where it is made anew; or a folder
    of such, called as the images are."""
    out: Path = Path("edits")
    """Folder for NAME-0.png, NAME-1.png ..., and grid.png: before, results, and the image given. Results that
    the same edit has left there are not made again."""
    samples: int = 4
    """Results for each image: sample k is made with seed + k. Of denoise one, as it draws nothing; of
    interpolate ways."""
    seed: int = 0
    """Seed of the noise, and of the labels of a conditional model. Image i of a folder has noise i."""
    label: int | None = None
    """Class of all images, by number. By default the sub-folder's, where they are called as the model's
    classes; else drawn at random, which spoils an image of another class. interpolate asks for it."""
    steps: int = 0
    """Evaluations, on a Karras grid; 0: 39, and of interpolate those of the model's own sampler."""
    taus: tuple[float, ...] = ()
    """Times of the evaluations, descending, instead of --steps; of stroke the paper's by default: 5.38 2.24.
    The greater the first, the freer of the strokes. Of interpolate: beyond t_max."""
    factor: int = 0
    """Of upscale: how many times wider and higher; 0: 2."""
    sigma: float = 0.0
    """Of denoise: standard deviation of the noise, where pixels go from -1 to 1."""
    add_noise: bool = False
    """Of denoise: add the noise first, to images without."""
    to_seed: int | None = None
    """Of interpolate: the other seed; by default --seed + 1."""
    frames: int = 9
    """Of interpolate: images on the way, both ends among them."""
    resize: bool = False
    """Crop and resize images of other sizes than the model's."""
    batch_size: int = 256
    """Images per network evaluation."""
    device: str = "auto"
    """Of a single image and of interpolate: auto takes a GPU if there is one; else cpu, cuda, cuda:1."""
    actors: ActorSettings = field(default_factory=ActorSettings)
    """Who edits a folder."""
    tracking_uri: str = ""
    """MLflow server or store of models:/ names; empty: $MLFLOW_TRACKING_URI, else runs/mlflow.db."""


_OWNERS = {"mask": "inpaint", "add_noise": "denoise", "to_seed": "interpolate", "frames": "interpolate"}
"""Settings that mean something to one task alone."""


def check_editing(settings: Editing, spec: ModelSpec) -> None:
    """Raise UserError, saying what to change, on settings that no task would take."""
    for name in ("samples", "batch_size"):
        if getattr(settings, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(settings, name)}.")
    if settings.seed < 0 or (settings.to_seed or 0) < 0:
        raise UserError("Seeds must not be negative.")
    defaults = Editing(task=settings.task, model=settings.model)
    for name, task in _OWNERS.items():
        if getattr(settings, name) != getattr(defaults, name) and settings.task != task:
            raise UserError(f"--{name.replace('_', '-')} goes with {task}, not with {settings.task}.")
    if settings.task == "interpolate":
        _check_interpolation(settings, defaults, spec)
    check_label(spec, settings.label)


def _check_interpolation(settings: Editing, defaults: Editing, spec: ModelSpec) -> None:
    for name in ("image", "factor", "sigma", "resize", "actors"):
        if getattr(settings, name) != getattr(defaults, name):
            raise UserError(f"interpolate goes from seed to seed: leave --{name} out.")
    if settings.frames < 2:
        raise UserError(f"--frames must be at least 2, both ends, not {settings.frames}.")
    if spec.classes and settings.label is None:
        raise UserError("interpolate stays in a class, as this model has some: give its --label.")


def plan_request(settings: Editing, spec: ModelSpec) -> EditRequest:
    """Return what is to be done to which files. Raises UserError when that does not fit."""
    assert settings.task != "interpolate"
    check_editing(settings, spec)
    edit = plan_edit(
        settings.task,
        spec.diffusion,
        spec.shape,
        steps=settings.steps,
        taus=settings.taus,
        factor=settings.factor,
        sigma=settings.sigma,
    )
    files = find_images(settings.image)
    if Path(settings.image).expanduser().is_dir():
        if settings.device != "auto":
            raise UserError("--device is of a single image: who edits a folder is said by --actors.")
    elif settings.actors != ActorSettings():
        raise UserError("--actors edit a folder: a single image is edited here, on --device.")
    labels = _labels(settings, files, spec)
    return EditRequest(
        edit=edit,
        files=files,
        masks=_masks(settings, files),
        samples=1 if settings.task == "denoise" else settings.samples,
        seed=settings.seed,
        labels=labels,
        resize=settings.resize,
        add_noise=settings.add_noise,
        batch=settings.batch_size,
    )


def find_images(image: str) -> tuple[Path, ...]:
    """Return an image file, or those of a folder, sorted. Raises UserError when there is none."""
    path = Path(image).expanduser()
    if not image or not path.exists():
        raise UserError(f"There is no image {image!r}: --image takes an image file or a folder of them.")
    if path.is_file():
        return (path.absolute(),)
    found = image_files(path, deep=True)
    if not found:
        raise UserError(f"{path} holds no images ({', '.join(EXTENSIONS)}); give another folder.")
    return tuple(path.absolute() / name for name in found)


def _labels(settings: Editing, files: tuple[Path, ...], spec: ModelSpec) -> tuple[int, ...]:
    """Return a class for each file, or none where they are to be drawn."""
    if settings.label is not None:
        return (settings.label,) * len(files)
    root = Path(settings.image).expanduser().absolute()
    if not spec.classes or root.is_file():
        return ()
    folders = ["/".join(file.relative_to(root).parts[:-1][:1]) for file in files]
    if not {*folders} & {*spec.class_names}:
        return ()
    if others := sorted({*folders} - {*spec.class_names}):
        raise UserError(
            f"{root / others[0]} is called as no class, and other sub-folders are: rename it "
            f"({', '.join(spec.class_names)}), or give one --label for all."
        )
    return tuple(spec.class_names.index(folder) for folder in folders)


def _masks(settings: Editing, files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return a mask for each file, or none."""
    if settings.task != "inpaint":
        return ()
    path = Path(settings.mask).expanduser().absolute()
    if not settings.mask or not path.exists():
        raise UserError(
            f"There is no mask {settings.mask!r}: --mask takes an image that is white where pixels are kept."
        )
    if path.is_file():
        return (path,) * len(files)
    root = Path(settings.image).expanduser().absolute()
    if root.is_file():
        raise UserError(f"{path} is a folder: give one image its mask as a file.")
    masks = tuple(path / file.relative_to(root) for file in files)
    missing = next((mask for mask in masks if not mask.is_file()), None)
    if missing:
        raise UserError(f"There is no mask {missing}: masks are called as their images are.")
    return masks

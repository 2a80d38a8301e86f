"""The edit and the files that the settings of an editing job describe, and their checks."""

from __future__ import annotations

from pathlib import Path

from cm_ray.command_line.settings.edit import Editing
from cm_ray.data.layouts.folder import image_files
from cm_ray.drawing.batches import MOST
from cm_ray.drawing.model_labels import class_number
from cm_ray.editing.files import EditRequest
from cm_ray.editing.tasks import plan_edit
from cm_ray.errors import UserError, setting
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.measuring import ActorSettings

_LABEL, _DEVICE, _ACTORS = setting("label"), setting("device"), setting("actors", "actors.count")


def edited_class(settings: Editing, spec: ModelSpec) -> int | None:
    """Return the number of the class that is given for all images; None where none is.

    Raises UserError when the model does not have the class, or needs one and none is given.
    """
    if settings.task == "interpolate" and spec.classes and not settings.label:
        raise UserError(f"interpolate works within one class of this model; give the class with {_LABEL}.")
    return class_number(spec, settings.label) if settings.label else None


def plan_request(settings: Editing, spec: ModelSpec) -> EditRequest:
    """Return the edit and its files. Raises UserError on settings that do not fit the model or each other."""
    assert settings.task != "interpolate"
    label = edited_class(settings, spec)
    edit = plan_edit(
        settings.task,
        spec.diffusion,
        spec.shape,
        steps=settings.nfe,
        taus=settings.taus,
        factor=settings.factor,
        sigma=settings.sigma,
        sampler=settings.sampler,
    )
    files = find_images(settings.image)
    if Path(settings.image).expanduser().is_dir():
        if settings.device != "auto":
            raise UserError(f"{_DEVICE} is for a single image; set {_ACTORS} to edit a folder.")
    elif settings.actors != ActorSettings():
        raise UserError(f"{_ACTORS} is for a folder; set {_DEVICE} to edit a single image.")
    return EditRequest(
        edit=edit,
        files=files,
        masks=_masks(settings, files),
        samples=1 if settings.task == "denoise" else settings.samples,
        seed=settings.seed,
        labels=_labels(settings, files, spec) if label is None else (label,) * len(files),
        resize=settings.resize,
        add_noise=settings.add_noise,
        batch=settings.batch_size or MOST,
    )


def find_images(image: str) -> tuple[Path, ...]:
    """Return an image file, or the sorted image files of a folder. Raises UserError when there is none."""
    path = Path(image).expanduser()
    if not image or not path.exists():
        raise UserError(
            f"There is no image {image!r}; set {setting('image')} to an image file or a folder of images."
        )
    if path.is_file():
        return (path.absolute(),)
    found = image_files(path)
    if not found:
        raise UserError(f"{path} holds no images that can be read; give another folder.")
    return tuple(path.absolute() / name for name in found)


def _labels(settings: Editing, files: tuple[Path, ...], spec: ModelSpec) -> tuple[int, ...]:
    """Return the class of each file, by the names of sub-folders; empty where classes are drawn at random."""
    root = Path(settings.image).expanduser().absolute()
    if not spec.classes or root.is_file():
        return ()
    folders = ["/".join(file.relative_to(root).parts[:-1][:1]) for file in files]
    if not {*folders} & {*spec.class_names}:
        return ()
    if others := sorted({*folders} - {*spec.class_names}):
        raise UserError(
            f"{root / others[0]} is not named after a class, but other sub-folders are; rename it "
            f"({', '.join(spec.class_names)}), or give one {_LABEL} for all images."
        )
    return tuple(class_number(spec, folder) for folder in folders)


def _masks(settings: Editing, files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the mask of each file; empty for tasks without masks."""
    if settings.task != "inpaint":
        return ()
    path = Path(settings.mask).expanduser().absolute()
    if not settings.mask or not path.exists():
        raise UserError(
            f"There is no mask {settings.mask!r}; set {setting('mask')} to an image that is white where "
            "pixels are kept."
        )
    if path.is_file():
        return (path,) * len(files)
    root = Path(settings.image).expanduser().absolute()
    if root.is_file():
        raise UserError(f"{path} is a folder; give a file as the mask of a single image.")
    masks = tuple(path / file.relative_to(root) for file in files)
    missing = next((mask for mask in masks if not mask.is_file()), None)
    if missing:
        raise UserError(f"There is no mask {missing}; give every mask the name of its image.")
    return masks

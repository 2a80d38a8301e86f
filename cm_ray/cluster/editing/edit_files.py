"""Editing of image files by a model: one file in this process, or a folder of files on Ray."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm_ray.cluster.editing.edit_plan import edited_class, plan_request
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import actors_for, batch_for
from cm_ray.cluster.runtime.connect import connected
from cm_ray.command_line.settings.edit import Editing
from cm_ray.drawing.batches import batch_on
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.editing.files import EditRequest, compared, content_digests, edit_unit, read_inputs
from cm_ray.editing.model_edits import interpolation_steps
from cm_ray.editing.results import Origin, ResultFolder
from cm_ray.errors import UserError, setting
from cm_ray.networks.formats.reading import load_model, network_digest
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import Model, ModelSpec, to_uint8
from cm_ray.runs.console import say, shown
from cm_ray.sampling.text import text_of
from cm_ray.storage.files import remove
from cm_ray.tracking.locate import locate_model

_ROWS = 10
"""Rows of the grid: each shows one input image and its results."""


def edit(settings: Editing) -> list[Path]:
    """Edit images, or interpolate between samples; return the files of the grid and of the results.

    Everything is in the folder `settings.out`. Results of the same edit that are already there are not made
    again. Raises UserError on bad input, before anything is written.
    """
    model_folder = locate_model(settings.model, settings.tracking_uri)
    if settings.task == "interpolate":
        return _interpolate(settings, model_folder)
    root = Path(settings.image).expanduser()
    model = load_model(model_folder, "cpu" if root.is_dir() else settings.device)
    request = plan_request(settings, model.spec)
    warn_of_initial_weights(model.spec, settings.model)
    if model.spec.classes and not request.labels:
        label = setting("label")
        say(f"No class is given, and classes are drawn at random; {label} names one, and so do sub-folders.")
    names = _names(request, root)
    origins = _origins(request, names, content_digests(request, model.spec), network_digest(model_folder))
    folder = ResultFolder(settings.out.expanduser(), origins)
    folder.begin([*request.files, *request.masks], root if root.is_dir() else None)
    missing = partial(_missing, folder, names, model.spec)
    if root.is_dir():
        edited = _on_ray(settings, model.spec, model_folder, request, missing)
    else:
        batch = batch_on(next(model.parameters()).device, settings.batch_size, model.spec)
        request = dataclasses.replace(request, batch=batch)
        edited = ((span, edit_unit(model, request, *span)) for span in missing(request))
    for (first, count), results in edited:
        for file_names, images in zip(names[first : first + count], results, strict=True):
            for name, image in zip(file_names, images, strict=True):
                folder.save(name, image)
    head = names[:_ROWS]
    rows = torch.stack([torch.stack([folder.load(name) for name in file_names]) for file_names in head])
    grid = folder.save_grid(compared(request, read_inputs(request, model.spec, 0, len(head)), rows))
    return [grid, *(folder.folder / name for file_names in names for name in file_names)]


def _missing(
    folder: ResultFolder, names: Sequence[Sequence[str]], spec: ModelSpec, request: EditRequest
) -> list[tuple[int, int]]:
    """Return the units of a request, (first file, count), of which results are missing."""
    return [
        (first, count)
        for first, count in request.units(spec)
        if not all(folder.has(file_names) for file_names in names[first : first + count])
    ]


def _on_ray(
    settings: Editing,
    spec: ModelSpec,
    model_folder: Path,
    request: EditRequest,
    missing: Callable[[EditRequest], list[tuple[int, int]]],
) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Yield every span of files, (first file, count), that is missing, in order, and its edited images."""
    if not missing(dataclasses.replace(request, batch=1)):
        return
    work = settings.out.expanduser() / "editing-work"
    with connected(), shown("image") as progress:
        actors = actors_for(settings.actors, work)
        batch = batch_for(settings.batch_size, "float32", spec, actors, work)
        request = dataclasses.replace(request, batch=batch)
        spans = missing(request)
        with SamplerPool(None, actors) as pool:
            early: dict[int, Tensor] = {}
            following = 0
            for index, results in pool.edit(pool.put(model_folder), request, spans, progress):
                early[index] = results
                while following in early:
                    yield spans[following], early.pop(following)
                    following += 1
    remove(work)


def _interpolate(settings: Editing, model_folder: Path) -> list[Path]:
    """Interpolate between samples of two seeds; save each path as a row of the grid and a file per frame."""
    model = load_model(model_folder, settings.device)
    label = edited_class(settings, model.spec)
    warn_of_initial_weights(model.spec, settings.model)
    sampler = sampler_of(model.spec, steps=settings.nfe, taus=settings.taus)
    other = settings.seed + 1 if settings.to_seed is None else settings.to_seed
    shape = settings.samples, settings.frames
    made_by = _digest(network_digest(model_folder), text_of(sampler), settings.seed, other, label)
    names = [f"way-{way}-{frame}.png" for way in range(shape[0]) for frame in range(shape[1])]
    folder = ResultFolder(settings.out.expanduser(), dict.fromkeys(names, Origin("ways", made_by)))
    folder.begin([])
    grid = _paths(settings, model, other, label)
    for name, image in zip(names, grid, strict=True):
        folder.save(name, image)
    return [folder.save_grid(grid.unflatten(0, shape)), *(folder.folder / name for name in names)]


def _paths(settings: Editing, model: Model, other: int, label: int | None) -> Tensor:
    """Return the frames of all paths to samples of the seed `other`, uint8 (samples * frames, c, h, w)."""
    sampler = sampler_of(model.spec, steps=settings.nfe, taus=settings.taus)
    device = next(model.parameters()).device
    paths = torch.arange(settings.samples, device=device).repeat_interleave(settings.frames)
    alphas = torch.linspace(0, 1, settings.frames, device=device).repeat(settings.samples)
    size, frames = batch_on(device, settings.batch_size, model.spec), []
    for indices, alpha in zip(paths.split(size), alphas.split(size), strict=True):
        labels = None if label is None else torch.full_like(indices, label)
        seeds = settings.seed, other
        *_, last = interpolation_steps(model, sampler, alpha, indices=indices, seeds=seeds, labels=labels)
        frames.append(to_uint8(last.x).cpu())
    return torch.cat(frames)


def _names(request: EditRequest, image: Path) -> list[list[str]]:
    """Return the names of every file's results; sub-folders of --image become sub-folders of --out."""
    root = image.absolute() if image.is_dir() else image.absolute().parent
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in request.files]
    (stem, times) = Counter(stems).most_common(1)[0]
    if times > 1:
        raise UserError(
            f"{root} has {times} images named {stem} that differ only in their endings; rename one."
        )
    return [[f"{stem}-{k}.png" for k in range(request.samples)] for stem in stems]


def _origins(
    request: EditRequest, names: Sequence[Sequence[str]], contents: Sequence[str], model: str
) -> dict[str, Origin]:
    """Return the origin of every result, by name: its input, and a digest of all that decides its pixels."""
    edit, origins = request.edit, {}
    asked = (edit.task, edit.times, edit.factor, *([text_of(edit.sampler)] if edit.sampler else []))
    for index, (file_names, content) in enumerate(zip(names, contents, strict=True)):
        label = request.labels[index] if request.labels else None
        for k, name in enumerate(file_names):
            seed = request.seed + k
            made_by = _digest(model, *asked, index, seed, label, content)
            origins[name] = Origin(str(request.files[index]), made_by)
    return origins


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()

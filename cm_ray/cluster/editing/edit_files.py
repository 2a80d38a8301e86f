"""Images edited by a model: files in, files out; one in this process, a folder of them on Ray."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cm_ray.cluster.editing.edit_plan import check_editing, plan_request
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import plan_actors
from cm_ray.cluster.runtime.connect import connected, node_resources
from cm_ray.command_line.settings.edit import Editing
from cm_ray.core.sampler_texts import text_of
from cm_ray.editing.files import EditRequest, compared, content_digests, edit_unit, read_inputs
from cm_ray.editing.model_edits import interpolation_steps
from cm_ray.editing.results import Origin, ResultFolder
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model, network_digest
from cm_ray.networks.model import Model, to_uint8
from cm_ray.runs.console import shown
from cm_ray.sampling.model_sampler import sampler_of
from cm_ray.tracking.locate import locate_model

_ROWS = 10
"""Images in a grid."""


def edit(settings: Editing) -> list[Path]:
    """Do what is asked; return the grid and then the results, all in `settings.out`.

    Results that the same edit has left there are not made again. Raises UserError on bad input, before
    anything is written.
    """
    place = locate_model(settings.model, settings.tracking_uri)
    if settings.task == "interpolate":
        return _interpolate(settings, place)
    root = Path(settings.image).expanduser()
    model = load_model(place, "cpu" if root.is_dir() else settings.device)
    request = plan_request(settings, model.spec)
    names = _names(request, root)
    origins = _origins(request, names, content_digests(request, model.spec), network_digest(place))
    folder = ResultFolder(settings.out.expanduser(), origins)
    folder.begin([*request.files, *request.masks], root if root.is_dir() else None)
    units = [
        (first, count)
        for first, count in request.units(model.spec)
        if not all(folder.has(of_file) for of_file in names[first : first + count])
    ]
    if root.is_dir():
        made = _on_ray(settings, place, request, units)
    else:
        made = (edit_unit(model, request, *unit) for unit in units)
    for (first, count), results in zip(units, made, strict=True):
        for of_file, images in zip(names[first : first + count], results, strict=True):
            for name, image in zip(of_file, images, strict=True):
                folder.save(name, image)
    head = names[:_ROWS]
    rows = torch.stack([torch.stack([folder.load(name) for name in of_file]) for of_file in head])
    grid = folder.save_grid(compared(request, read_inputs(request, model.spec, 0, len(head)), rows))
    return [grid, *(folder.folder / name for of_file in names for name in of_file)]


def _on_ray(
    settings: Editing, place: Path, request: EditRequest, units: Sequence[tuple[int, int]]
) -> Iterator[Tensor]:
    """Yield the results of units of files, in their order, as they come."""
    if not units:
        return
    with connected(), shown("image") as progress:
        actors = plan_actors(settings.actors, node_resources())
        with SamplerPool(None, actors) as pool:
            early: dict[int, Tensor] = {}
            turn = 0
            for number, results in pool.edit(pool.put(place), request, units, progress):
                early[number] = results
                while turn in early:
                    yield early.pop(turn)
                    turn += 1


def _interpolate(settings: Editing, place: Path) -> list[Path]:
    """Make the ways between two seeds: a row of the grid and a file per frame each."""
    model = load_model(place, settings.device)
    check_editing(settings, model.spec)
    sampler = sampler_of(model.spec, steps=settings.nfe, taus=settings.taus)
    other = settings.seed + 1 if settings.to_seed is None else settings.to_seed
    shape = settings.samples, settings.frames
    made_by = _digest(network_digest(place), text_of(sampler), settings.seed, other, settings.label)
    names = [f"way-{way}-{frame}.png" for way in range(shape[0]) for frame in range(shape[1])]
    folder = ResultFolder(settings.out.expanduser(), dict.fromkeys(names, Origin("ways", made_by)))
    folder.begin([])
    grid = _ways(settings, model, other)
    for name, image in zip(names, grid, strict=True):
        folder.save(name, image)
    return [folder.save_grid(grid.unflatten(0, shape)), *(folder.folder / name for name in names)]


def _ways(settings: Editing, model: Model, other: int) -> Tensor:
    """Return the images of all ways to the seed `other`, uint8 (samples * frames, c, h, w)."""
    sampler = sampler_of(model.spec, steps=settings.nfe, taus=settings.taus)
    device = next(model.parameters()).device
    ways = torch.arange(settings.samples, device=device).repeat_interleave(settings.frames)
    alpha = torch.linspace(0, 1, settings.frames, device=device).repeat(settings.samples)
    made = []
    for part, share in zip(ways.split(settings.batch_size), alpha.split(settings.batch_size), strict=True):
        labels = None if settings.label is None else torch.full_like(part, settings.label)
        seeds = settings.seed, other
        *_, last = interpolation_steps(model, sampler, share, indices=part, seeds=seeds, labels=labels)
        made.append(to_uint8(last.x).cpu())
    return torch.cat(made)


def _names(request: EditRequest, image: Path) -> list[list[str]]:
    """Return the names of every file's results; below --out as the images lie below --image."""
    root = image.absolute() if image.is_dir() else image.absolute().parent
    stems = [file.relative_to(root).with_suffix("").as_posix() for file in request.files]
    (stem, times) = Counter(stems).most_common(1)[0]
    if times > 1:
        raise UserError(f"{root} holds {times} images called {stem} but for their endings: rename one.")
    return [[f"{stem}-{k}.png" for k in range(request.samples)] for stem in stems]


def _origins(
    request: EditRequest, names: Sequence[Sequence[str]], contents: Sequence[str], model: str
) -> dict[str, Origin]:
    """Return by what each result is made."""
    edit, found = request.edit, {}
    for index, (of_file, content) in enumerate(zip(names, contents, strict=True)):
        label = request.labels[index] if request.labels else None
        for k, name in enumerate(of_file):
            seed = request.seed + k
            made_by = _digest(model, edit.task, edit.times, edit.factor, index, seed, label, content)
            found[name] = Origin(str(request.files[index]), made_by)
    return found


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()

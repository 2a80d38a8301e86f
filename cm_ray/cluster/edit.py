"""Images edited by a model: files in, files out; one in this process, a folder of them on Ray."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cm_ray.cluster.actors import plan_actors
from cm_ray.cluster.edit_plan import Editing, check_editing, plan_request
from cm_ray.cluster.generate import SamplerPool
from cm_ray.cluster.launch import connected, node_resources
from cm_ray.cluster.progress import shown
from cm_ray.errors import UserError
from cm_ray.files import written_aside
from cm_ray.networks.editing import interpolation_steps
from cm_ray.networks.model import Model, sampling_of, to_uint8
from cm_ray.networks.reading import load_model
from cm_ray.tracking.locate import locate_model
from cm_ray.training.editing import EditRequest, compared, edit_unit, read_inputs
from cm_ray.training.pictures import save_grid, to_nhwc

_ROWS = 10
"""Images in a grid."""


def edit(settings: Editing) -> list[Path]:
    """Do what is asked; return the grid and then the results, all in `settings.out`.

    Raises UserError on bad input, before anything is written where it can be known before.
    """
    folder = locate_model(settings.model, settings.tracking_uri)
    if settings.task == "interpolate":
        return _interpolate(settings, load_model(folder, settings.device))
    model = load_model(folder, "cpu")
    request = plan_request(settings, model.spec)
    names = _names(request.files, Path(settings.image))
    head = read_inputs(request, model.spec, 0, min(_ROWS, len(names)))
    if Path(settings.image).expanduser().is_dir():
        results = _on_ray(settings, folder, request, model)
    else:
        results = iter([edit_unit(load_model(folder, settings.device), request, 0, 1)])
    rows: list[Tensor] = []
    paths: list[Path] = []
    for name, images in zip(names, itertools.chain.from_iterable(results), strict=True):
        paths += _save(images, settings.out / name)
        rows += [images] if len(rows) < _ROWS else []
    grid = compared(request, head, torch.stack(rows))
    return [_save_grid(grid, settings.out), *paths]


def _on_ray(settings: Editing, folder: Path, request: EditRequest, model: Model) -> Iterator[Tensor]:
    """Yield the results of all units of files, in their order, as they come."""
    with connected(), shown("image") as progress:
        actors = plan_actors(settings.actors, node_resources())
        with SamplerPool(None, actors) as pool:
            early: dict[int, Tensor] = {}
            turn = 0
            for place, results in pool.edit(pool.put(folder), request, progress):
                early[place] = results
                while turn in early:
                    yield early.pop(turn)
                    turn += 1


def _interpolate(settings: Editing, model: Model) -> list[Path]:
    """Make the ways between two seeds: a row of the grid and a file per frame each."""
    check_editing(settings, model.spec)
    sampling = sampling_of(model.spec, steps=settings.steps, taus=settings.taus)
    other = settings.seed + 1 if settings.to_seed is None else settings.to_seed
    device = next(model.parameters()).device
    ways = torch.arange(settings.samples, device=device).repeat_interleave(settings.frames)
    alpha = torch.linspace(0, 1, settings.frames, device=device).repeat(settings.samples)
    made = []
    for part, share in zip(ways.split(settings.batch_size), alpha.split(settings.batch_size), strict=True):
        labels = None if settings.label is None else torch.full_like(part, settings.label)
        seeds = settings.seed, other
        *_, last = interpolation_steps(model, sampling, share, indices=part, seeds=seeds, labels=labels)
        made.append(to_uint8(last.x).cpu())
    grid = torch.cat(made).unflatten(0, (settings.samples, settings.frames))
    paths = [path for way, images in enumerate(grid) for path in _save(images, settings.out / f"way-{way}")]
    return [_save_grid(grid, settings.out), *paths]


def _names(files: Sequence[Path], image: Path) -> list[Path]:
    """Return the results' names without number and ending; below --out as the images lie below --image."""
    root = image.expanduser().absolute()
    root = root if root.is_dir() else root.parent
    names = [file.relative_to(root).with_suffix("") for file in files]
    (name, times) = Counter(names).most_common(1)[0]
    if times > 1:
        raise UserError(f"{root} holds {times} images called {name} but for their endings: rename one.")
    return names


def _save(images: Tensor, stem: Path) -> list[Path]:
    """Write STEM-0.png, STEM-1.png ... of uint8 images (k, c, h, w)."""
    paths = []
    for number, pixels in enumerate(to_nhwc(images)):
        path = stem.with_name(f"{stem.name}-{number}.png")
        picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        with written_aside(path) as aside:
            picture.save(aside, format="PNG")
        paths.append(path)
    return paths


def _save_grid(rows: Tensor, folder: Path) -> Path:
    """Write grid.png of uint8 images (rows, columns, c, h, w)."""
    path = folder / "grid.png"
    save_grid(rows.flatten(0, 1), path, columns=rows.shape[1])
    return path

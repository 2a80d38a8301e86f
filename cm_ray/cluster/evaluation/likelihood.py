"""Likelihoods of a data set under a diffusion model, on a pool of actors."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cm_ray.cluster.pool.actor import Rows
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.reference import name_of, reference_data, run_of, tracking_uris
from cm_ray.cluster.pool.sizing import actors_for
from cm_ray.cluster.runtime.connect import connected
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.command_line.settings.likelihood import LikelihoodSettings
from cm_ray.core.ode import Tolerance
from cm_ray.data.interface.agreement import check_comparable
from cm_ray.data.interface.source import cut_pieces
from cm_ray.data.shards.manifest import MANIFEST, Manifest, read_rows
from cm_ray.drawing.pictures import save_grid
from cm_ray.errors import setting
from cm_ray.evaluation.likelihood import (
    ROW,
    LikelihoodRequest,
    Likelihoods,
    check_density,
    class_numbers,
    csv_lines,
    row_of,
)
from cm_ray.networks.formats.reading import read_model
from cm_ray.networks.initial_weights import warn_of_initial_weights
from cm_ray.networks.model import ModelSpec
from cm_ray.recipes.sections import EXPERIMENT
from cm_ray.remote.witness import Witness
from cm_ray.runs.console import say, shown
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.remote_run import open_run
from cm_ray.storage.files import read_json, remove, write_json, written_aside
from cm_ray.tracking.group import group_of
from cm_ray.tracking.locate import locate_model

_MOST_IMAGES = 10_000
_PART = 256
"""Images of a task; a kill repeats those that were not finished."""
_EXTREMES = 10


@dataclass(frozen=True, slots=True)
class LikelihoodResult:
    """The mean of many likelihoods, and where the others are."""

    row: dict[str, Any]
    """The row of likelihood.json: name, value, error, mean number of evaluations, key."""
    count: int
    files: list[Path]


def measure_likelihood(settings: LikelihoodSettings) -> LikelihoodResult:
    """Compute the likelihoods of images under a diffusion model, and write them into the run directory.

    The images are rows of shards, which lie in a random order: the first ones are a random part. Parts that
    an earlier call has finished are not computed again. Raises UserError on bad input, before Ray starts.
    """
    tracking_uri, registry = tracking_uris(settings)
    model = locate_model(settings.model, registry)
    spec = read_model(model)[0]
    check_density(spec, settings.model)
    data = reference_data(settings, run_of(model))
    run = open_run(settings.run_dir, f"likelihood-{name_of(settings.model)}")
    claim = run.root / "likelihood-source.json"
    with run.locked():
        run.check_owner(claim)
        with connected():
            shards, manifest = prepare_shards(data)
            _check_size(settings, manifest, spec)
            numbers = class_numbers(spec, manifest.source, manifest.class_names)
            write_json(claim, {"model": settings.model})
            run.clean()
            warn_of_initial_weights(spec, settings.model)
            work = _Work(settings, run, model, shards, manifest, numbers)
            group = group_of(run, tracking_uri, EXPERIMENT)
            with group.closed():
                result = work.result(spec.class_names)
                group.log(
                    params=result.row["key"],
                    metrics={result.row["name"]: result.row["value"]},
                    files=result.files,
                )
    return result


def _check_size(settings: LikelihoodSettings, manifest: Manifest, spec: ModelSpec) -> None:
    """Raise UserError when the images have another size or other channels than the model's."""
    check_comparable(
        f"The images of {manifest.source}",
        manifest.shape,
        f"those of {settings.model}",
        spec.shape,
        size=f"set {setting('size')}, or give other {setting('data')}",
        channels=f"set {setting('channels')} to 1 or 3, as the model's",
    )


class _Work:
    """The images of one call, and the parts that are finished."""

    def __init__(
        self,
        settings: LikelihoodSettings,
        run: RunDirectory,
        model: Path,
        shards: Path,
        manifest: Manifest,
        numbers: tuple[int, ...],
    ) -> None:
        self.settings, self.run, self.model = settings, run, model
        self.shards, self.manifest, self.numbers = shards, manifest, numbers
        self.count = min(manifest.count, settings.images or _MOST_IMAGES)
        self.places = manifest.places()[: self.count]
        self.folder = run.root / "likelihood-work"
        self.request = LikelihoodRequest(
            seed=settings.seed,
            probes=settings.probes,
            tolerance=Tolerance(rtol=settings.rtol, atol=settings.atol),
            batch=settings.batch_size,
        )

    def result(self, class_names: tuple[str, ...]) -> LikelihoodResult:
        """Compute what is missing, and write the tables and the picture."""
        parts = list(self._rows())
        with SamplerPool(None, actors := actors_for(self.settings.actors, self.folder)) as pool:
            say(
                f"{self.run.root}: {self.settings.model} on {self.count:,} of {self.manifest.count:,} images "
                f"of {self.manifest.source}, trace {self.request.trace}, {actors}"
            )
            put = pool.put(self.model)
            files = [self._file(f"{pool.kind} {put.digest}", part) for part in parts]
            found = {number: _loaded(file) for number, file in enumerate(files)}
            missing = [number for number, likelihoods in found.items() if likelihoods is None]
            with shown("image") as progress:
                for number, likelihoods in pool.likelihoods(
                    put,
                    Witness.of(self.shards / MANIFEST),
                    self.manifest,
                    [parts[number] for number in missing],
                    self.request,
                    progress,
                ):
                    _save(files[missing[number]], likelihoods)
                    found[missing[number]] = likelihoods
                    self.run.publish()
        whole = Likelihoods.joined([likelihoods for likelihoods in found.values() if likelihoods])
        result = self._written(whole, put.digest, class_names)
        remove(self.folder)
        return result

    def _rows(self) -> Iterator[Rows]:
        """Yield the rows of every part, in the order of the shards."""
        files, first = [(shard.file, shard.rows) for shard in self.manifest.shards], 0
        for pieces in cut_pieces(files, _PART):
            for file, start, stop in pieces:
                stop = min(stop, start + self.count - first)
                if stop > start:
                    places = self.places[first : first + stop - start]
                    yield Rows(self.shards / file, start, stop, places, self.numbers)
                    first += stop - start

    def _file(self, maker: str, part: Rows) -> Path:
        """Return the file of a part; maker: the kind of the actors, and the digest of the model."""
        key = (
            *(maker, self.manifest.fingerprint, self.numbers),
            *(astuple(self.request), part.places.tolist()),
        )
        return self.folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz"

    def _written(self, whole: Likelihoods, model: str, class_names: tuple[str, ...]) -> LikelihoodResult:
        """Write likelihood.json, likelihood.csv and the picture of the extremes."""
        key = {
            "n": self.count,
            "data": self.manifest.fingerprint,
            "model": model,
            "labels": "data" if self.numbers else "none",
            **self.request.key,
        }
        row = row_of(whole, key)
        table, rows = self.run.root / "likelihood.json", self.run.root / "likelihood.csv"
        earlier = read_json(table, [ROW]) if table.is_file() else []
        write_json(table, [*(other for other in earlier if other["key"] != key), row])
        with written_aside(rows) as aside:
            aside.write_text("".join(csv_lines(whole, class_names)))
        picture = self.run.samples / "extremes.png"
        self.run.samples.mkdir(exist_ok=True)
        extremes = whole.places[whole.bits.argsort()[::-1]]
        shown_ = min(_EXTREMES, math.ceil(len(extremes) / 2))
        chosen = [*extremes[:shown_], *extremes[len(extremes) - shown_ :]]
        save_grid(torch.from_numpy(self._images(chosen)), picture, columns=shown_)
        return LikelihoodResult(row, self.count, [table, rows, picture])

    def _images(self, places: list[np.int64]) -> Any:
        """Return the images with these places in their source, uint8 (n, c, h, w)."""
        row_of_place = {place: row for row, place in enumerate(self.places.tolist())}
        starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])
        images = []
        for place in places:
            row = row_of_place[int(place)]
            shard = int(np.searchsorted(starts, row, side="right")) - 1
            file, at = self.shards / self.manifest.shards[shard].file, row - int(starts[shard])
            images.append(read_rows(file, at, at + 1, self.manifest.shape)[0][0])
        return np.stack(images)


def _save(file: Path, likelihoods: Likelihoods) -> None:
    """Write a finished part."""
    with written_aside(file) as aside, aside.open("wb") as stream:
        np.savez(stream, **{name: getattr(likelihoods, name) for name in likelihoods.__dataclass_fields__})


def _loaded(file: Path) -> Likelihoods | None:
    """Return a part that an earlier call has finished; None if there is none, or it is damaged."""
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return Likelihoods(**{name: arrays[name] for name in Likelihoods.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
        return None  # it is computed again

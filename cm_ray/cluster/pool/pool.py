"""Samples and features on Ray: warm actors that do units of work, whoever does which.

A unit's noise belongs to its indices and its result to its place, so neither the number of actors nor their
deaths change a bit of what comes out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray
import torch
from torch import Tensor

from cm_ray.cluster.pool.result import Assembly, Gathered, Unit, Wanted
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.runtime.connect import user_error
from cm_ray.data.shards import Manifest, read_rows, rows_per_group
from cm_ray.data.source import cut_pieces
from cm_ray.editing.files import EditRequest, edit_unit
from cm_ray.errors import UserError
from cm_ray.metrics.extractors.registry import Extractor
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import network_digest, read_model
from cm_ray.networks.model import ModelSpec, build_model
from cm_ray.runs.console import say
from cm_ray.sampling.requests import Request, sample_unit

Opener: TypeAlias = Callable[[str], Extractor]
"""Opens the extractor on a device; picklable."""

Progress: TypeAlias = Callable[[int, int], None]
"""Told of images done and images in all."""

_PATIENCE_S = 20
_LIVES = 5
"""How often an actor is replaced, and a unit of work done again, before it is given up."""
_STATISTICS_BATCHES = 4
"""Batches that an actor adds up before it tells: statistics of 2,048 features are 33 MB."""
_READ_GROUPS = 4
"""Row groups of a shard that an actor reads at once: 32 MiB at most."""


@dataclass(frozen=True, slots=True, eq=False)
class PutModel:
    """A model whose weights lie in the cluster's memory, once for each node that has actors."""

    digest: str
    """Names the network and its weights; see `network_digest`."""
    spec: ModelSpec
    source: str
    """Folder that it was read from, for messages."""
    weights: list[Any]
    """Reference to the weights; in a list, so that Ray does not fetch them for every unit."""


@ray.remote(max_restarts=_LIVES, max_task_retries=_LIVES)
class Sampler:
    """A model and an extractor kept warm."""

    def __init__(self, opener: Opener | None, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.opener, self.device, self.digest = opener, device, ""
        self.extractor: Extractor | None = (
            None  # opened by the first unit, whose errors come back as they are
        )

    def started(self) -> None:
        """Answer once the actor is there."""

    def sample(self, model: PutModel, request: Request, first: int, count: int, wanted: Wanted) -> Unit:
        """Sample `count` images from index `first` on."""
        self._load(model)
        started, parts = time.perf_counter(), []
        with _memory_explained(request.unit):
            for start, size in replace(request, first=first, count=count).units():
                parts.append(sample_unit(self.model, request, start, size))
            return self._unit(torch.cat(parts), wanted, time.perf_counter() - started)

    def edit(self, model: PutModel, request: EditRequest, first: int, count: int) -> Unit:
        """Edit `count` files from file `first` on; the unit's images are the results of one after another."""
        self._load(model)
        started = time.perf_counter()
        with _memory_explained(count):
            images = edit_unit(self.model, request, first, count).flatten(0, 1)
        return self._unit(images, frozenset(["images"]), time.perf_counter() - started)

    def read(self, file: Path, start: int, stop: int, manifest: Manifest, wanted: Wanted) -> Unit:
        """Read images start to stop of a shard."""
        started, step, parts = time.perf_counter(), rows_per_group(manifest.shape), []
        for row in range(start, stop, step):
            parts.append(read_rows(file, row, min(stop, row + step), manifest.shape)[0])
        images = torch.from_numpy(np.concatenate(parts))
        return self._unit(images, wanted, time.perf_counter() - started)

    def _load(self, model: PutModel) -> None:
        """Keep a model, the last one that was asked for."""
        if model.digest != self.digest:
            self.digest = ""
            arrays = ray.get(model.weights[0])
            weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
            self.model = build_model(model.spec, weights, model.source, self.device)
            self.digest = model.digest

    def _unit(self, images: Tensor, wanted: Wanted, seconds: float) -> Unit:
        features = total = None
        if wanted - {"images"}:
            if self.extractor is None:
                assert self.opener is not None, "features are wanted of a pool without extractor"
                self.extractor = self.opener(self.device)
            features = torch.cat([self.extractor.features(part) for part in images.split(256)])
        if "statistics" in wanted and features is not None:
            total = FeatureStatistics.of(features)
        kept = features.float().cpu() if "features" in wanted and features is not None else None
        return Unit(len(images), images if "images" in wanted else None, kept, total, seconds)


@contextlib.contextmanager
def _memory_explained(batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"A batch of {batch_size} images does not fit into the GPU's memory: lower --batch-size."
        ) from error


class SamplerPool:
    """Actors for as long as the block lasts: ``with SamplerPool(opener, actors) as pool``.

    An actor works as soon as the cluster has room for it, the others meanwhile.
    """

    def __init__(self, opener: Opener | None, actors: Actors) -> None:
        self.actors = [
            Sampler.options(**actors.options).remote(opener, actors.device, actors.threads)  # type: ignore[attr-defined]
            for _ in range(actors.count)
        ]
        self.kind = f"{actors.device}-{actors.threads}"
        """On what actors compute: elsewhere the same samples differ by rounding."""
        self._ready: list[Any] = []
        self._starting = {actor.started.remote(): actor for actor in self.actors}

    def __enter__(self) -> SamplerPool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self.actors:
            ray.kill(actor)

    def put(self, folder: Path) -> PutModel:
        """Put the weights of a folder where all actors find them. Raises UserError as `load_model`."""
        spec, weights = read_model(folder)
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        return PutModel(network_digest(folder), spec, str(folder), [ray.put(arrays)])

    def generate(
        self, model: PutModel, request: Request, wanted: Wanted, progress: Progress | None = None
    ) -> Gathered:
        """Sample one request; see `generate_all`."""
        ((_, gathered),) = self.generate_all(model, [request], wanted, progress)
        return gathered

    def generate_all(
        self, model: PutModel, requests: Sequence[Request], wanted: Wanted, progress: Progress | None = None
    ) -> Iterator[tuple[int, Gathered]]:
        """Yield the place of every request and what came of it, as each is finished.

        The units of all requests are worked on together. Raises the UserError of an actor, and UserError
        when actors die more often than they are replaced.
        """
        batches = _STATISTICS_BATCHES if "statistics" in wanted else 1
        units = [
            (place, *unit)
            for place, request in enumerate(requests)
            for unit in replace(request, unit=batches * request.unit).units()
        ]

        def submit(actor: Any, unit: tuple[int, int, int]) -> Any:
            place, first, count = unit
            return actor.sample.remote(model, requests[place], first, count, wanted)

        yield from self._run(submit, units, progress)

    def edit(
        self,
        model: PutModel,
        request: EditRequest,
        pieces: Sequence[tuple[int, int]],
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the place of every piece, (first file, count), and its results, uint8 (count, samples, c, h,
        w), as each is finished. Raises UserError on a bad file, and as `generate_all`.
        """
        units = [(place, *piece, piece[1] * request.samples) for place, piece in enumerate(pieces)]

        def submit(actor: Any, unit: tuple[int, int, int, int]) -> Any:
            _, first, count, _ = unit
            return actor.edit.remote(model, request, first, count)

        for place, gathered in self._run(submit, units, progress):
            assert gathered.images is not None
            yield place, gathered.images.unflatten(0, (-1, request.samples))

    def read(
        self,
        folder: Path,
        manifest: Manifest,
        wanted: Wanted,
        progress: Progress | None = None,
        parts: int = 1,
    ) -> list[Gathered]:
        """Gather what is wanted of all images of a folder of shards, in parts of about as many images each.

        Raises UserError as `read_rows`.
        """
        files = [(shard.file, shard.rows) for shard in manifest.shards]
        step = _READ_GROUPS * rows_per_group(manifest.shape)
        units = [
            (place, folder / file, start, min(step, stop - start))
            for place, pieces in enumerate(cut_pieces(files, -(-manifest.count // parts)))
            for file, first, stop in pieces
            for start in range(first, stop, step)
        ]

        def submit(actor: Any, unit: tuple[int, Path, int, int]) -> Any:
            _, file, start, count = unit
            return actor.read.remote(file, start, start + count, manifest, wanted)

        gathered = dict(self._run(submit, units, progress))
        return [gathered[place] for place in sorted(gathered)]

    def _run(
        self, submit: Callable[[Any, Any], Any], units: Sequence[Any], progress: Progress | None
    ) -> Iterator[tuple[int, Gathered]]:
        """Do units (place, …, count), and yield every place with what its units came to, once all are."""
        assembly = Assembly([unit[0] for unit in units])
        done, total = 0, sum(unit[-1] for unit in units)
        try:
            for number, unit in self._finished(submit, units):
                done += unit.size
                if progress:
                    progress(done, total)
                if gathered := assembly.put(number, unit):
                    yield units[number][0], gathered
        except ray.exceptions.RayError as error:
            raise _explained(error) from error

    def _finished(
        self, submit: Callable[[Any, Any], Any], units: Sequence[Any]
    ) -> Iterator[tuple[int, Unit]]:
        """Yield the number of every unit and what came of it, as each is finished; two to each actor."""
        waiting = list(enumerate(units))[::-1]
        running: dict[Any, tuple[int, Any]] = {}
        idle = [*self._ready, *self._ready]
        while waiting or running:
            while waiting and idle:
                number, unit = waiting.pop()
                actor = idle.pop(0)
                running[submit(actor, unit)] = number, actor
            for reference in self._waited_for(running):
                if reference in self._starting:
                    self._ready.append(self._starting.pop(reference))
                    idle += [self._ready[-1]] * 2
                    continue
                number, actor = running.pop(reference)
                idle.append(actor)
                yield number, ray.get(reference)

    def _waited_for(self, running: Mapping[Any, Any]) -> list[Any]:
        """Return what has come of units or of starting actors; say why, if nothing can come for long."""
        references = [*running, *self._starting]
        done: list[Any] = ray.wait(references, num_returns=1, timeout=None if running else _PATIENCE_S)[0]
        if not done:
            say(
                f"waiting for room on the cluster for {len(self._starting)} actors: others hold its resources"
            )
            done = ray.wait(references, num_returns=1)[0]
        return done


def _explained(error: ray.exceptions.RayError) -> Exception:
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return UserError(
            f"Actors died more than {_LIVES} times over ({str(error).splitlines()[0]}); if memory is short, "
            "lower --batch-size or the number of actors."
        )
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return UserError("A node ran out of memory: lower --batch-size or the number of actors.")
    return user_error(error) or error

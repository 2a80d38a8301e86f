"""Sampling and feature extraction on a pool of warm Ray actors.

The work is cut into tasks, and each task is one call of an actor. Noise is a function of the sample index and
results are merged in the order of the tasks, so that the results do not depend on the number of actors or
on restarts of actors.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import ray
from torch import Tensor

from cm_ray.cluster.pool.actor import Opener, PutModel, Rows, Sampler
from cm_ray.cluster.pool.result import Outputs, ResultCollector, SampleResult
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.pool.supervisor import Supervisor
from cm_ray.cluster.runtime.connect import user_error
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.data.interface.source import cut_pieces
from cm_ray.data.shards.manifest import MANIFEST, Manifest, rows_per_group
from cm_ray.drawing.requests import Request
from cm_ray.editing.files import EditRequest
from cm_ray.evaluation.likelihood import LikelihoodRequest, Likelihoods
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.formats.reading import network_digest, read_model
from cm_ray.own_code import allow_given, carried
from cm_ray.remote.witness import Witness

Progress: TypeAlias = Callable[[int, int], None]
"""A callback that gets the number of finished images and the total number of images."""

_STATISTICS_BATCHES = 4
"""Batches per task when statistics are returned: the statistics of 2,048 features are 33 MB."""
_READ_GROUPS = 4
"""Row groups of a shard per task: 32 MiB at most."""
_NOISE_IMAGES = 1024
"""Images of noise per task."""


class SamplerPool:
    """Pool of actors that ends with the block: ``with SamplerPool(opener, actors) as pool``.

    Every actor starts to work as soon as the cluster has resources for it.
    """

    def __init__(self, opener: Opener | None, actors: Actors) -> None:
        actor: Any = Sampler.options(**actors.options)  # type: ignore[attr-defined]
        start = partial(actor.remote, opener, actors.device, actors.threads, carried())
        self._supervisor = Supervisor(
            start, actors.count, lambda: actors.fit_on(node_resources()) > 0, actors.limit_s
        )
        self.kind = f"{actors.device}-{actors.threads}"
        """Device and threads of the actors. Samples of two kinds of actors differ by rounding."""

    def __enter__(self) -> SamplerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self._supervisor.end()

    @property
    def actors(self) -> list[Any]:
        """The actors, including those that have not started."""
        return self._supervisor.actors

    def put(self, folder: Path, weak: Path | None = None) -> PutModel:
        """Put a model's weights into Ray's object store. Raises UserError as `load_model` does.

        weak: folder of the weaker model that guides it.
        """
        if weak is not None:
            put, guide = self.put(folder), self.put(weak)
            return replace(put, digest=f"{put.digest} guided by {guide.digest}", weak=guide)
        spec, weights = read_model(folder)
        allow_given(spec)  # refused here, and not by an actor
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        return PutModel(network_digest(folder), spec, str(folder), [ray.put(arrays)])

    def generate(
        self, model: PutModel, request: Request, outputs: Outputs, progress: Progress | None = None
    ) -> SampleResult:
        """Return the result of one request; see `generate_all`."""
        ((_, result),) = self.generate_all(model, [request], outputs, progress)
        return result

    def generate_all(
        self, model: PutModel, requests: Sequence[Request], outputs: Outputs, progress: Progress | None = None
    ) -> Iterator[tuple[int, SampleResult]]:
        """Yield the index and the result of every request, in the order in which they finish.

        The actors work on the tasks of all requests together. Raises the UserError of an actor, and
        UserError when actors die too often.
        """
        batches = _STATISTICS_BATCHES if "statistics" in outputs else 1
        tasks = [
            (index, *span)
            for index, request in enumerate(requests)
            for span in replace(request, unit=batches * request.unit).units()
        ]

        def submit(actor: Any, task: tuple[int, int, int]) -> Any:
            index, first, count = task
            return actor.sample.remote(model, requests[index], first, count, outputs)

        yield from self._run(submit, tasks, progress)

    def edit(
        self,
        model: PutModel,
        request: EditRequest,
        spans: Sequence[tuple[int, int]],
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the index and the edited images of every span, in the order in which they finish.

        spans: (first file, count) of the files of each task. The images are uint8 (count, samples, c, h, w).
        Raises UserError on a file that is not an image of the model's size, and as `generate_all` does.
        """
        tasks = [(index, *span, span[1] * request.samples) for index, span in enumerate(spans)]
        folders = {file.parent: file for file in (*request.files, *request.masks)}
        seen = [Witness.of(file) for file in folders.values()]

        def submit(actor: Any, task: tuple[int, int, int, int]) -> Any:
            _, first, count, _ = task
            return actor.edit.remote(model, seen, request, first, count)

        for index, result in self._run(submit, tasks, progress):
            assert result.images is not None
            yield index, result.images.unflatten(0, (-1, request.samples))

    def read(
        self,
        folder: Path,
        manifest: Manifest,
        outputs: Outputs,
        progress: Progress | None = None,
        *,
        groups: int = 1,
        most: int = 0,
    ) -> list[SampleResult]:
        """Return the outputs of the images of a folder of shards, one result for each of `groups` groups.

        most: number of images that are read, the first ones of the shards; 0: all. Raises UserError as
        `read_rows` does.
        """
        count = min(manifest.count, most or manifest.count)
        files = [(shard.file, shard.rows) for shard in manifest.shards]
        step = _READ_GROUPS * rows_per_group(manifest.shape)
        tasks = [
            (group, folder / file, start, min(step, stop - start))
            for group, pieces in enumerate(cut_pieces(_first(files, count), -(-count // groups)))
            for file, first, stop in pieces
            for start in range(first, stop, step)
        ]

        seen = Witness.of(folder / MANIFEST)

        def submit(actor: Any, task: tuple[int, Path, int, int]) -> Any:
            _, file, start, count = task
            return actor.read.remote(seen, file, start, start + count, manifest, outputs)

        results = dict(self._run(submit, tasks, progress))
        return [results[group] for group in sorted(results)]

    def likelihoods(
        self,
        model: PutModel,
        seen: Witness,
        manifest: Manifest,
        rows: Sequence[Rows],
        request: LikelihoodRequest,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, Likelihoods]]:
        """Yield the number and the likelihoods of every group of rows, in the order in which they finish.

        seen: a file of the folder of shards. Raises UserError as `read_rows` does, and as `generate_all`.
        """

        def submit(actor: Any, task: Rows) -> Any:
            return actor.likelihoods.remote(model, seen, manifest, task, request)

        done, total = 0, sum(task.stop - task.start for task in rows)
        try:
            for number, found in self._supervisor.finished(submit, rows):
                done += len(found.bits)
                if progress:
                    progress(done, total)
                yield number, found
        except ray.exceptions.RayError as error:
            raise _explained(error) from error

    def noise(
        self, shape: tuple[int, int, int], count: int, progress: Progress | None = None
    ) -> FeatureStatistics:
        """Return the statistics of `count` images (c, h, w) of clipped Gaussian noise."""
        spans = [(first, min(_NOISE_IMAGES, count - first)) for first in range(0, count, _NOISE_IMAGES)]

        def submit(actor: Any, task: tuple[int, int, int]) -> Any:
            return actor.noise.remote(shape, task[1], task[2])

        ((_, result),) = self._run(submit, [(0, *span) for span in spans], progress)
        assert result.statistics is not None
        return result.statistics

    def _run(
        self, submit: Callable[[Any, Any], Any], tasks: Sequence[Any], progress: Progress | None
    ) -> Iterator[tuple[int, SampleResult]]:
        """Run tasks (group, …, count of images); yield every group with its result when it is complete."""
        collector = ResultCollector([task[0] for task in tasks])
        done, total = 0, sum(task[-1] for task in tasks)
        try:
            for number, task_result in self._supervisor.finished(submit, tasks):
                done += task_result.size
                if progress:
                    progress(done, total)
                if result := collector.put(number, task_result):
                    yield tasks[number][0], result
        except ray.exceptions.RayError as error:
            raise _explained(error) from error


def _first(files: Sequence[tuple[str, int]], count: int) -> list[tuple[str, int]]:
    """Return the files (name, rows) of the first `count` rows; of the last of them, only its first rows."""
    starts = itertools.accumulate((rows for _, rows in files), initial=0)
    return [
        (name, min(rows, count - start))
        for (name, rows), start in zip(files, starts, strict=False)
        if start < count
    ]


def _explained(error: ray.exceptions.RayError) -> Exception:
    """Return the UserError that explains an error of Ray, else the error itself."""
    return user_error(error) or error

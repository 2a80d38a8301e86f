"""The Ray actor that samples, edits and reads images, and extracts their features."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.cluster.pool.result import Outputs, TaskResult
from cm_ray.cluster.runtime.connect import check_cuda
from cm_ray.data.shards.manifest import Manifest, read_rows, rows_per_group
from cm_ray.drawing.autoguidance import guide
from cm_ray.drawing.requests import Request, batch_in_memory, sample_unit
from cm_ray.editing.files import EditRequest, edit_unit
from cm_ray.evaluation.likelihood import LikelihoodRequest, Likelihoods, likelihoods
from cm_ray.evaluation.scorer import class_counts, noise_batches, summed
from cm_ray.metrics.extractors.extractor import Extractor, features_of
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.model import Model, ModelSpec, build_model
from cm_ray.own_code import take
from cm_ray.remote.witness import Witness

Opener: TypeAlias = Callable[[str], Extractor]
"""A picklable function that opens the extractor on a device."""


@dataclass(frozen=True, slots=True, eq=False)
class PutModel:
    """A model whose weights are in Ray's object store, once for each node that has actors."""

    digest: str
    """SHA-256 of the network and its weights; see `network_digest`."""
    spec: ModelSpec
    source: str
    """Folder that the model was read from, for messages."""
    weights: list[Any]
    """Object reference of the weights; in a list, so that Ray does not fetch them for every task."""
    weak: PutModel | None = None
    """The weaker model that guides it; None without autoguidance."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows of a shard."""

    file: Path
    start: int
    stop: int
    """The row after the last one."""
    places: NDArray[np.int64]
    """Places of the images in their source."""
    numbers: tuple[int, ...]
    """The model's number of each class of the images; empty for a model without classes."""


@ray.remote(max_restarts=0, max_task_retries=0)  # the pool's supervisor does both
class Sampler:
    """Actor that keeps a model and an extractor in memory between tasks.

    own_code: what the driver has named; see `cm_ray.own_code.carried`.
    """

    def __init__(self, opener: Opener | None, device: str, threads: int, own_code: Mapping[str, Any]) -> None:
        take(own_code)
        torch.set_num_threads(threads)
        self.opener, self.device, self.digest = opener, device, ""
        self.extractor: Extractor | None = (
            None  # opened by the first task: the caller then gets its errors unchanged
        )

    def started(self) -> str:
        """Return the id of the actor's node."""
        return str(ray.get_runtime_context().get_node_id())

    def sample(
        self, model: PutModel, request: Request, first: int, count: int, outputs: Outputs
    ) -> TaskResult:
        """Sample `count` images, starting at index `first`."""
        self._load(model)
        started, batches = time.perf_counter(), []
        for start, size in replace(request, first=first, count=count).units():
            batches.append(sample_unit(self.model, request, start, size))
        return self._result(torch.cat(batches), outputs, time.perf_counter() - started)

    def edit(
        self, model: PutModel, seen: Sequence[Witness], request: EditRequest, first: int, count: int
    ) -> TaskResult:
        """Edit `count` files, starting at file `first`; the images of the result are ordered by file.

        seen: a file of every folder that is read.
        """
        for witness in seen:
            witness.check()
        self._load(model)
        started = time.perf_counter()
        images = edit_unit(self.model, request, first, count).flatten(0, 1)
        return self._result(images, frozenset(["images"]), time.perf_counter() - started)

    def read(
        self, seen: Witness, file: Path, start: int, stop: int, manifest: Manifest, outputs: Outputs
    ) -> TaskResult:
        """Read the images `start` to `stop` (exclusive) of a shard in the folder of a file that was seen."""
        seen.check()
        started, step, groups = time.perf_counter(), rows_per_group(manifest.shape), []
        for row in range(start, stop, step):
            groups.append(read_rows(file, row, min(stop, row + step), manifest.shape)[0])
        images = torch.from_numpy(np.concatenate(groups))
        return self._result(images, outputs, time.perf_counter() - started)

    def likelihoods(
        self, model: PutModel, seen: Witness, manifest: Manifest, rows: Rows, request: LikelihoodRequest
    ) -> Likelihoods:
        """Compute the likelihoods of rows of a shard in the folder of a file that was seen."""
        seen.check()
        self._load(model)
        images, labels = read_rows(rows.file, rows.start, rows.stop, manifest.shape)
        numbers = np.array([*rows.numbers, -1])  # the last one is found by the label -1
        with batch_in_memory("computing likelihoods"):
            return likelihoods(
                self.model,
                torch.from_numpy(images.copy()),
                torch.from_numpy(numbers[labels] if rows.numbers else np.full_like(labels, -1)),
                torch.from_numpy(rows.places),
                request,
            )

    def noise(self, shape: tuple[int, int, int], first: int, count: int) -> TaskResult:
        """Return the statistics of `count` images (c, h, w) of clipped noise, from index `first` on."""
        started = time.perf_counter()
        images = torch.cat(list(noise_batches(shape, first, count)))
        return self._result(images, frozenset(["statistics"]), time.perf_counter() - started)

    def _load(self, model: PutModel) -> None:
        """Build a model from its weights, unless it is already loaded. Only the latest one is kept."""
        if model.digest != self.digest:
            self.digest = ""
            if self.device == "cuda":
                check_cuda()
            self.model = self._built(model)
            if model.weak is not None:
                guide(self.model, self._built(model.weak), model.weak.source)
            self.digest = model.digest

    def _built(self, model: PutModel) -> Model:
        arrays = ray.get(model.weights[0])
        weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return build_model(model.spec, weights, model.source, self.device)

    def _result(self, images: Tensor, outputs: Outputs, seconds: float) -> TaskResult:
        features = total = classes = None
        if outputs - {"images"}:
            if self.extractor is None:
                assert self.opener is not None, "a pool without an extractor cannot return features"
                self.extractor = self.opener(self.device)
            features = features_of(self.extractor, images, 256)
        if "statistics" in outputs and features is not None:
            total = FeatureStatistics.of(features)
        if "classes" in outputs and self.extractor is not None:
            classes = summed([class_counts(self.extractor, batch) for batch in images.split(256)])
        kept = features.float().cpu() if "features" in outputs and features is not None else None
        return TaskResult(len(images), images if "images" in outputs else None, kept, total, classes, seconds)

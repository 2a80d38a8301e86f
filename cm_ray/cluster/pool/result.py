"""Results of tasks and of whole requests: merging them in the order of the images, files of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.evaluation.scorer import summed
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.storage.files import parse_json, remove, written_aside
from cm_ray.storage.shapes import misfit, short

Output = Literal["images", "features", "statistics", "classes"]
Outputs: TypeAlias = frozenset[Output]
"""The outputs that actors return. Statistics are enough for a Fréchet distance and are merged, as are the
numbers of images of each class; images and features are sent to the driver only when they are requested."""

_TENSORS = {
    "images": ("images",),
    "features": ("features",),
    "statistics": ("total", "outer"),
    "classes": ("classes",),
}
"""Names of each output's tensors in a file."""


class TaskResult(NamedTuple):
    """Result of one task of an actor; outputs that were not requested are None."""

    size: int
    images: Tensor | None
    """uint8 (size, c, h, w)."""
    features: Tensor | None
    """float32 (size, dim)."""
    statistics: FeatureStatistics | None
    classes: Tensor | None
    """Number of images that the extractor takes for each class, int64 (k,)."""
    seconds: float
    """Seconds in which the images were made, without the extraction of features."""


@dataclass(slots=True)
class SampleResult:
    """Merged results of tasks, in the order of the images; outputs that were not requested are None."""

    count: int = 0
    statistics: FeatureStatistics | None = None
    classes: Tensor | None = None
    _images: list[Tensor] = field(default_factory=list)
    _features: list[Tensor] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def append(self, task: TaskResult) -> None:
        """Add the result of the next task."""
        self.count += task.size
        self._seconds.append(task.seconds / task.size)
        if task.images is not None:
            self._images.append(task.images)
        if task.features is not None:
            self._features.append(task.features)
        if task.statistics is not None:
            so_far = self.statistics
            self.statistics = task.statistics if so_far is None else so_far + task.statistics
        if task.classes is not None:
            self.classes = summed([self.classes, task.classes])

    @property
    def images(self) -> Tensor | None:
        """Images, uint8 (n, c, h, w)."""
        return _whole(self._images)

    @property
    def features(self) -> Tensor | None:
        """Features, float32 (n, dim)."""
        return _whole(self._features)

    @property
    def seconds_per_1000(self) -> float:
        """Seconds in which one actor makes 1,000 images: the median over tasks, without features."""
        return 1000 * statistics.median(self._seconds)

    def save(self, path: Path) -> None:
        """Write the result to a file, atomically."""
        tensors = {"seconds": torch.tensor(self._seconds, dtype=torch.float64)}
        if (images := self.images) is not None:
            tensors["images"] = images.contiguous()
        if (features := self.features) is not None:
            tensors["features"] = features.contiguous()
        if self.statistics is not None:
            tensors |= {name: torch.tensor(getattr(self.statistics, name)) for name in ("total", "outer")}
        if self.classes is not None:
            tensors["classes"] = self.classes
        with written_aside(path) as aside:
            save_file(tensors, aside, metadata={"count": json.dumps(self.count)})

    @classmethod
    def load(cls, path: Path, outputs: Outputs) -> SampleResult | None:
        """Read outputs from a file that `save` wrote; None when the file is missing or lacks one of them.

        A damaged file is removed.
        """
        if not path.is_file():
            return None
        needed = ["seconds", *(name for output in outputs for name in _TENSORS[output])]
        try:
            with safe_open(path, framework="pt") as file:
                if not {*needed} <= {*file.keys()}:
                    return None
                found: dict[str, Tensor] = {name: file.get_tensor(name) for name in needed}
                count = parse_json(file.metadata()["count"], path)
            if misfit(count, int) or count < 1:
                raise ValueError(f"a count of {short(count)}")
        except (SafetensorError, UserError, TypeError, KeyError, ValueError):  # metadata() is None, or other
            remove(path)
            return None
        loaded = cls(count=count, _seconds=found["seconds"].tolist())
        if "statistics" in outputs:
            loaded.statistics = FeatureStatistics(count, found["total"].numpy(), found["outer"].numpy())
        loaded.classes = found.get("classes")
        loaded._images = [found["images"]] if "images" in outputs else []
        loaded._features = [found["features"]] if "features" in outputs else []
        return loaded


class ResultCollector:
    """Merges the results of every group of tasks in the order of the tasks' numbers.

    Tasks finish in any order; sums in a fixed order are equal to the last bit.
    """

    def __init__(self, groups: Sequence[int]) -> None:
        """groups: the group of every task, by the task's number."""
        self._groups = groups
        self._early: dict[int, TaskResult] = {}
        self._missing: dict[int, list[int]] = {}  # descending, so that the next number is the last one
        for number in reversed(range(len(groups))):
            self._missing.setdefault(groups[number], []).append(number)
        self._results = {group: SampleResult() for group in self._missing}

    def put(self, number: int, task: TaskResult) -> SampleResult | None:
        """Add the result of a task; return the result of its group when that is complete, else None."""
        group = self._groups[number]
        missing, result = self._missing[group], self._results[group]
        self._early[number] = task
        while missing and missing[-1] in self._early:
            result.append(self._early.pop(missing.pop()))
        return self._results.pop(group) if not missing else None


def joined(results: Sequence[SampleResult], output: Literal["images", "features"]) -> Tensor | None:
    """Concatenate the images or the features of results; None when they were not requested.

    Nothing is held in memory twice: the results then hold views of the returned tensor.
    """
    lists = [result._images if output == "images" else result._features for result in results]
    count = sum(len(tensor) for tensors in lists for tensor in tensors)
    first = next((tensors[0] for tensors in lists if tensors), None)
    if first is None:
        return None
    whole, start = first.new_empty((count, *first.shape[1:])), 0
    del first  # so that every tensor is freed as soon as it is copied
    for tensors in lists:
        for index, tensor in enumerate(tensors):
            here = slice(start, start := start + len(tensor))
            whole[here] = tensor
            tensors[index] = whole[here]
    return whole


def _whole(tensors: list[Tensor]) -> Tensor | None:
    """Concatenate the tensors in place, so that they are concatenated once and held once."""
    if len(tensors) > 1:
        tensors[:] = [torch.cat(tensors)]
    return tensors[0] if tensors else None

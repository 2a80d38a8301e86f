"""What actors bring back, put together in the order of the images, and to and from a file."""

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

from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.storage.files import remove, written_aside

Wanted: TypeAlias = frozenset[Literal["images", "features", "statistics"]]
"""What is to be brought back. Statistics suffice for a Fréchet distance and are added up on the way;
features and images travel only where a score or a person needs them."""

_TENSORS = {"images": ("images",), "features": ("features",), "statistics": ("total", "outer")}
"""What each is in a file."""


class Unit(NamedTuple):
    """What an actor made of a unit of work."""

    size: int
    images: Tensor | None
    """uint8 (size, c, h, w)."""
    features: Tensor | None
    """float32 (size, dim)."""
    statistics: FeatureStatistics | None
    seconds: float
    """Spent on the images; features are not in it."""


@dataclass(slots=True)
class Gathered:
    """Units put together in the order of their images; what was not wanted is None."""

    count: int = 0
    statistics: FeatureStatistics | None = None
    _images: list[Tensor] = field(default_factory=list)
    _features: list[Tensor] = field(default_factory=list)
    _seconds: list[float] = field(default_factory=list)

    def append(self, unit: Unit) -> None:
        """Add the next unit."""
        self.count += unit.size
        self._seconds.append(unit.seconds / unit.size)
        if unit.images is not None:
            self._images.append(unit.images)
        if unit.features is not None:
            self._features.append(unit.features)
        if unit.statistics is not None:
            so_far = self.statistics
            self.statistics = unit.statistics if so_far is None else so_far + unit.statistics

    @property
    def images(self) -> Tensor | None:
        """uint8 (n, c, h, w)."""
        return _whole(self._images)

    @property
    def features(self) -> Tensor | None:
        """float32 (n, dim)."""
        return _whole(self._features)

    @property
    def seconds_per_1000(self) -> float:
        """Seconds in which one actor makes 1,000 images: the median of its units, features not counted."""
        return 1000 * statistics.median(self._seconds)

    def save(self, path: Path) -> None:
        """Write it to a file, aside and renamed."""
        tensors = {"seconds": torch.tensor(self._seconds, dtype=torch.float64)}
        if (images := self.images) is not None:
            tensors["images"] = images.contiguous()
        if (features := self.features) is not None:
            tensors["features"] = features.contiguous()
        if self.statistics is not None:
            tensors |= {name: torch.tensor(getattr(self.statistics, name)) for name in ("total", "outer")}
        with written_aside(path) as aside:
            save_file(tensors, aside, metadata={"count": json.dumps(self.count)})

    @classmethod
    def load(cls, path: Path, wanted: Wanted) -> Gathered | None:
        """Read what is wanted of what `save` wrote; None when it is not there, or lacks some of it.

        A file that is not whole is removed, and is then not there.
        """
        if not path.is_file():
            return None
        needed = ["seconds", *(name for what in wanted for name in _TENSORS[what])]
        try:
            with safe_open(path, framework="pt") as file:
                if not {*needed} <= {*file.keys()}:
                    return None
                found: dict[str, Tensor] = {name: file.get_tensor(name) for name in needed}
                count = json.loads(file.metadata()["count"])
        except (SafetensorError, TypeError, KeyError, ValueError):  # metadata() is None, or another file's
            remove(path)
            return None
        loaded = cls(count=count, _seconds=found["seconds"].tolist())
        if "statistics" in wanted:
            loaded.statistics = FeatureStatistics(count, found["total"].numpy(), found["outer"].numpy())
        loaded._images = [found["images"]] if "images" in wanted else []
        loaded._features = [found["features"]] if "features" in wanted else []
        return loaded


class Assembly:
    """Gathers the units of every place in the order of their numbers: sums are then always the same."""

    def __init__(self, places: Sequence[int]) -> None:
        self._places = places
        self._early: dict[int, Unit] = {}
        self._turns: dict[int, list[int]] = {}  # numbers still to come, the next one last
        for number in reversed(range(len(places))):
            self._turns.setdefault(places[number], []).append(number)
        self._gathered = {place: Gathered() for place in self._turns}

    def put(self, number: int, unit: Unit) -> Gathered | None:
        """Take in a unit; return all of its place when it was the last one missing."""
        place = self._places[number]
        turns, gathered = self._turns[place], self._gathered[place]
        self._early[number] = unit
        while turns and turns[-1] in self._early:
            gathered.append(self._early.pop(turns.pop()))
        return self._gathered.pop(place) if not turns else None


def joined(parts: Sequence[Gathered], what: Literal["images", "features"]) -> Tensor | None:
    """Put the images or features of parts together, in their order; None when they were not wanted.

    They are not held twice: the parts keep views of the whole.
    """
    lists = [part._images if what == "images" else part._features for part in parts]
    count = sum(len(tensor) for tensors in lists for tensor in tensors)
    first = next((tensors[0] for tensors in lists if tensors), None)
    if first is None:
        return None
    whole, start = first.new_empty((count, *first.shape[1:])), 0
    del first  # every part is let go as soon as it is copied
    for tensors in lists:
        for place, tensor in enumerate(tensors):
            here = slice(start, start := start + len(tensor))
            whole[here] = tensor
            tensors[place] = whole[here]
    return whole


def _whole(parts: list[Tensor]) -> Tensor | None:
    """Join the parts in place, so that they are neither held nor joined twice."""
    if len(parts) > 1:
        parts[:] = [torch.cat(parts)]
    return parts[0] if parts else None

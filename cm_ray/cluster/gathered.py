"""What actors bring back, put together in the order of the images, and to and from a file."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from cm_ray.files import remove, written_aside
from cm_ray.metrics.statistics import FeatureStatistics

Wanted: TypeAlias = frozenset[Literal["images", "features", "statistics"]]
"""What is to be brought back. Statistics suffice for a Fréchet distance and are added up on the way;
features and images travel only where a score or a person needs them."""


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
        return torch.cat(self._images) if self._images else None

    @property
    def features(self) -> Tensor | None:
        """float32 (n, dim)."""
        return torch.cat(self._features) if self._features else None

    @property
    def seconds_per_1000(self) -> float:
        """Seconds in which one actor makes 1,000 images: the median of its units, features not counted."""
        return 1000 * statistics.median(self._seconds)

    def save(self, path: Path) -> None:
        """Write it to a file, aside and renamed."""
        tensors = {"seconds": torch.tensor(self._seconds, dtype=torch.float64)}
        if self.images is not None:
            tensors["images"] = self.images
        if self.features is not None:
            tensors["features"] = self.features
        if self.statistics is not None:
            tensors |= {name: torch.tensor(getattr(self.statistics, name)) for name in ("total", "outer")}
        with written_aside(path) as aside:
            tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(tensors, aside, metadata={"count": json.dumps(self.count)})

    @classmethod
    def load(cls, path: Path, wanted: Wanted) -> Gathered | None:
        """Read what `save` wrote; None when it is not there, not whole, or lacks what is wanted."""
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                found: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                count = json.loads(file.metadata()["count"])
        except (SafetensorError, OSError):
            remove(path)
            return None
        if "outer" in found:
            arrays: list[np.ndarray] = [found.pop(name).numpy() for name in ("total", "outer")]
            statistics_ = FeatureStatistics(count, *arrays)
        else:
            statistics_ = None
        if wanted - {*found, *(["statistics"] if statistics_ else [])}:
            return None
        parts = {f"_{name}": [found[name]] for name in ("images", "features") if name in found}
        return cls(count=count, statistics=statistics_, _seconds=found["seconds"].tolist(), **parts)

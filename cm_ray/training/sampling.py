"""Samples by index, in units of fixed size: the same images from one process or from many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cm_ray.networks.model import ConsistencyModel, to_uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which samples: `count` of them from index `first` on."""

    count: int
    seed: int
    first: int = 0
    taus: tuple[float, ...] = ()
    """Time points beyond t_max; none for one evaluation."""
    label: int | None = None
    """Class of all samples; None draws them."""
    unit: int = 256
    """Images per network evaluation."""

    def units(self) -> list[tuple[int, int]]:
        """Return (first index, count) of every unit of work."""
        stop = self.first + self.count
        return [(i, min(self.unit, stop - i)) for i in range(self.first, stop, self.unit)]


def sample_unit(model: ConsistencyModel, request: Request, first: int, count: int) -> Tensor:
    """Return uint8 images (count, c, h, w) of one unit, on the CPU."""
    device = next(model.parameters()).device
    indices = torch.arange(first, first + count, device=device)
    labels = None if request.label is None else torch.full_like(indices, request.label)
    images = model.sample(indices, seed=request.seed, taus=request.taus, labels=labels)
    return to_uint8(images).cpu()


def sample_units(model: ConsistencyModel, request: Request) -> Iterator[Tensor]:
    """Yield the images of all units in order, uint8 (≤ unit, c, h, w)."""
    for first, count in request.units():
        yield sample_unit(model, request, first, count)

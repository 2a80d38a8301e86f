"""Samples by index, in units of fixed size: the same images from one process or from many."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cm_ray.core.out_of_memory import in_memory
from cm_ray.errors import UserError, setting
from cm_ray.networks.arithmetic import Precision
from cm_ray.networks.model import Model, ModelSpec, to_uint8
from cm_ray.sampling.labels import LabelDraw, label_name
from cm_ray.sampling.samplers import Sampler


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request for samples: `count` of them from index `first` on."""

    count: int
    seed: int
    sampler: Sampler
    first: int = 0
    labels: LabelDraw | None = None
    """Draw of the classes; None for the model's own, `ModelSpec.label_draw`."""
    unit: int = 256
    """Images per network evaluation."""
    channels: Literal[0, 1, 3] = 0
    """1 makes the samples grey, 3 RGB; 0 leaves them as the model makes them."""
    precision: Precision = "float32"
    """Arithmetic of the network."""

    @property
    def labels_text(self) -> str:
        """Name of the draw in the key of a score; none for a model without classes."""
        return self.labels.text if self.labels else "none"

    def labels_of(self, model: Model, indices: Tensor) -> Tensor | None:
        """Return the classes of samples (n,); None for an unconditional model.

        Raises UserError when the draw is of another number of classes than the model has.
        """
        if self.labels is None:
            return model.sample_labels(indices, self.seed)
        sampler = self.sampler
        if self.labels.is_null and sampler.is_guided and not (sampler.weak or sampler.scale_is_input):
            raise UserError("Guidance without a weaker model goes towards a class; ask for one, or for none.")
        classes = model.asked_by(sampler).classes
        if len(self.labels.weights) != classes:
            raise UserError(
                f"The labels are drawn of {len(self.labels.weights)} classes, and the model has "
                f"{classes}; draw those of this model."
            )
        return self.labels.labels(indices, self.seed)

    def drawn_classes(self, spec: ModelSpec) -> list[str]:
        """Return the name of the class of every sample (n,); empty where no draw is given."""
        labels = self.drawn_labels()
        return [] if labels is None else [label_name(spec.class_names, each) for each in labels.tolist()]

    def drawn_labels(self) -> Tensor | None:
        """Return the classes of all samples (n,); None where no draw is given."""
        indices = torch.arange(self.first, self.first + self.count)
        return self.labels.labels(indices, self.seed) if self.labels else None

    def units(self) -> list[tuple[int, int]]:
        """Return (first index, count) of every unit of work. Raises ValueError where there is none."""
        if self.count < 1 or self.unit < 1:
            raise ValueError(f"{self.count} samples in units of {self.unit}: both must be at least 1")
        stop = self.first + self.count
        return [(i, min(self.unit, stop - i)) for i in range(self.first, stop, self.unit)]

    def groups(self, count: int) -> list[Request]:
        """Return up to `count` requests that cover all samples; their counts differ by one at most."""
        edges = [self.first + self.count * i // count for i in range(count + 1)]
        spans = itertools.pairwise(edges)
        return [replace(self, first=first, count=stop - first) for first, stop in spans if stop > first]


def sample_unit(model: Model, request: Request, first: int, count: int) -> Tensor:
    """Return uint8 images (count, c, h, w) of one unit, on the CPU."""
    device = next(model.parameters()).device
    indices = torch.arange(first, first + count, device=device)
    labels = request.labels_of(model, indices)
    with model.computing_in(request.precision), batch_in_memory(f"{count:,} samples at a time"):
        images = model.sample(indices, seed=request.seed, sampler=request.sampler, labels=labels)
    return in_channels(to_uint8(images), request.channels).cpu()


def batch_in_memory(what: str) -> AbstractContextManager[None]:
    """Return a context in which a batch is computed; see `in_memory`. what: the batch, in the plural."""
    return in_memory(what, f"lower {setting('batch_size', 'evaluation.batch_size')}")


def in_channels(images: Tensor, channels: int) -> Tensor:
    """Return uint8 images (b, c, h, w) with 1 or 3 channels; 0 leaves them as they are.

    Colours become grey as in data sets: by their luma, in the integers that Pillow computes with.
    """
    if channels in (0, images.shape[1]):
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    red, green, blue = images.int().unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
    return luma.to(torch.uint8)[:, None]


def sample_units(model: Model, request: Request) -> Iterator[Tensor]:
    """Yield the images of all units in order, uint8 (≤ unit, c, h, w)."""
    for first, count in request.units():
        yield sample_unit(model, request, first, count)


def sample_all(model: Model, request: Request) -> tuple[Tensor, Tensor | None]:
    """Return all images of a request, uint8 (n, c, h, w), and their labels (n,) if the model takes any.

    Raises UserError when the request does not fit the model.
    """
    if request.count < 1 or request.unit < 1:
        samples, unit = setting("samples", python="n"), setting("batch_size")
        raise UserError(f"{samples} {request.count} and {unit} {request.unit} must be at least 1.")
    images = torch.cat(list(sample_units(model, request)))
    return images, request.labels_of(model, torch.arange(request.first, request.first + request.count))

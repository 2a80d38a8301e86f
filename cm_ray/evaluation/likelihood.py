"""Likelihoods of images under a diffusion model, image by image, and their mean as bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cm_ray.core.likelihood import bits_per_dim, dequantised, log_density
from cm_ray.core.noise import Purpose, uniform
from cm_ray.core.ode import Tolerance
from cm_ray.core.types import Images, Labels, Times
from cm_ray.data.interface.classes import match_classes
from cm_ray.errors import UserError
from cm_ray.networks.model import Model, ModelSpec
from cm_ray.version import __version__

DEQUANTISATION = "uniform"


@dataclass(frozen=True, slots=True, kw_only=True)
class LikelihoodRequest:
    """The settings of a computation of likelihoods."""

    seed: int = 0
    """Seed of the noise of dequantisation and of the probes."""
    probes: int = 1
    """Random vectors of Hutchinson's estimate of the trace; 0 for the exact trace."""
    tolerance: Tolerance = field(default_factory=Tolerance)
    """Tolerance of the ODE's solver."""
    batch: int = 64
    """Images per network evaluation."""

    @property
    def trace(self) -> str:
        """Name of the trace: exact, or hutchinson: and the number of probes."""
        return f"hutchinson:{self.probes}" if self.probes else "exact"

    @property
    def key(self) -> dict[str, Any]:
        """The settings that decide the numbers, with the version; model and images are not among them."""
        return {
            "seed": self.seed,
            "trace": self.trace,
            "rtol": self.tolerance.rtol,
            "atol": self.tolerance.atol,
            "dequantisation": DEQUANTISATION,
            "version": __version__,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Likelihoods:
    """The likelihoods of n images."""

    places: NDArray[np.int64]
    """Place of each image in its data (n,)."""
    labels: NDArray[np.int64]
    """Class of each image in the model's numbers; -1 without classes (n,)."""
    bits: NDArray[np.float64]
    """Bits per dimension of each image (n,)."""
    latent_rms: NDArray[np.float64]
    """Root mean square of each image's latent, 1 if it is as probable as noise (n,)."""
    evaluations: NDArray[np.int64]
    """Network evaluations of each image (n,)."""

    @classmethod
    def joined(cls, parts: Sequence[Likelihoods]) -> Likelihoods:
        """Return the likelihoods of all parts, in the order of the images in their data."""
        names = tuple(cls.__dataclass_fields__)
        whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = whole["places"].argsort(kind="stable")
        return cls(**{name: values[order] for name, values in whole.items()})

    @property
    def mean(self) -> tuple[float, float]:
        """The mean bits per dimension, and its standard error over the images (0 for one image)."""
        n = len(self.bits)
        return float(self.bits.mean()), float(self.bits.std(ddof=1) / math.sqrt(n)) if n > 1 else 0.0


def class_numbers(spec: ModelSpec, source: str, names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the model's number of each class of the images; () for a model without classes.

    Raises UserError when the images have no labels, or classes that the model does not have.
    """
    if not spec.classes:
        return ()
    if not names:
        raise UserError(f"The model has classes, and {source} has no labels: give labelled images.")
    numbers = match_classes(spec.class_names, names).numbers
    unknown = [name for name, number in zip(names, numbers, strict=True) if number < 0]
    if unknown:
        raise UserError(
            f"{source} has images of the class {unknown[0]!r}, which the model does not have: leave them out."
        )
    return numbers


def check_density(spec: ModelSpec, name: str) -> None:
    """Raise UserError unless a model has a density: a consistency model has no ODE to follow."""
    if not spec.diffusion.denoiser:
        raise UserError(
            f"{name} is a consistency model, and likelihoods and latents are of diffusion models: give one, "
            "such as the teacher that it was distilled from."
        )


def likelihoods(
    model: Model, pixels: Tensor, labels: Tensor, places: Tensor, request: LikelihoodRequest
) -> Likelihoods:
    """Return the likelihoods of uint8 images (n, c, h, w) under a diffusion model.

    labels: int64 (n,), -1 for images without; places: of the images in their data (n,), which decide the
    random numbers, so that an image has the same likelihood in any batch, to rounding. Raises UserError when
    the ODE cannot be solved to the tolerance.
    """
    model.eval().requires_grad_(False)
    batches = zip(*(each.split(request.batch) for each in (pixels, labels, places)), strict=True)
    parts = [_batch(model, images, classes, where, request) for images, classes, where in batches]
    return Likelihoods.joined(parts)


def _batch(
    model: Model, pixels: Tensor, labels: Tensor, places: Tensor, request: LikelihoodRequest
) -> Likelihoods:
    device = next(model.parameters()).device
    shape = tuple(pixels.shape[1:])
    on_device = places.to(device)
    x = dequantised(pixels.to(device), uniform(request.seed, 0, on_device, Purpose.DEQUANTISATION, shape))
    density = log_density(
        rowwise(model, labels.to(device) if model.spec.classes else None),
        x,
        model.spec.diffusion,
        probes=_signs(request, on_device, shape),
        tolerance=request.tolerance,
    )
    return Likelihoods(
        places=places.numpy(),
        labels=labels.numpy(),
        bits=bits_per_dim(density.log_density, math.prod(shape)).cpu().numpy(),
        latent_rms=density.latent.flatten(1).square().mean(1).sqrt().cpu().numpy(),
        evaluations=density.evaluations.cpu().numpy(),
    )


def rowwise(model: Model, labels: Labels | None) -> Any:
    """Return the denoiser of some rows of a batch with these labels; see `core.likelihood.DenoiseRows`."""

    def denoise(x_t: Images, t: Times, rows: Tensor) -> Images:
        estimate: Images = model(x_t.float(), t.float(), None if labels is None else labels[rows])
        return estimate

    return denoise


def _signs(request: LikelihoodRequest, places: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    if not request.probes:
        return None
    drawn = [uniform(request.seed, index, places, Purpose.PROBES, shape) for index in range(request.probes)]
    return (torch.stack(drawn, 1) > 0.5).double() * 2 - 1


ROW: Mapping[str, Any] = {"name": str, "value": float, "error": float, "evaluations": float, "key": dict}
"""The shape of a row of likelihood.json."""


def row_of(found: Likelihoods, key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the mean as a row of likelihood.json."""
    value, error = found.mean
    return {
        "name": f"bits-per-dim-{len(found.bits)}",
        "value": value,
        "error": error,
        "evaluations": float(found.evaluations.mean()),
        "key": dict(key),
    }


def csv_lines(found: Likelihoods, class_names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table of all images, with a head."""
    yield "image,class,bits_per_dim,latent_rms,evaluations\n"
    for place, label, bits, rms, count in zip(
        found.places, found.labels, found.bits, found.latent_rms, found.evaluations, strict=True
    ):
        name = class_names[label] if 0 <= label < len(class_names) else ""
        quoted = '"' + name.replace('"', '""') + '"' if set(name) & {",", '"', "\n"} else name
        yield f"{place},{quoted},{bits:.6f},{rms:.6f},{count}\n"

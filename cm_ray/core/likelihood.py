"""Exact likelihoods and latents of diffusion models, by their probability flow ODE.

In u = ln t the ODE is dx/du = x - D(x, t), and the log-density along a trajectory changes by minus the
divergence of the velocity (instantaneous change of variables; Chen et al. 2018). The model's density is
that of noise N(0, t_max^2) which flows down to t_min.  Song et al. 2021 (Score SDE), section 4.3, appendix D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from cm_ray.core.ode import Solution, Tolerance, integrate
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Images, Times

if TYPE_CHECKING:
    from torch import Tensor

BINS = 127.5
"""Steps of 8-bit pixels per unit of [-1, 1]: pixel v is at v / 127.5 - 1."""

FINE = Tolerance(rtol=1e-6, atol=1e-6)
"""The tolerance of latents, by which images come back to 1e-4."""


class DenoiseRows(Protocol):
    """A denoiser for some images of a batch, which may have labels."""

    def __call__(self, x_t: Images, t: Times, rows: Tensor, /) -> Images:
        """Return the clean images of x_t (k, c, h, w) at t (k,); rows (k,): their places in the batch."""
        ...


class Density(NamedTuple):
    """The log-densities of images, and what was found on the way."""

    log_density: Tensor
    """ln p(x) of each image, in nats, for x in [-1, 1]: float64 (b,)."""
    latent: Images
    """The noise that flows to the image, standard normal if the model is right: float64 (b, c, h, w)."""
    evaluations: Tensor
    """Number of network evaluations, int64 (b,)."""


@dataclass(frozen=True)
class _Flow:
    """dx/du = x - D(x, exp u), for images as rows (k, n)."""

    denoise: DenoiseRows
    shape: tuple[int, ...]

    def __call__(self, state: Tensor, log_time: Times, rows: Tensor) -> Tensor:
        """Return the velocity (k, n)."""
        x = state.reshape(-1, *self.shape)
        with torch.no_grad():
            return state - self.denoise(x, log_time.exp(), rows).to(state.dtype).flatten(1)


@dataclass(frozen=True)
class _FlowWithDensity:
    """The flow, and in the last column the divergence of its velocity, whose integral is asked for."""

    denoise: DenoiseRows
    shape: tuple[int, ...]
    probes: Tensor | None

    def __call__(self, state: Tensor, log_time: Times, rows: Tensor) -> Tensor:
        """Return the velocity and its divergence (k, n + 1)."""
        with torch.enable_grad():
            x = state[:, :-1].reshape(-1, *self.shape).detach().requires_grad_()
            estimate = self.denoise(x, log_time.exp(), rows).to(state.dtype)
        trace = self._exact(estimate, x) if self.probes is None else self._estimated(estimate, x, rows)
        velocity = (x - estimate).detach().flatten(1)
        return torch.cat([velocity, (velocity.shape[1] - trace)[:, None]], 1)

    def _exact(self, estimate: Images, x: Images) -> Tensor:
        """Return the trace of dD/dx (k,), by one backward pass per pixel."""
        flat = estimate.flatten(1)
        trace = torch.zeros_like(flat[:, 0])
        for index in range(flat.shape[1]):
            (row,) = torch.autograd.grad(flat[:, index].sum(), x, retain_graph=True)
            trace = trace + row.flatten(1)[:, index]
        return trace.detach()

    def _estimated(self, estimate: Images, x: Images, rows: Tensor) -> Tensor:
        """Return the mean over the probes of e . dD/dx e (k,).  Skilling 1989, Hutchinson 1990."""
        assert self.probes is not None
        total = torch.zeros_like(estimate[:, 0, 0, 0])
        for probe in self.probes[rows].unbind(1):
            (product,) = torch.autograd.grad((estimate * probe).sum(), x, retain_graph=True)
            total = total + (product * probe).flatten(1).sum(1)
        return (total / self.probes.shape[1]).detach()


def log_density(
    denoise: DenoiseRows,
    x: Images,
    levels: NoiseLevels,
    *,
    probes: Tensor | None = None,
    tolerance: Tolerance | None = None,
) -> Density:
    """Return ln p(x) of a diffusion model for images x (b, c, h, w) at t_min, and their latents.

    probes: for Hutchinson's unbiased estimate of the trace, vectors of independent signs (b, k, c, h, w);
    None computes the trace exactly, with a backward pass for each of the c h w values. Raises UserError as
    `integrate` does.
    """
    flat = x.double().flatten(1)
    probes = None if probes is None else probes.to(flat)
    flow = _FlowWithDensity(denoise, tuple(x.shape[1:]), probes)
    state = torch.cat([flat, torch.zeros_like(flat[:, :1])], 1)
    end, evaluations = integrate(flow, state, math.log(levels.t_min), math.log(levels.t_max), tolerance)
    latent = end[:, :-1] / levels.t_max
    normal = -0.5 * (latent.square() + math.log(2 * math.pi) + 2 * math.log(levels.t_max)).sum(1)
    return Density(normal + end[:, -1], latent.reshape(x.shape), evaluations)


def encode(denoise: DenoiseRows, x: Images, levels: NoiseLevels, tolerance: Tolerance = FINE) -> Solution:
    """Return the noise, nearly standard normal, that flows to the images x, float64 (b, c, h, w)."""
    flow, flat = _Flow(denoise, tuple(x.shape[1:])), x.double().flatten(1)
    end, count = integrate(flow, flat, math.log(levels.t_min), math.log(levels.t_max), tolerance)
    return Solution((end / levels.t_max).reshape(x.shape), count)


def decode(denoise: DenoiseRows, noise: Images, levels: NoiseLevels, tolerance: Tolerance = FINE) -> Solution:
    """Return the images that the noise flows to, the inverse of `encode`, float64 (b, c, h, w)."""
    flow, flat = _Flow(denoise, tuple(noise.shape[1:])), noise.double().flatten(1) * levels.t_max
    end, count = integrate(flow, flat, math.log(levels.t_max), math.log(levels.t_min), tolerance)
    return Solution(end.reshape(noise.shape), count)


def dequantised(pixels: Tensor, uniforms: Tensor) -> Images:
    """Return 8-bit pixels as continuous images: uniform over the bin of each, float64 of their shape.

    uniforms: numbers in (0, 1). The bins are centred on the values v / 127.5 - 1 of the training.
    """
    return (pixels.double() + uniforms.double() - 0.5) / BINS - 1


def bits_per_dim(log_densities: Tensor, dimensions: int) -> Tensor:
    """Return -log2 P / dimensions of 8-bit images from the ln p(x) of their dequantised forms (b,).

    The mean over the noise of dequantisation is an upper bound of the bits that the discrete images need
    (Theis et al. 2016). Without dequantisation the number means nothing, and may be negative.
    """
    return -log_densities / (dimensions * math.log(2.0)) + math.log2(BINS)

"""Data whose denoiser, score and consistency function are known in closed form, in float64."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cm_ray.core.types import Denoise, Images, Times, per_sample


def normals(seed: int, *shape: int) -> Tensor:
    """Draw standard normal numbers in float64, the same ones for the same seed and shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def full(x: Images, t: float) -> Times:
    """Return the same time for every image of x."""
    return x.new_full((len(x),), t)


def order(ns: Sequence[int], errors: Sequence[float]) -> float:
    """Return the p of errors ~ n^-p, the slope of a line through the logarithms."""
    return -float(np.polyfit(np.log(ns), np.log([float(error) for error in errors]), 1)[0])


@dataclass(frozen=True)
class Gaussian:
    """Pixels from N(mean, sigma^2), each for itself; sigma = 0 is a point mass."""

    mean: float = 0.0
    sigma: float = 0.5

    def denoise(self, x_t: Images, t: Times) -> Images:
        """Return E[x | x_t] = (sigma^2 x_t + t^2 mean)/(sigma^2 + t^2)."""
        square = per_sample(t, x_t) ** 2
        return (self.sigma**2 * x_t + square * self.mean) / (self.sigma**2 + square)

    def score(self, x_t: Images, t: Times) -> Images:
        """Return the gradient of ln p_t."""
        return (self.mean - x_t) / (self.sigma**2 + per_sample(t, x_t) ** 2)

    def flow(self, x_t: Images, t: Times, s: Times) -> Images:
        """Return where the PF ODE leads from x_t at t: the deviation from the mean scales with p's."""
        ratio = (self.sigma**2 + s**2) / (self.sigma**2 + t**2)
        return self.mean + (x_t - self.mean) * per_sample(ratio.sqrt(), x_t)

    def mean_denoised(self, x_t: Images, t: Times, s: Times) -> Images:
        """Return the mean clean image of the way from t to s: Euler's step to s with it is the flow."""
        ratio = ((self.sigma**2 + s**2) / (self.sigma**2 + t**2)).sqrt()
        factor = self.sigma**2 * (t + s) / ((self.sigma**2 + t**2) * (t * ratio + s))
        return self.mean + (x_t - self.mean) * per_sample(factor, x_t)

    def consistency(self, t_min: float = 0.002) -> Denoise:
        """Return f: the flow to t_min."""
        return lambda x_t, t: self.flow(x_t, t, torch.full_like(t, t_min))

    def draw(self, seed: int, *shape: int) -> Images:
        """Draw clean images."""
        return self.mean + self.sigma * normals(seed, *shape)

    def p_value(self, sample: Images, t: float = 0.0) -> float:
        """Return how likely a sample of p_t is as far from it (Kolmogorov-Smirnov)."""
        law = stats.norm(self.mean, np.hypot(self.sigma, t))
        return float(stats.kstest(sample.flatten().numpy(), law.cdf).pvalue)


@dataclass(frozen=True)
class Mixture:
    """Pixels from a mixture of N(mean_k, sigma^2): its ODE has no closed form, but it moves quantiles."""

    weights: tuple[float, ...] = (0.4, 0.6)
    means: tuple[float, ...] = (-0.7, 0.4)
    sigma: float = 0.2

    def log_density(self, x_t: Images, t: Times) -> Images:
        """Return ln p_t of every pixel, up to a constant (the same of all components)."""
        return (
            torch.logsumexp(self._exponents(x_t, t), -1) - (self.sigma**2 + per_sample(t, x_t) ** 2).log() / 2
        )

    def denoise(self, x_t: Images, t: Times) -> Images:
        """Return E[x | x_t]: the components' denoisers, weighted by their probabilities given x_t."""
        shares = torch.softmax(self._exponents(x_t, t), -1)
        parts = torch.stack([Gaussian(mean, self.sigma).denoise(x_t, t) for mean in self.means], -1)
        return (shares * parts).sum(-1)

    def cdf(self, x: np.ndarray, t: float) -> np.ndarray:
        """Return the distribution function of p_t."""
        scale = np.hypot(self.sigma, t)
        return sum(w * stats.norm.cdf(x, m, scale) for w, m in zip(self.weights, self.means, strict=True))

    def _exponents(self, x_t: Images, t: Times) -> Tensor:
        means, weights = x_t.new_tensor(self.means), x_t.new_tensor(self.weights)
        variance = self.sigma**2 + per_sample(t, x_t)[..., None] ** 2
        return weights.log() - (x_t[..., None] - means) ** 2 / (2 * variance)

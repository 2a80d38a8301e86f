"""The samplers of score-based models as settings: annealed Langevin dynamics, predictor-corrector, the ODE.

They take any diffusion model. A consistency function has no score: the samplers refuse it as all of diffusion
models do. Their loops are in `cm_ray.sampling.score_steps`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

import torch

from cm_ray.core.noise_times import geometric
from cm_ray.core.ode import Tolerance
from cm_ray.core.sde import SDES, Space
from cm_ray.core.techniques import langevin_step_size
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Denoise, Noise
from cm_ray.errors import SettingError, require
from cm_ray.sampling.samplers import Sampler
from cm_ray.sampling.sampling_steps import Step, clipped
from cm_ray.sampling.score_steps import (
    Predictor,
    PutBack,
    adaptive_ode,
    annealed_langevin,
    predictor_corrector,
)
from cm_ray.settings.choices import choice


class ConditionalSampler(Sampler):
    """A sampler that can put a known part of the images back after each of its updates.

    Song & Ermon 2019, Algorithm 2; Song et al. 2021, appendix I.2.
    """

    def conditional_trajectory(
        self, denoise: Denoise, noise: Noise, levels: NoiseLevels, put_back: PutBack
    ) -> Iterator[Step]:
        """Return the steps from noise to images with the known part; see `trajectory`."""
        return self._loop(clipped(denoise), noise, self.times(levels), put_back)

    def _loop(
        self, denoise: Denoise, noise: Noise, times: tuple[float, ...], put_back: PutBack | None = None
    ) -> Iterator[Step]:
        raise NotImplementedError


@choice(Sampler, "langevin")
@dataclass(frozen=True, slots=True)
class Langevin(ConditionalSampler):
    """Annealed Langevin dynamics.  Song & Ermon 2019 (NCSN) and 2020 (NCSNv2), Algorithm 1."""

    steps: int = 232
    """L, the noise levels, from t_max to t_min with a common ratio."""
    repeats: int = 5
    """T, steps at each level: 100 for NCSN, 5 for NCSNv2 on CIFAR-10."""
    step_size: float = 0.0
    """epsilon/sigma_L^2: a step at level t is this times t^2. 0: the best one in closed form, technique 4 of
    NCSNv2."""
    denoise: bool = True
    """End with the denoised image x + t_min^2 s, which NCSNv2 recommends."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range."""
        Sampler.__post_init__(self)
        require(self.steps >= 2, "steps", f"must be at least 2 noise levels, not {self.steps}")
        require(self.repeats >= 1, "repeats", f"must be at least 1, not {self.repeats}")
        require(0 <= self.step_size < 1, "step_size", f"must be in [0, 1), not {self.step_size}")

    @property
    def evaluations(self) -> int:
        """L T, and one for the denoising step."""
        return self.steps * self.repeats + self.denoise

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return the noise levels, and 0 before them for the denoising step."""
        return (*([0.0] if self.denoise else []), *geometric(self.steps, levels).tolist())

    def _loop(
        self, denoise: Denoise, noise: Noise, times: tuple[float, ...], put_back: PutBack | None = None
    ) -> Iterator[Step]:
        ratio = times[-1] / times[-2]
        size = self.step_size or langevin_step_size(ratio, self.repeats)
        return annealed_langevin(
            denoise, noise, times, repeats=self.repeats, step_size=size, put_back=put_back
        )


@choice(Sampler, "pc")
@dataclass(frozen=True, slots=True)
class PredictorCorrector(ConditionalSampler):
    """Predictor-corrector sampling of an SDE.  Song et al. 2021, Algorithms 1 to 5.

    The times are those of the SDE, geometric for VE and uniform for VP and sub-VP, from t_max to t_min and to
    0. Any diffusion model can be sampled in any of the three spaces.
    """

    steps: int = 1000
    """Steps of the predictor."""
    sde: Space = "ve"
    """The SDE that is discretised: ve, vp or sub-vp."""
    predictor: Predictor = "reverse-diffusion"
    """reverse-diffusion, euler-maruyama, or ancestral (of ve and vp)."""
    corrections: int = 1
    """Steps of the Langevin corrector before each step of the predictor."""
    snr: float = 0.16
    """Signal-to-noise ratio of the corrector, by which its step size is found."""

    def __post_init__(self) -> None:
        """Raise SettingError on values that are out of range or do not go together."""
        Sampler.__post_init__(self)
        require(self.steps >= 2, "steps", f"must be at least 2, not {self.steps}")
        require(self.corrections >= 0, "corrections", f"must not be negative, but is {self.corrections}")
        sound = math.isfinite(self.snr) and self.snr > 0
        require(sound, "snr", f"must be positive and finite, not {self.snr}")
        for name, known in (("sde", get_args(Space)), ("predictor", get_args(Predictor))):
            value = getattr(self, name)
            require(value in known, name, f"must be one of {', '.join(known)}, not {value}")
        if self.predictor == "ancestral" and self.sde == "sub-vp":
            raise SettingError(
                "predictor", "ancestral is of sde ve and vp; take reverse-diffusion for sub-vp"
            )

    @property
    def evaluations(self) -> int:
        """One evaluation for each correction and each prediction."""
        return self.steps * (self.corrections + 1)

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return 0 and as many noise levels as steps."""
        sde, ends = SDES[self.sde], torch.tensor([levels.t_min, levels.t_max], dtype=torch.float64)
        low, high = sde.time(ends).tolist()
        grid = sde.level(torch.linspace(low, high, self.steps, dtype=torch.float64)).tolist()
        return (0.0, levels.t_min, *grid[1:-1], levels.t_max)

    def _loop(
        self, denoise: Denoise, noise: Noise, times: tuple[float, ...], put_back: PutBack | None = None
    ) -> Iterator[Step]:
        return predictor_corrector(
            denoise,
            noise,
            times,
            space=self.sde,
            predictor=self.predictor,
            corrections=self.corrections,
            snr=self.snr,
            put_back=put_back,
        )


@choice(Sampler, "ode")
@dataclass(frozen=True, slots=True)
class AdaptiveODE(Sampler):
    """The probability flow ODE from t_max to t_min by an adaptive solver, Dormand & Prince 5(4).

    Song et al. 2021, section 4.3. Each sample has the steps that SciPy's RK45 takes for it alone.
    """

    rtol: float = 1e-5
    """Relative tolerance of a step."""
    atol: float = 1e-5
    """Absolute tolerance of a step."""
    denoise: bool = False
    """End with the denoised image."""

    def __post_init__(self) -> None:
        """Raise SettingError on a tolerance that is out of range."""
        Sampler.__post_init__(self)
        Tolerance(rtol=self.rtol, atol=self.atol)

    @property
    def evaluations(self) -> int:
        """0: every sample has a number of evaluations of its own."""
        return 0

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return t_min and t_max, and 0 before them for the denoising step."""
        return (*([0.0] if self.denoise else []), levels.t_min, levels.t_max)

    def _loop(self, denoise: Denoise, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        return adaptive_ode(denoise, noise, times, tolerance=Tolerance(rtol=self.rtol, atol=self.atol))

"""The common part of all samplers: their guidance, their cost and their way from noise to a sample."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.guidance import UNGUIDED, guided, towards_class, without_class
from cm_ray.core.times import NoiseLevels
from cm_ray.core.types import Denoise, Images, Jump, Labels, Noise, Times
from cm_ray.errors import UserError, require, setting
from cm_ray.sampling.sampling_steps import Step, clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """A sampler: the kind of setting that its choices share."""

    for_denoisers: ClassVar[bool] = True
    """True when it samples from diffusion models, false when from consistency models."""
    scale_is_input: ClassVar[bool] = False
    """True when it samples from students, which take the guidance scale as an input of their network."""

    guidance: float = UNGUIDED
    """Guidance scale w; 1 is none. See `cm_ray.core.guidance`."""
    weak: str = ""
    """First digits of the digest of the weaker model of autoguidance; empty: the model without its class."""
    class_scale: float = 0.0
    """Scale of the gradient of a noise-conditional classifier, which is added to the score; 0: none."""
    classifier: str = ""
    """First digits of the digest of that classifier."""

    def __post_init__(self) -> None:
        """Raise SettingError on a guidance scale that cannot be."""
        sound = math.isfinite(self.guidance) and self.guidance >= 0
        require(sound, "guidance", f"must be finite and not negative, not {self.guidance}")
        sound = math.isfinite(self.class_scale) and self.class_scale >= 0
        require(sound, "class_scale", f"must be finite and not negative, not {self.class_scale}")

    @property
    def evaluations(self) -> int:
        """Number of estimates of a clean image for a sample."""
        raise NotImplementedError

    @property
    def is_guided(self) -> bool:
        """True unless the guidance scale is 1."""
        return self.guidance != UNGUIDED

    @property
    def nfe(self) -> int:
        """Number of network evaluations for a sample; guidance evaluates a second one, or a classifier."""
        weaker = self.is_guided and not self.scale_is_input
        return self.evaluations * (1 + weaker + (self.class_scale > 0))

    def times(self, levels: NoiseLevels) -> tuple[float, ...]:
        """Return the times between its steps, ascending to t_max. Raises SettingError if they do not fit."""
        raise NotImplementedError

    def trajectory(self, denoise: Denoise | Jump, noise: Noise, levels: NoiseLevels) -> Iterator[Step]:
        """Return the steps from noise to a sample, with estimates clipped to [-1, 1].

        denoise: a consistency function, the denoiser of a diffusion model, or a function of two times; see
        `guiding` for what guidance makes of it. noise: standard normal images by the index of the draw; 0 is
        the start. Raises SettingError as `times` does.
        """
        return self._loop(clipped(denoise), noise, self.times(levels))

    def guiding(self, f: Any, weak: Any = None, slope: Any = None) -> Any:
        """Return a model with the guidance of this sampler: a function (x_t, t[, labels[, s]]) like f.

        weak: the weaker model, a function like f; None for f itself without the class. slope: the gradient of
        a classifier, a function (x_t, t, labels). Without guidance it is f. Raises UserError when the weaker
        model or the classifier that it names is missing.
        """
        guided_f = self._by_weaker(f, weak)
        if not self.class_scale:
            return guided_f
        if slope is None:
            name = self.classifier or "of noisy images"
            what = setting("classifier")
            raise UserError(f"The sampler is guided by the classifier {name}; give it as {what}.")

        def estimate(x_t: Images, t: Times, *labels: Labels) -> Images:
            if not labels:
                raise UserError("Guidance by a classifier needs labels; give some.")
            clean = guided_f(x_t, t, *labels)
            return towards_class(clean, slope(x_t, t, *labels), t, self.class_scale)

        return estimate

    def _by_weaker(self, f: Any, weak: Any) -> Any:
        if not self.is_guided:
            return f
        if self.scale_is_input:
            return lambda x_t, t, *given: f(x_t, t, *given, scale=t.new_full(t.shape, self.guidance))
        if self.weak and weak is None:
            raise UserError(f"The sampler is guided by the model {self.weak}; give it as {setting('weak')}.")

        def estimate(x_t: Images, t: Times, *labels: Labels) -> Images:
            if weak is None and not labels:
                raise UserError("Guidance without a weaker model needs labels; give some, or such a model.")
            other = f(x_t, t, without_class(*labels)) if weak is None else weak(x_t, t, *labels)
            return guided(f(x_t, t, *labels), other, self.guidance)

        return estimate

    def _loop(self, denoise: Jump, noise: Noise, times: tuple[float, ...]) -> Iterator[Step]:
        raise NotImplementedError


def check_guidance(sampler: Sampler, diffusion: Diffusion, *, null_class: bool) -> Sampler:
    """Return the sampler. Raises UserError when a model cannot be guided as it wants.

    null_class: whether the model has learned to do without a class.
    """
    asked, scales = f"guidance={sampler.guidance:g}", diffusion.guidance
    if bool(sampler.class_scale) != bool(sampler.classifier):
        raise UserError(f"A classifier and its scale go together; give {setting('classifier')} and a scale.")
    if sampler.class_scale and (not sampler.for_denoisers or sampler.scale_is_input):
        raise UserError("A classifier guides diffusion models; take heun:18, say, of such a model.")
    if not sampler.is_guided:
        if sampler.weak:
            raise UserError("A weaker model guides by a scale other than 1; give guidance=2, say.")
    elif scales:
        if not sampler.scale_is_input:
            raise UserError(f"The network takes the scale of {asked} as an input; sample it by pd:4, say.")
        if sampler.weak or not scales[0] <= sampler.guidance <= scales[1]:
            raise UserError(
                f"The network takes guidance scales from {scales[0]:g} to {scales[1]:g} as an input, and no "
                f"weaker model; give one of them instead of {asked}."
            )
    elif sampler.scale_is_input:
        raise UserError(
            f"{asked} is for diffusion models, and for students whose network takes the scale; distil one "
            f"with {setting('guidance')} drawn."
        )
    elif not sampler.weak and not null_class:
        raise UserError(
            f"{asked} needs a model with classes that can do without them; train one with "
            f"{setting('network.label_dropout')} 0.1, or give a weaker model."
        )
    return sampler

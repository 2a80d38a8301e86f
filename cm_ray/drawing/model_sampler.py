"""The sampler that is asked of a model, by a text, a number of steps or time points."""

from __future__ import annotations

import dataclasses

from cm_ray.errors import UserError
from cm_ray.networks.model import ModelSpec
from cm_ray.sampling.multistep import sampler_for, sampler_with
from cm_ray.sampling.sampler import Sampler, check_guidance
from cm_ray.sampling.text import checked_kind, parse


def sampler_of(
    spec: ModelSpec,
    sampler: str | Sampler = "",
    steps: int = 0,
    taus: tuple[float, ...] = (),
    *,
    guidance: float | None = None,
    weak: str = "",
    class_scale: float | None = None,
    classifier: str = "",
) -> Sampler:
    """Return the sampler that is asked of a model; by default the model's own.

    sampler: an object, or its text; see `cm_ray.sampling.text`. steps: of the model's own sampler; a
    consistency model takes its own time points if it knows any for as many evaluations, else default ones.
    taus: time points of a consistency model below t_max, descending. guidance: a scale in place of the
    sampler's. weak: digest of the weaker model of its guidance. class_scale: a scale of a classifier's
    gradient in place of the sampler's, 1 where neither has one. classifier: its digest. Raises UserError when
    two of the first three are given, or when they do not fit the model.
    """
    given = _unguided(spec, sampler, steps, taus)
    scale = given.guidance if guidance is None else float(guidance)
    chosen = dataclasses.replace(given, guidance=scale, weak=weak or given.weak)
    if class_scale is not None or classifier:
        by_class = (given.class_scale or 1.0) if class_scale is None else float(class_scale)
        named = classifier or given.classifier
        chosen = dataclasses.replace(chosen, class_scale=by_class, classifier=named)
    return check_guidance(chosen, spec.diffusion, null_class=spec.null_class)


def _unguided(spec: ModelSpec, sampler: str | Sampler, steps: int, taus: tuple[float, ...]) -> Sampler:
    if sum((sampler != "", bool(steps), bool(taus))) > 1:
        raise UserError("Give one of a sampler, a number of steps and time points.")
    if steps < 0:
        raise UserError(f"The number of sampling steps must be at least 1, not {steps}.")
    if isinstance(sampler, Sampler):
        return checked_kind(sampler, spec.diffusion)
    if not isinstance(sampler, str):
        raise UserError(f"The sampler must be an object, such as OneStep(), or its text, not {sampler!r}.")
    if not all(isinstance(tau, int | float) for tau in taus):
        raise UserError(f"Time points must be numbers, not {list(taus)}.")
    if sampler:
        return parse(sampler, spec.diffusion, own=spec.sampler, time_points=spec.time_points)
    if taus:
        return checked_kind(sampler_with(taus, spec.diffusion), spec.diffusion)
    if steps and spec.diffusion.denoiser:
        return dataclasses.replace(spec.sampler, steps=steps)  # type: ignore[call-arg]
    return sampler_for(steps, spec.diffusion, spec.time_points) if steps else spec.sampler

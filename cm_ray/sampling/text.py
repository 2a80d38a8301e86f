"""Samplers as short texts: ``one-step``, ``multistep@2.0,0.8``, ``jumps:4``, ``heun:18``, ``pc:1000,sde=vp``.

The texts are used on the command line, in settings, in model.json, in the keys of scores and in names of
files. `parse` converts a text to a `Sampler`, and `text_of` a `Sampler` to a text; no other module
handles the texts.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import Field, fields, replace
from typing import Any

from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import SettingError, UserError, closest
from cm_ray.sampling import score_samplers as score_samplers  # samplers of their own words
from cm_ray.sampling.multistep import TimePoints, jumps_for, jumps_of, multistep_for, multistep_of
from cm_ray.sampling.samplers import Jumps, Multistep, PointSampler, Sampler
from cm_ray.settings.choices import classes_of, word_of

ONE_STEP, OWN = "one-step", "own"
_MULTISTEP, _JUMPS = word_of(Multistep), word_of(Jumps)
_STEPS, _TAUS = "steps", "taus"
_SWITCH = {"yes": True, "no": False}
_LONGEST = 100
"""The longest name of a file: file systems allow 255 characters, and temporary files have longer names."""


def text_of(sampler: Sampler) -> str:
    """Return the text of a sampler; `parse` converts it to an equal sampler."""
    word = word_of(sampler)
    if isinstance(sampler, PointSampler):
        word += "@" + ",".join(map(repr, sampler.taus))
    steps = getattr(sampler, "steps", None)
    return ",".join([word if steps is None else f"{word}:{steps}", *_options_of(sampler)])


def _options_of(sampler: Sampler) -> list[str]:
    """Return the options of a sampler's text that differ from the defaults."""
    values = {item.name: (getattr(sampler, item.name), item.default) for item in _fields(type(sampler))}
    return [f"{name}={_written(value)}" for name, (value, default) in values.items() if value != default]


def _fields(kind: type[Sampler]) -> tuple[Field[Any], ...]:
    """Return the fields of a sampler that are options of its text; all of them have defaults."""
    return tuple(item for item in fields(kind) if item.name not in (_STEPS, _TAUS))


def _written(value: float | bool | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else repr(value).removesuffix(".0")


def file_name(sampler: Sampler) -> str:
    """Return the text for names of files; many time points are shortened to the first ones and a digest."""
    name = re.sub(r"[^\w.=-]", "-", text_of(sampler))
    if len(name) <= _LONGEST:
        return name
    return f"{name[: _LONGEST - 20]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def parse(
    text: str, diffusion: Diffusion, *, own: Sampler | None = None, time_points: TimePoints = ()
) -> Sampler:
    """Return the sampler that a text means for models with these times.

    own: the sampler of the text ``own``. time_points: the model's, from which ``multistep:k``, or ``jumps:k``
    of a model of two times, takes those for k evaluations; if there are none, default ones. Raises UserError
    on an invalid text, and on a sampler for another kind of model.
    """
    name, _, options = text.partition(",")
    if name == OWN and own is not None:
        sampler = replace(own, **_options(text, options, type(own)))
    else:
        sampler = _parsed(text, diffusion, time_points)
    return checked_kind(sampler, diffusion, text)


def checked_kind(sampler: Sampler, diffusion: Diffusion, text: str = "") -> Sampler:
    """Return the sampler. Raises UserError, naming its text, when it is not for this kind of model."""
    text = text or text_of(sampler)
    if diffusion.denoiser and not sampler.for_denoisers:
        raise UserError(f"{text} is for consistency models, and this is a diffusion model: try heun:18.")
    if isinstance(sampler, Jumps) and not diffusion.two_times:
        raise UserError(f"{text} is for models of two times, and this one has one time: try multistep:2.")
    if sampler.for_denoisers and not diffusion.denoiser:
        raise UserError(f"{text} is for diffusion models, and this is a consistency model: try multistep:2.")
    return sampler


def _parsed(text: str, diffusion: Diffusion, time_points: TimePoints) -> Sampler:
    name, number, points, options = _split(text)
    kind = classes_of(Sampler)[name]
    try:
        made: Sampler
        if name == _MULTISTEP:
            own = () if diffusion.two_times else time_points  # those of a model of two times are for jumps
            made = multistep_of(points, diffusion) if points else multistep_for(number, diffusion, own)
        elif name == _JUMPS:
            made = jumps_of(points, diffusion) if points else jumps_for(number, diffusion, time_points)
        else:
            made = kind(*([number] if number else []))
        return replace(made, **_options(text, options, kind))
    except SettingError as error:
        raise UserError(f"The sampler {text!r} cannot be: {error}") from error


def _split(text: str) -> tuple[str, int, tuple[float, ...], str]:
    """Return name, number, points and options of NAME:NUMBER[,OPTIONS] or multistep@T,T ..."""
    match = re.fullmatch(r"([a-z0-9-]+)(?::(\d+))?(?:@([\d.,e+-]+))?(?:,([a-z_]+=.*))?", text)
    known = list(classes_of(Sampler))
    if match is None or match[1] not in known:
        raise UserError(f"There is no sampler {text!r}: {closest(text.split(':')[0], known)}")
    name, number, points, options = match.groups(default="")
    steps = _takes_steps(name)
    if number and not steps:
        raise UserError(f"The sampler {text!r} has no number of steps: write {name}.")
    if steps and not number and not points:
        raise UserError(f"The sampler {text!r} lacks its steps: write {name}:4, say.")
    if number and (points or int(number) < 1):
        raise UserError(f"The sampler {text!r} must have at least one step, or time points instead.")
    if points and name not in (_MULTISTEP, _JUMPS):
        raise UserError(f"The sampler {text!r} takes a number of steps alone: write {name}:4, say.")
    try:
        return name, int(number or 0), tuple(float(t) for t in points.split(",")) if points else (), options
    except ValueError as error:
        raise UserError(f"The time points of the sampler {text!r} are not numbers.") from error


def _takes_steps(name: str) -> bool:
    return any(item.name in (_STEPS, _TAUS) for item in fields(classes_of(Sampler)[name]))


def _options(text: str, options: str, kind: type[Sampler]) -> dict[str, Any]:
    known = {item.name: item.default for item in _fields(kind)}
    found = {}
    for option in filter(None, options.split(",")):
        key, _, value = option.partition("=")
        if key not in known:
            raise UserError(f"The sampler {text!r} has an unknown option: {closest(key, list(known))}")
        try:
            found[key] = _read(value, known[key])
        except (ValueError, KeyError) as error:
            wanted = {bool: "yes or no", int: "a whole number"}.get(type(known[key]), "a number")
            raise UserError(f"{key} of the sampler {text!r} must be {wanted}.") from error
    return found


def _read(value: str, default: Any) -> Any:
    """Return a value of the default's type. Raises ValueError or KeyError on another one."""
    return _SWITCH[value] if isinstance(default, bool) else type(default)(value)

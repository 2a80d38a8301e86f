"""Reads state dicts of the networks of Karras et al. 2024 (EDM2), whose tensors have the names of ours.

The published files are pickles of code, which are not read here; `cm_ray.storage.file_kinds` says how to save
a state dict from one. The network follows from the names and sizes of the tensors, and its column from the
name of the file, such as edm2-img64-s-1073741-0.075.safetensors.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import EDM2
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.sampling.samplers import Heun

_FILE = re.compile(r"edm2-.*")
_PLACE = re.compile(r"enc\.(\d+)x(\d+)_")
_PUBLISHED = Diffusion(boundary="none", column=EDM(sigma_data=0.5, time_scale=1.0))
_STEPS = 32
"""Steps of Heun's method that the published scores were computed with."""


def is_edm2s(weights: Weights) -> bool:
    """Return True if tensors have the names of EDM2's code, which are also ours."""
    return "emb_fourier.freqs" in weights and "emb_noise.weight" in weights


def read_edm2(file: Path, weights: Weights, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    """Return the specification of a model, and its weights, from a state dict.

    assumed: the specification of a run's own network, for files of other names than EDM2's. The caller
    compares the weights with the network. Raises UserError, with the name of the file, when its column is
    unknown, or its tensors are not those of such a network.
    """
    named = _FILE.fullmatch(file.stem) is not None
    if not named and assumed is None:
        raise UserError(
            f"{file} has an unknown column; name the file like EDM2's, such as edm2-img64-s.safetensors, or "
            f"give it as {setting('teacher.model')} or {setting('init_from.model')} of a run, whose settings "
            "are then assumed."
        )
    diffusion = _PUBLISHED if named or assumed is None else assumed.diffusion
    heads = assumed.network.head_channels if assumed and isinstance(assumed.network, EDM2) else 64
    try:
        network, shape, classes = _infer(weights, heads)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{file} is not one of EDM2's networks ({error} is missing or wrong); give a state dict of EDM2."
        ) from error
    spec = ModelSpec(network=network, diffusion=diffusion, shape=shape, class_names=placeholders(classes))
    return replace(spec, sampler=Heun(steps=_STEPS)) if diffusion.denoiser else spec, weights


def _infer(weights: Weights, heads: int) -> tuple[EDM2, tuple[int, int, int], int]:
    """Return the network settings, the shape of the images and the number of classes.

    heads: channels per attention head, which no tensor shows. Raises KeyError, IndexError or ValueError when
    no network fits the tensors.
    """
    places = {(int(match[1]), int(match[2])) for name in weights if (match := _PLACE.match(name))}
    sizes = sorted(places, reverse=True)
    first = weights[f"enc.{_place(sizes[0])}_conv.weight"]
    numbered = (f"enc.{_place(sizes[0])}_block{index}.emb_gain" for index in itertools.count())
    blocks = sum(1 for _ in itertools.takewhile(weights.__contains__, numbered))
    widths = [weights[f"enc.{_place(size)}_block0.conv_res1.weight"].shape[0] for size in sizes]
    halved = all((h << level, w << level) == sizes[0] for level, (h, w) in enumerate(sizes))
    if not halved or any(width % widths[0] for width in widths):
        raise ValueError(f"widths {widths} at {sizes} pixels")
    labels = weights.get("emb_label.weight")
    classes = 0 if labels is None else labels.shape[1]
    network = EDM2(
        channels=widths[0],
        channel_mult=tuple(width // widths[0] for width in widths),
        blocks=blocks,
        attention_resolutions=tuple(
            min(size) for size in sizes if f"enc.{_place(size)}_block0.attn_qkv.weight" in weights
        ),
        head_channels=heads,
        conditional=classes > 0,
    )
    return network, (first.shape[1] - 1, *sizes[0]), classes


def _place(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"

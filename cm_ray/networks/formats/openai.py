"""Specifications of OpenAI's published consistency models and teachers, from their tensors and file names.

The tensors have the same names as ours, and their shapes determine most of the network. All published models
have attention heads of 64 channels and group norms of 32 groups, and their file names contain the image size.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM, GroupNormUNet
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import check_fits
from cm_ray.sampling.samplers import Heun, OneStep

_SIZES = {"imagenet64": 64, "bedroom256": 256, "cat256": 256}
_NAME = re.compile(rf"(edm|cd|ct)_({'|'.join(_SIZES)})(?:_.*)?")
"""Names of the published files, such as edm_imagenet64_ema, cd_bedroom256_lpips and ct_cat256. They give the
method and the data, which the weights do not."""

NAMES = "{edm,cd,ct}_{imagenet64,bedroom256,cat256}, such as cd_imagenet64_l2 or edm_bedroom256_ema"
"""Names of the published files, for messages."""

_MOST_CLASSES = 1_000_000
_SECOND_POINTS = {  # boundaries of the grid, and index from t_max down, in OpenAI's launch.sh
    "cd_imagenet64_lpips": (40, 22),
    "cd_imagenet64_l2": (40, 22),
    "ct_imagenet64": (201, 106),
    "cd_bedroom256_lpips": (40, 17),
    "cd_bedroom256_l2": (40, 18),
    "ct_bedroom256": (151, 67),
    "ct_cat256": (151, 62),
}


def is_openais(weights: Weights) -> bool:
    """Return True if tensors have the names of OpenAI's code, which are also ours."""
    return "time_embed.0.weight" in weights and "input_blocks.0.0.weight" in weights


def published_spec(stem: str, weights: Weights) -> ModelSpec | None:
    """Return the specification of a file named `stem`; None when it is not the name of a published file.

    Classes are named by their numbers. Raises UserError when the tensors are not those of an ADM U-Net.
    """
    if (match := _NAME.fullmatch(stem)) is None:
        return None
    method, size = match[1], _SIZES[match[2]]
    try:
        network, channels, classes = infer_network(weights, size)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise UserError(
            f"{stem} is not a U-Net of OpenAI ({error} is missing or does not fit); give a published file."
        ) from error
    try:
        check_fits(network, (channels, size, size))
    except UserError as error:
        raise UserError(f"{stem}: {error}") from error
    denoiser = method == "edm"
    return ModelSpec(
        network=network,
        diffusion=Diffusion(boundary="none" if denoiser else "skip"),
        shape=(channels, size, size),
        class_names=placeholders(classes),
        time_points=_time_points(stem),
        sampler=Heun(steps=40) if denoiser else OneStep(),
    )


def placeholders(classes: int) -> tuple[str, ...]:
    """Return the names "0", "1", … for classes of which only the number is known.

    Raises UserError on more than a million.
    """
    if classes > _MOST_CLASSES:
        raise UserError(f"The weights claim {classes} classes, and at most {_MOST_CLASSES} are read.")
    return tuple(map(str, range(classes)))


def infer_network(weights: Weights, size: int) -> tuple[GroupNormUNet, int, int]:
    """Return the network settings that fit the shapes of tensors, the image channels and the classes.

    size: pixels per side of the images. Raises KeyError, IndexError, ZeroDivisionError or ValueError when no
    network fits. Only some of the tensors are checked: the caller compares all of them.
    """
    channels = weights["time_embed.0.weight"].shape[1]
    ups = {_number(name) for name in weights if re.fullmatch(_UP, name)}
    levels, stages = len(ups) + 1, _count(weights, "output_blocks")
    blocks, rest = divmod(stages - levels, levels)
    if rest or blocks < 1:
        raise ValueError(f"{stages} output_blocks on {levels} levels")
    firsts = [1 + level * (blocks + 1) for level in range(levels)]
    widths = [weights[f"input_blocks.{first}.0.out_layers.3.weight"].shape[0] for first in firsts]
    if any(width % channels for width in widths):
        raise ValueError(f"widths {widths} of {channels} channels")
    modulation = weights["input_blocks.1.0.emb_layers.1.weight"].shape[0]
    labels = weights.get("label_emb.weight")
    attends = [f"input_blocks.{first}.1.qkv.weight" in weights for first in firsts]
    config = ADM(
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_resolutions=tuple(size >> level for level in range(levels) if attends[level]),
        scale_shift=modulation == 2 * widths[0],
        resample_blocks=f"input_blocks.{blocks + 1}.0.op.weight" not in weights,
    )
    classes = 0 if labels is None else labels.shape[0]
    config = replace(config, conditional=classes > 0)
    return config, weights["input_blocks.0.0.weight"].shape[1], classes


def as_images(network: GroupNormUNet, weights: Weights, source: Path) -> Weights:
    """Return weights whose attention layers are 2D convolutions instead of 1D convolutions.

    In OpenAI's older code, these tensors have three dimensions, and channels are ordered by heads first.
    Raises UserError, with the name of the source, when there are several heads.
    """
    flat = {n: x[..., None] for n, x in weights.items() if n.endswith(_ATTENTION) and x.ndim == 3}
    for name, tensor in flat.items():
        if name.endswith(".qkv.weight") and network.head_channels not in (0, len(tensor) // 3):
            raise UserError(
                f"{source} has attention in {name} as in OpenAI's older code, which orders channels (heads, "
                "three, dim); give a file with the order (three, heads, dim) and tensors of four dimensions."
            )
    return weights | flat


_ATTENTION = (".qkv.weight", ".proj_out.weight")
_UP = r"output_blocks\.\d+\.(?:[12]\.in_layers\.0\.weight|[12]\.conv\.weight)"


def _number(name: str) -> int:
    return int(name.split(".")[1])


def _count(weights: Weights, group: str) -> int:
    return 1 + max((_number(name) for name in weights if name.startswith(group + ".")), default=-1)


def _time_points(stem: str) -> tuple[tuple[float, ...], ...]:
    if stem not in _SECOND_POINTS:
        return ()
    boundaries, index = _SECOND_POINTS[stem]
    return ((float(f"{float(karras_times(boundaries)[boundaries - 1 - index]):.6g}"),),)

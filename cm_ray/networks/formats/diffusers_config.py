"""The config of diffusers' `UNet2DModel` and the specification of a model, from one to the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cm_ray.core.diffusion import Diffusion
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.weight_names import few
from cm_ray.storage.files import read_json

UNET = "UNet2DModel"
MADE_WITH = "0.42.0"  # version of diffusers, which also reads the files of older versions

FIXED = {  # settings of UNet2DModel for which our network has only one value
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "mid_block_type": "UNetMidBlock2D",
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "act_fn": "silu",
    "norm_eps": 1e-5,
    "add_attention": True,
    "class_embed_type": None,
}
DEFAULTS = FIXED | {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "time_embedding_dim": None,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "resnet_time_scale_shift": "default",
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
"""All settings of UNet2DModel with the values that it takes where a config lacks them."""


def read_config(
    file: Path, class_name: str, fixed: Mapping[str, Any], known: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a config of diffusers, with defaults.

    class_name: the class that it must be of. fixed: settings that must have these values. known: all other
    settings, with their defaults. Raises UserError, with the file and the setting, on another class, another
    value, and on a setting that may change what is computed in a way that is not known here.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing; give a complete pipeline.")
    config = read_json(file)
    check_class(file, config, class_name)
    given = {name: value for name, value in config.items() if not name.startswith("_") and value is not None}
    if unknown := [name for name in given if name not in known and name not in fixed]:
        raise UserError(
            f"{file} has {few(unknown)}, which {class_name} is not known to have here: give a model "
            "without it."
        )
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise UserError(f"{file} has {name} {config[name]!r}; give a pipeline with {value!r}.")
    return {**known, **fixed, **{name: value for name, value in config.items() if not name.startswith("_")}}


def check_class(file: Path, config: Any, expected: str) -> None:
    """Raise UserError when a config is of another class."""
    found = config.get("_class_name") if isinstance(config, dict) else None
    if found != expected:
        raise UserError(f"{file} is the config of a {found}; give a pipeline with a {expected}.")


def unet_config(file: Path) -> dict[str, Any]:
    """Return the config of a U-Net, with defaults. Raises UserError as `read_config`."""
    return read_config(file, UNET, FIXED, DEFAULTS)


def spec_of(unet: Mapping[str, Any], diffusion: Diffusion, file: Path, classes: int) -> ModelSpec:
    """Return the specification of a model with the U-Net of a config; classes are named by their numbers.

    classes: those that the weights have. Raises UserError, with the file of the config, when it is not an ADM
    U-Net, or has another number of classes.
    """
    if (unet["num_class_embeds"] or 0) != classes:
        raise UserError(
            f"{file} has num_class_embeds {unet['num_class_embeds']}, and the weights have {classes} "
            "classes: give weights that fit the config."
        )
    try:
        return _spec(unet, diffusion, classes)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise UserError(
            f"{file} is not the config of an ADM U-Net ({error!r}); give a model with one."
        ) from error


def _spec(unet: Mapping[str, Any], diffusion: Diffusion, classes: int) -> ModelSpec:
    size, widths = unet["sample_size"], tuple(unet["block_out_channels"])
    channels = widths[0]
    if not isinstance(size, int):
        raise ValueError(f"sample_size {size} is not one number")
    if unet["in_channels"] != unet["out_channels"] or any(width % channels for width in widths):
        raise ValueError(f"channels {unet['in_channels']}, {widths}, {unet['out_channels']}")
    if unet["time_embedding_dim"] not in (None, 4 * channels):
        raise ValueError(f"time_embedding_dim {unet['time_embedding_dim']}")
    if unet["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        raise ValueError(f"resnet_time_scale_shift {unet['resnet_time_scale_shift']}")
    _check_groups(unet)
    resample_blocks, attention = _blocks(unet)
    network = ADM(
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        blocks=unet["layers_per_block"],
        attention_resolutions=tuple(size >> level for level, attends in enumerate(attention) if attends),
        head_channels=unet["attention_head_dim"] or 0,
        norm_groups=unet["norm_num_groups"],
        scale_shift=unet["resnet_time_scale_shift"] == "scale_shift",
        resample_blocks=resample_blocks,
        dropout=float(unet["dropout"]),
        conditional=classes > 0,
    )
    shape = (unet["in_channels"], size, size)
    return ModelSpec(network=network, diffusion=diffusion, shape=shape, class_names=placeholders(classes))


def _blocks(unet: Mapping[str, Any]) -> tuple[bool, list[bool]]:
    """Return whether blocks resample, and which levels have attention. Raises ValueError on other blocks."""
    down, up = list(unet["down_block_types"]), list(unet["up_block_types"])[::-1]
    kinds = {unet["downsample_type"], unet["upsample_type"]}
    for resample_blocks in (True, False):
        plain_down, plain_up, kind = _block_types(resample_blocks)
        attention = [name == "AttnDownBlock2D" for name in down]
        wanted_down = ["AttnDownBlock2D" if attends else plain_down for attends in attention]
        wanted_up = ["AttnUpBlock2D" if attends else plain_up for attends in attention]
        if (down, up) == (wanted_down, wanted_up) and (kinds == {kind} or not any(attention)):
            return resample_blocks, attention
    raise ValueError(f"blocks {down} and {up[::-1]}, resampling by {sorted(kinds)}")


def _block_types(resample_blocks: bool) -> tuple[str, str, str]:
    if resample_blocks:
        return "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D", "resnet"
    return "DownBlock2D", "UpBlock2D", "conv"


def _check_groups(unet: Mapping[str, Any]) -> None:
    """Raise ValueError when the attention of the middle block has another number of groups than the rest."""
    groups, middle = unet["norm_num_groups"], unet["attn_norm_num_groups"]
    if middle != groups and not (middle is None and unet["resnet_time_scale_shift"] == "default"):
        raise ValueError(f"attn_norm_num_groups {middle} beside norm_num_groups {groups}")


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """Return the config of a model's U-Net."""
    config = spec.unet
    down, up, kind = _block_types(config.resample_blocks)
    attention = [
        spec.shape[1] >> level in config.attention_resolutions for level in range(len(config.channel_mult))
    ]
    return {
        "_class_name": UNET,
        "_diffusers_version": MADE_WITH,
        "sample_size": spec.shape[1],
        "in_channels": spec.shape[0],
        "out_channels": spec.shape[0],
        "block_out_channels": [mult * config.channels for mult in config.channel_mult],
        "layers_per_block": config.blocks,
        "down_block_types": ["AttnDownBlock2D" if attends else down for attends in attention],
        "up_block_types": ["AttnUpBlock2D" if attends else up for attends in reversed(attention)],
        "downsample_type": kind,
        "upsample_type": kind,
        "attention_head_dim": config.head_channels or None,
        "norm_num_groups": config.norm_groups,
        "attn_norm_num_groups": config.norm_groups,
        "resnet_time_scale_shift": "scale_shift" if config.scale_shift else "default",
        "dropout": config.dropout,
        "num_class_embeds": spec.classes or None,
    } | FIXED


def write_config(file: Path, config: Mapping[str, Any]) -> None:
    """Write a config as diffusers does."""
    file.write_text(json.dumps(config, indent=2) + "\n")

"""Reads and writes directories of diffusers' `ConsistencyModelPipeline`, without diffusers.

The U-Net is a `UNet2DModel` and the scheduler a `CMStochasticIterativeScheduler`. Its time points are
integers: indices of a Karras grid of `num_train_timesteps` boundaries, with 0 at t_max.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.diffusers_names import from_diffusers, to_diffusers
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.weight_files import Weights, read_tensors
from cm_ray.networks.model import ModelSpec
from cm_ray.settings.choices import word_of
from cm_ray.storage.files import folder_written_aside, read_json

INDEX = "model_index.json"
_UNET, _SCHEDULER = Path("unet", "config.json"), Path("scheduler", "scheduler_config.json")
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_MADE_WITH = "0.42.0"  # version of diffusers, which also reads the files of older versions

_FIXED = {  # settings of UNet2DModel for which our network has only one value
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
_GRID = setting("boundaries", python="grid")
_FIXED_STEPS = {"s_noise": 1.0, "clip_denoised": True}


def is_pipeline(folder: Path) -> bool:
    """Return True if a folder holds a pipeline of diffusers."""
    return (folder / INDEX).is_file()


def read_pipeline(folder: Path) -> tuple[ModelSpec, Weights]:
    """Return the specification and the weights of a pipeline's consistency model.

    Classes are named by their numbers. Raises UserError, with the names of the file and of the setting,
    when it is another pipeline, or when its network is not an ADM U-Net.
    """
    _check_class(folder / INDEX, read_json(folder / INDEX), "ConsistencyModelPipeline")
    unet, scheduler = (_config(folder / place) for place in (_UNET, _SCHEDULER))
    _check_class(folder / _UNET, unet, "UNet2DModel")
    _check_class(folder / _SCHEDULER, scheduler, "CMStochasticIterativeScheduler")
    _check_fixed(folder / _UNET, unet, _FIXED)
    _check_fixed(folder / _SCHEDULER, scheduler, _FIXED_STEPS)
    try:
        spec = _spec(unet, scheduler)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{folder / _UNET} is not the config of an ADM U-Net ({error!r}); give a pipeline with one."
        ) from error
    files = [folder / "unet" / name for name in _FILES if (folder / "unet" / name).is_file()]
    if not files:
        raise UserError(f"{folder / 'unet'} holds no weights; put {_FILES[0]} there.")
    weights, _ = read_tensors(files[0])
    return spec, from_diffusers(spec, weights, files[0])


def write_pipeline(
    folder: Path, spec: ModelSpec, weights: Weights, boundaries: int = 40
) -> dict[int, tuple[int, ...]]:
    """Write a directory for ``ConsistencyModelPipeline.from_pretrained``, atomically.

    boundaries: number of boundaries of the grid that time points are rounded to (num_train_timesteps;
    OpenAI's models have 40 when distilled, 201 or 151 when trained). Returns the pipeline's ``timesteps``
    for each number of evaluations for which the model has time points. Raises UserError when the pipeline
    cannot hold the model.
    """
    _check_fits(spec, boundaries)
    written = {len(taus) + 1: _timesteps(taus, spec.diffusion, boundaries) for taus in spec.time_points}
    with folder_written_aside(folder) as aside:
        for place in ("unet", "scheduler"):
            (aside / place).mkdir()
        _write(aside / INDEX, _index())
        _write(aside / _UNET, _unet_config(spec))
        _write(aside / _SCHEDULER, _scheduler_config(spec.diffusion, boundaries))
        tensors = {name: tensor.contiguous() for name, tensor in to_diffusers(spec, weights).items()}
        save_file(tensors, aside / "unet" / _FILES[0], metadata={"format": "pt"})
    return written


def _spec(unet: Mapping[str, Any], scheduler: Mapping[str, Any]) -> ModelSpec:
    size, widths = unet["sample_size"], tuple(unet["block_out_channels"])
    channels = widths[0]
    if not isinstance(size, int):
        raise ValueError(f"sample_size {size} is not one number")
    if unet["in_channels"] != unet["out_channels"] or any(width % channels for width in widths):
        raise ValueError(f"channels {unet['in_channels']}, {widths}, {unet['out_channels']}")
    if unet.get("time_embedding_dim") not in (None, 4 * channels):
        raise ValueError(f"time_embedding_dim {unet['time_embedding_dim']}")
    if unet["resnet_time_scale_shift"] not in ("default", "scale_shift"):
        raise ValueError(f"resnet_time_scale_shift {unet['resnet_time_scale_shift']}")
    _check_groups(unet)
    resample_blocks, attention = _blocks(unet)
    classes = unet.get("num_class_embeds") or 0
    network = ADM(
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        blocks=unet["layers_per_block"],
        attention_resolutions=tuple(size >> level for level, attends in enumerate(attention) if attends),
        head_channels=unet["attention_head_dim"] or 0,
        norm_groups=unet["norm_num_groups"],
        scale_shift=unet["resnet_time_scale_shift"] == "scale_shift",
        resample_blocks=resample_blocks,
        dropout=float(unet.get("dropout", 0.0)),
        conditional=classes > 0,
    )
    diffusion = Diffusion(
        t_min=scheduler["sigma_min"],
        t_max=scheduler["sigma_max"],
        rho=scheduler["rho"],
        column=EDM(sigma_data=scheduler["sigma_data"]),
    )
    return ModelSpec(
        network=network,
        diffusion=diffusion,
        shape=(unet["in_channels"], size, size),
        class_names=placeholders(classes),
    )


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
    groups, middle = unet["norm_num_groups"], unet.get("attn_norm_num_groups")
    if middle != groups and not (middle is None and unet["resnet_time_scale_shift"] == "default"):
        raise ValueError(f"attn_norm_num_groups {middle} beside norm_num_groups {groups}")


def _unet_config(spec: ModelSpec) -> dict[str, Any]:
    config = spec.unet
    down, up, kind = _block_types(config.resample_blocks)
    attention = [
        spec.shape[1] >> level in config.attention_resolutions for level in range(len(config.channel_mult))
    ]
    return {
        "_class_name": "UNet2DModel",
        "_diffusers_version": _MADE_WITH,
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
    } | _FIXED


def _scheduler_config(diffusion: Diffusion, boundaries: int) -> dict[str, Any]:
    assert isinstance(diffusion.column, EDM)
    sigma_data = diffusion.column.sigma_data
    return {
        "_class_name": "CMStochasticIterativeScheduler",
        "_diffusers_version": _MADE_WITH,
        "num_train_timesteps": boundaries,
        "sigma_min": diffusion.t_min,
        "sigma_max": diffusion.t_max,
        "sigma_data": sigma_data,
        "rho": diffusion.rho,
    } | _FIXED_STEPS


def _index() -> dict[str, Any]:
    return {
        "_class_name": "ConsistencyModelPipeline",
        "_diffusers_version": _MADE_WITH,
        "scheduler": ["diffusers", "CMStochasticIterativeScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }


def _check_fits(spec: ModelSpec, boundaries: int) -> None:
    """Raise UserError, with the reason, when the pipeline cannot compute the same as the model."""
    network, diffusion = spec.unet, spec.diffusion
    for holds, sentence in [
        (network.family == "adm", f"the network is {network.family}, and diffusers has only adm"),
        (diffusion.boundary != "none", "it is a diffusion model, and the pipeline is for consistency models"),
        (
            diffusion.boundary != "piecewise",
            "its boundary is piecewise, and the pipeline's is by skip connections",
        ),
        (
            isinstance(diffusion.column, EDM),
            f"its column is {word_of(diffusion.column)}, and the pipeline's is edm",
        ),
        (
            (time_scale := getattr(diffusion.column, "time_scale", 1000)) == 1000,
            f"its time scale is {time_scale:g}, and the pipeline's is 1000",
        ),
        (
            network.channel_mult[0] == 1,
            f"{setting('network.channel_mult')} begins with {network.channel_mult[0]}, and diffusers' "
            "must begin with 1",
        ),
        (boundaries >= 2, f"{_GRID} must be at least 2, not {boundaries}"),
    ]:
        if not holds:
            raise UserError(
                f"This model cannot be written as a ConsistencyModelPipeline: {sentence}; choose another "
                "format or other settings."
            )


def _timesteps(taus: tuple[float, ...], diffusion: Diffusion, boundaries: int) -> tuple[int, ...]:
    """Return the nearest indices of the pipeline's grid, descending to 0 (t_max), as the pipeline expects
    them.

    Raises UserError when two time points have the same index.
    """
    grid = karras_times(boundaries, t_min=diffusion.t_min, t_max=diffusion.t_max, rho=diffusion.rho).flip(0)
    points = torch.tensor((diffusion.t_max, *taus), dtype=torch.float64)
    straight = 1 / diffusion.rho
    nearest = (grid**straight - points[:, None] ** straight).abs().argmin(dim=1).tolist()
    if nearest != sorted({*nearest}):
        raise UserError(
            f"{_GRID} {boundaries} is too few to distinguish the time points {list(taus)}; give more."
        )
    return tuple(reversed(nearest))


def _config(file: Path) -> Any:
    if not file.is_file():
        raise UserError(f"{file} is missing; give a complete pipeline.")
    return read_json(file)


def _check_class(file: Path, config: Mapping[str, Any], expected: str) -> None:
    if (found := config.get("_class_name")) != expected:
        raise UserError(f"{file} is the config of a {found}; give a pipeline with a {expected}.")


def _check_fixed(file: Path, config: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if config.get(name, value) != value:
            raise UserError(f"{file} has {name} {config[name]!r}; give a pipeline with {value!r}.")


def _write(file: Path, config: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(config, indent=2) + "\n")

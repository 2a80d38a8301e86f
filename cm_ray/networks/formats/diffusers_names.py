"""Converts the weights of an ADM U-Net to the names and shapes of diffusers' `UNet2DModel`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from cm_ray.errors import UserError
from cm_ray.networks.claims import meta_unet
from cm_ray.networks.formats.unet_layers import Layer, layers, network_of
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import UNet
from cm_ray.networks.weight_names import unlike

_OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "qkv": "to_{}", "proj_out": "to_out.0"}


def _names(spec: ModelSpec, network: UNet) -> dict[str, str]:
    """Return diffusers' name of each of our layers."""
    table = dict(_OUTER)
    for layer in layers(network):
        inner = {"attention": _ATTENTION, "residual": _RESIDUAL}.get(layer.kind)
        if inner is None:
            inner = _RESIDUAL if spec.unet.resample_blocks else {"op": "conv", "conv": "conv"}
        prefix = _prefix(layer, spec)
        table |= {f"{layer.name}.{ours}": f"{prefix}.{theirs}" for ours, theirs in inner.items()}
    return table


def _prefix(layer: Layer, spec: ModelSpec) -> str:
    levels = len(spec.unet.channel_mult)
    if layer.side == "middle":
        return f"mid_block.{'attentions' if layer.kind == 'attention' else 'resnets'}.{layer.block}"
    side = f"down_blocks.{layer.level}" if layer.side == "down" else f"up_blocks.{levels - 1 - layer.level}"
    kinds = {"residual": "resnets", "attention": "attentions"}
    if layer.kind in kinds:
        return f"{side}.{kinds[layer.kind]}.{layer.block}"
    return f"{side}.{layer.side}samplers.0"


def to_diffusers(spec: ModelSpec, weights: Weights) -> Weights:
    """Return weights by diffusers' names, with separate tensors for queries, keys and values."""
    names = _names(spec, network_of(spec))
    renamed: Weights = {}
    for ours, tensor in weights.items():
        layer, leaf = ours.rsplit(".", 1)
        flat = tensor.flatten(1) if layer.endswith((".qkv", ".proj_out")) and tensor.ndim > 1 else tensor
        pieces = zip("qkv", flat.chunk(3), strict=True) if layer.endswith(".qkv") else [("", flat)]
        renamed |= {f"{names[layer].format(letter)}.{leaf}": piece for letter, piece in pieces}
    return renamed


def from_diffusers(spec: ModelSpec, weights: Weights, source: Path) -> Weights:
    """Return weights by our names.

    Raises UserError, with the source and the first tensor, when tensors are missing or left over.
    """
    network = meta_unet(spec, len(weights), source)
    names = _names(spec, network)
    wanted = network.state_dict()
    theirs = {ours: _theirs(ours, names) for ours in wanted}
    all_theirs = [name for names in theirs.values() for name in names]
    missing = [name for name in all_theirs if name not in weights]
    left = [name for name in weights if name not in {*all_theirs}]
    if missing or left:
        raise UserError(
            f"{source} {unlike(missing, left)}, unlike what its config describes: give weights that fit "
            "the config."
        )
    renamed: Weights = {}
    for ours, expected in wanted.items():
        tensor = torch.cat([weights[name] for name in theirs[ours]])
        renamed[ours] = tensor.reshape(expected.shape) if tensor.numel() == expected.numel() else tensor
    return renamed


def _theirs(ours: str, names: Mapping[str, str]) -> list[str]:
    """Return diffusers' names of a tensor of ours: those of queries, keys and values, or one."""
    layer, leaf = ours.rsplit(".", 1)
    letters = "qkv" if layer.endswith(".qkv") else [""]
    return [f"{names[layer].format(letter)}.{leaf}" for letter in letters]


def is_diffusers(weights: Weights) -> bool:
    """Return True if tensors have the names of a U-Net of diffusers."""
    return "time_embedding.linear_1.weight" in weights and "conv_in.weight" in weights

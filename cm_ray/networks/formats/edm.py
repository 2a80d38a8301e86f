"""Reads state dicts of the networks of Karras et al. 2022: DDPM++, NCSN++ and ADM.

The published files are pickles of code, which are not read here. Save a state dict from one with
``torch.save(pickle["ema"].state_dict(), "edm-cifar10-32x32-cond-vp.pt")``. The network follows from the names
of the tensors, and the column of table 1 from the name of the file.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, VE, VP, Column
from cm_ray.errors import UserError, setting
from cm_ray.networks.architectures import ADM, DDPMpp, GroupNormUNet, NCSNpp
from cm_ray.networks.claims import meta_unet
from cm_ray.networks.families import family_of
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.unet_layers import Layer, layers
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import UNet
from cm_ray.networks.weight_names import unlike
from cm_ray.sampling.samplers import Heun

_FILE = re.compile(r"(edm|baseline)-.*-(vp|ve|adm)")
"""Names of the files, such as edm-cifar10-32x32-uncond-vp. The last word is the architecture; in the name of
a baseline, it is also the column."""
_OUTER = {
    "time_embed.0": "map_layer0",
    "time_embed.2": "map_layer1",
    "label_emb": "map_label",
    "augment_embed": "map_augment",
}
_RESIDUAL = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
}
_ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj_out": "proj"}
_AUGMENTATION, _FILTER = "map_augment.weight", ".resample_filter"
"""Names of the map of augmentations, and of constants of resampling, which have no counterpart here."""
_NORM = re.compile(r".*norm\d?\.weight")
_GROUPS = ADM().norm_groups
_FEWEST = 4 * _GROUPS
"""The fewest channels of a norm for which EDM's code uses as many groups as ours."""
_COLUMN = EDM(sigma_data=0.5, time_scale=1.0)


def is_edms(weights: Weights) -> bool:
    """Return True if tensors have the names of EDM's code."""
    return "map_layer0.weight" in weights


def read_edm(file: Path, weights: Weights, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    """Return the specification of a diffusion model, and its weights by our names, from a state dict.

    assumed: gives the column when the name of the file does not. Raises UserError, with the names of the file
    and of the first wrong tensor, when the state dict is not one of EDM's networks.
    """
    filters = {name: value for name, value in weights.items() if name.endswith(_FILTER)}
    theirs = {name: value for name, value in weights.items() if name not in filters}
    augmentation = theirs.get(_AUGMENTATION)
    diffusion = _diffusion(file.stem, assumed)
    if diffusion is None:
        raise UserError(
            f"{file} has an unknown column of EDM's table 1; name the file like EDM's, such as "
            "edm-cifar10-32x32-cond-vp, or give it as the teacher of a run and set "
            f"{setting('teacher.column')}."
        )
    try:
        network, shape, classes = _infer(theirs)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(
            f"{file} is not one of EDM's networks ({error} is missing or wrong); give a state dict of EDM."
        ) from error
    spec = ModelSpec(
        network=network,
        diffusion=diffusion,
        shape=shape,
        class_names=placeholders(classes),
        sampler=Heun(steps=18),
        augment=0 if augmentation is None else augmentation.shape[-1],
    )
    _check_groups(file, theirs)
    _check_filters(file, network, filters)
    return spec, _renamed(spec, theirs, file)


def _diffusion(stem: str, assumed: ModelSpec | None) -> Diffusion | None:
    """Return the preconditioning; None if neither the name of the file nor a run gives the column.

    In EDM's code the network time is ln(t)/4, without the factor 1000 of OpenAI's, and sigma_data is 0.5.
    """
    if (match := _FILE.fullmatch(stem)) is None:
        if assumed is None:
            return None
        edm = isinstance(assumed.diffusion.column, EDM)
        return replace(assumed.diffusion, column=_COLUMN) if edm else assumed.diffusion
    columns: dict[str, Column] = {"vp": VP(), "ve": VE()}
    if match[1] == "baseline" and match[2] in columns:
        return Diffusion(boundary="none", column=columns[match[2]])
    return Diffusion(boundary="none", column=_COLUMN)


def _check_groups(file: Path, weights: Weights) -> None:
    """Raise UserError on norms with fewer groups in EDM's code, where a group has at least four channels."""
    for name, scale in weights.items():
        if _NORM.fullmatch(name) and len(scale) < _FEWEST:
            raise UserError(
                f"{file} normalises {len(scale)} channels in {name}, for which EDM's code uses "
                f"{len(scale) // 4} groups, not {_GROUPS}; give a network with at least {_FEWEST} channels."
            )


def _check_filters(file: Path, network: GroupNormUNet, filters: Weights) -> None:
    """Raise UserError when a resampling filter is not the one of the network's family."""
    taps = torch.tensor(family_of(network).filter)
    expected = torch.outer(taps, taps) / taps.sum() ** 2
    for name, found in filters.items():
        if found.squeeze().shape != expected.shape or not torch.allclose(found.squeeze(), expected):
            raise UserError(
                f"{file} has another resampling filter in {name} than {network.family}'s, "
                f"{[int(tap) for tap in taps]}; give a network with that filter."
            )


def _infer(weights: Weights) -> tuple[GroupNormUNet, tuple[int, int, int], int]:
    """Return the network settings, the shape of the images and the number of classes.

    Raises KeyError, IndexError, ValueError or ZeroDivisionError when no network fits the tensors.
    """
    places = {name.split(".")[1] for name in weights if name.startswith("enc.")}
    sizes = sorted({int(place.split("x")[0]) for place in places}, reverse=True)
    first = weights[f"enc.{sizes[0]}x{sizes[0]}_conv.weight"]
    adm = "out_conv.weight" in weights
    channels = weights["map_layer0.weight"].shape[0] // 4
    numbered = (f"enc.{sizes[0]}x{sizes[0]}_block{index}.norm0.weight" for index in itertools.count())
    blocks = sum(1 for _ in itertools.takewhile(weights.__contains__, numbered))
    widths = [weights[f"enc.{size}x{size}_block0.norm1.weight"].shape[0] for size in sizes]
    labels = weights.get("map_label.weight")
    classes = 0 if labels is None else labels.shape[1]
    halved = all(size << level == sizes[0] for level, size in enumerate(sizes))
    if not halved or any(width % channels for width in widths):
        raise ValueError(f"widths {widths} at {sizes} pixels")
    kind = ADM if adm else NCSNpp if "map_noise.freqs" in weights else DDPMpp
    config = kind(
        channels=channels,
        channel_mult=tuple(width // channels for width in widths),
        blocks=blocks,
        attention_resolutions=tuple(n for n in sizes if f"enc.{n}x{n}_block0.qkv.weight" in weights),
        conditional=classes > 0,
    )
    return config, (first.shape[1], sizes[0], sizes[0]), classes


def _names(network: UNet, size: int) -> dict[str, str]:
    """Return EDM's name of each of our layers."""
    adm = network.config.family == "adm"
    first, last = f"enc.{size}x{size}_conv", f"dec.{size}x{size}_aux"
    table = _OUTER | {
        "input_blocks.0.0": first,
        "out.0": "out_norm" if adm else f"{last}_norm",
        "out.2": "out_conv" if adm else f"{last}_conv",
    }
    for layer in layers(network):
        prefix = _prefix(layer, size)
        inner = _ATTENTION if layer.kind == "attention" else _RESIDUAL
        table |= {f"{layer.name}.{ours}": f"{prefix}.{theirs}" for ours, theirs in inner.items()}
        if layer.kind == "pyramid":
            table[layer.name] = prefix
    return table


def _prefix(layer: Layer, size: int) -> str:
    here = size >> layer.level
    if layer.side == "middle":
        return f"dec.{here}x{here}_in{layer.block}"
    if layer.kind in ("resampling", "pyramid"):
        there = here // 2 if layer.side == "down" else here * 2
        end = "aux_residual" if layer.kind == "pyramid" else layer.side
        return f"{'enc' if layer.side == 'down' else 'dec'}.{there}x{there}_{end}"
    return f"{'enc' if layer.side == 'down' else 'dec'}.{here}x{here}_block{layer.block}"


def _renamed(spec: ModelSpec, weights: Weights, source: Path) -> Weights:
    network = meta_unet(spec, len(weights), source)
    names = _names(network, spec.shape[1])
    theirs = {ours: _theirs(ours, names) for ours in network.state_dict()}
    wanted = {*theirs.values()}
    missing, left = [n for n in theirs.values() if n not in weights], [n for n in weights if n not in wanted]
    if missing or left:
        raise UserError(
            f"{source} {unlike(missing, left)}, unlike the network of EDM that its other names belong to: "
            "give a complete state dict of EDM's."
        )
    return {ours: _converted(ours, weights[name], spec) for ours, name in theirs.items()}


def _theirs(ours: str, names: Mapping[str, str]) -> str:
    layer, leaf = ours.rsplit(".", 1)
    return "map_noise.freqs" if leaf == "frequencies" else f"{names[layer]}.{leaf}"


def _converted(ours: str, tensor: Tensor, spec: ModelSpec) -> Tensor:
    """Return a tensor of EDM's as it is in our network."""
    if ours.rpartition(".")[0].endswith(".qkv"):
        return _reordered(tensor, spec.unet.head_channels)
    return tensor.t() if ours == "label_emb.weight" and spec.network.family == "adm" else tensor


def _reordered(qkv: Tensor, head_channels: int) -> Tensor:
    """Return channels in the order (three, heads, dim), from EDM's order (heads, dim, three)."""
    dim = head_channels or len(qkv) // 3
    return qkv.unflatten(0, (-1, dim, 3)).movedim(2, 0).flatten(0, 2)

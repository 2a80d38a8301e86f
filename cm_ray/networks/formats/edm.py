"""State dicts of Karras et al.'s networks under our names: their DDPM++, NCSN++ and ADM.

Their published files are pickles of code, which are not read here; a state dict saved from one is, as
``torch.save(pickle["ema"].state_dict(), "edm-cifar10-32x32-cond-vp.pt")``. Names of tensors tell the
network, and the name of the file tells the column of table 1.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from cm_ray.core.diffusion import Diffusion
from cm_ray.core.precondition import EDM, VE, VP, Column
from cm_ray.core.samplers import Heun
from cm_ray.errors import UserError
from cm_ray.networks.architectures import ADM, Architecture, DDPMpp, NCSNpp
from cm_ray.networks.families import family_of
from cm_ray.networks.formats.openai import placeholders
from cm_ray.networks.formats.unet_parts import Part, network_of, parts
from cm_ray.networks.formats.weight_files import Weights
from cm_ray.networks.model import ModelSpec
from cm_ray.networks.unet import UNet

_FILE = re.compile(r"(edm|baseline)-.*-(vp|ve|adm)")
"""edm-cifar10-32x32-uncond-vp: vp is the architecture there, and the column as well in a baseline."""
_OUTER = {"time_embed.0": "map_layer0", "time_embed.2": "map_layer1", "label_emb": "map_label"}
_RESIDUAL = {
    "in_layers.0": "norm0",
    "in_layers.2": "conv0",
    "emb_layers.1": "affine",
    "out_layers.0": "norm1",
    "out_layers.3": "conv1",
    "skip_connection": "skip",
}
_ATTENTION = {"norm": "norm2", "qkv": "qkv", "proj_out": "proj"}
_AUGMENTATION, _FILTER = "map_augment.", ".resample_filter"
"""What only their training uses, and the constants of resampling."""
_NORM = re.compile(r".*norm\d?\.weight")
_GROUPS = ADM().norm_groups
_FEWEST = 4 * _GROUPS
"""Channels of a norm that has as many groups in their code as here."""
_COLUMN = EDM(sigma_data=0.5, time_scale=1.0)


def is_edms(weights: Weights) -> bool:
    """Tell whether tensors are called as in EDM's code."""
    return any(re.fullmatch(r"(model\.)?map_layer0\.weight", name) for name in weights)


def read_edm(file: Path, weights: Weights, assumed: ModelSpec | None) -> tuple[ModelSpec, Weights]:
    """Return the diffusion model that a state dict is of, and its weights under our names.

    assumed: what says the column where the name of the file does not. Raises UserError, naming the file and
    the first tensor, when they are of no network of theirs.
    """
    theirs = {name.removeprefix("model."): value for name, value in weights.items()}
    filters = {name: value for name, value in theirs.items() if name.endswith(_FILTER)}
    theirs = {n: x for n, x in theirs.items() if n not in filters and not n.startswith(_AUGMENTATION)}
    diffusion = _diffusion(file.stem, assumed)
    if diffusion is None:
        raise UserError(
            f"{file} does not tell its column: call it as EDM's files are, edm-cifar10-32x32-cond-vp, or "
            "give it as the teacher of a run with teacher.column."
        )
    try:
        network, shape, classes = _infer(theirs)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{file} holds none of EDM's networks: {error} is missing or wrong.") from error
    spec = ModelSpec(
        network=network,
        diffusion=diffusion,
        shape=shape,
        class_names=placeholders(classes),
        sampler=Heun(steps=18),
    )
    _check_groups(file, theirs)
    _check_filters(file, network, filters)
    return spec, _renamed(spec, theirs, file)


def _diffusion(stem: str, assumed: ModelSpec | None) -> Diffusion | None:
    """Return the preconditioning; None if neither the name of the file nor a run tells the column.

    Whatever the column, their networks see ln(t)/4 and not a thousand times as much, and data of standard
    deviation 1/2.
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
    """Refuse norms that have fewer groups in their code, where a group is of at least four channels."""
    for name, scale in weights.items():
        if _NORM.fullmatch(name) and len(scale) < _FEWEST:
            raise UserError(
                f"{file} normalises {len(scale)} channels in {name}: of less than {_FEWEST}, EDM's code "
                f"makes {len(scale) // 4} groups and not {_GROUPS}, and such a network cannot be read here."
            )


def _check_filters(file: Path, network: Architecture, filters: Weights) -> None:
    """Refuse another resampling than the family's: it does not show in the weights."""
    taps = torch.tensor(family_of(network).filter)
    wanted = torch.outer(taps, taps) / taps.sum() ** 2
    for name, found in filters.items():
        if found.squeeze().shape != wanted.shape or not torch.allclose(found.squeeze(), wanted):
            raise UserError(
                f"{file} resamples by another filter in {name} than {network.family}'s, "
                f"{[int(tap) for tap in taps]}, and such a network cannot be read here."
            )


def _infer(weights: Weights) -> tuple[Architecture, tuple[int, int, int], int]:
    """Return network, shape of the images and classes. Raises KeyError, IndexError … when there are none."""
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
    """Return, for each of our layers, what EDM calls it."""
    adm = network.config.family == "adm"
    first, last = f"enc.{size}x{size}_conv", f"dec.{size}x{size}_aux"
    table = _OUTER | {
        "input_blocks.0.0": first,
        "out.0": "out_norm" if adm else f"{last}_norm",
        "out.2": "out_conv" if adm else f"{last}_conv",
    }
    for part in parts(network):
        prefix = _prefix(part, size)
        inner = _ATTENTION if part.kind == "attention" else _RESIDUAL
        table |= {f"{part.name}.{ours}": f"{prefix}.{theirs}" for ours, theirs in inner.items()}
        if part.kind == "pyramid":
            table[part.name] = prefix
    return table


def _prefix(part: Part, size: int) -> str:
    here = size >> part.level
    if part.side == "middle":
        return f"dec.{here}x{here}_in{part.block}"
    if part.kind in ("resampling", "pyramid"):
        there = here // 2 if part.side == "down" else here * 2
        end = "aux_residual" if part.kind == "pyramid" else part.side
        return f"{'enc' if part.side == 'down' else 'dec'}.{there}x{there}_{end}"
    return f"{'enc' if part.side == 'down' else 'dec'}.{here}x{here}_block{part.block}"


def _renamed(spec: ModelSpec, weights: Weights, source: Path) -> Weights:
    network, left = network_of(spec), dict(weights)
    names = _names(network, spec.shape[1])
    renamed: Weights = {}
    for ours in network.state_dict():
        layer, leaf = ours.rsplit(".", 1)
        theirs = "map_noise.freqs" if leaf == "frequencies" else f"{names[layer]}.{leaf}"
        if theirs not in left:
            raise UserError(f"{source} lacks {theirs}.")
        tensor = left.pop(theirs)
        if layer.endswith(".qkv"):
            tensor = _reordered(tensor, spec.unet.head_channels)
        renamed[ours] = tensor.t() if ours == "label_emb.weight" and spec.network.family == "adm" else tensor
    if left:
        raise UserError(f"{source} has {next(iter(left))}, which belongs to no network of EDM's.")
    return renamed


def _reordered(qkv: Tensor, head_channels: int) -> Tensor:
    """Return channels in the order (three, heads, dim), which EDM has as (heads, dim, three)."""
    dim = head_channels or len(qkv) // 3
    return qkv.unflatten(0, (-1, dim, 3)).movedim(2, 0).flatten(0, 2)

"""Names of tensors in messages: what differs between two state dicts, and whose names they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from torch import Tensor

_MOST_NAMED, _MOST_CHARACTERS = 3, 80
_FIRST_WORDS = {
    "OpenAI's": {
        "time_embed",
        "input_blocks",
        "middle_block",
        "output_blocks",
        "out",
        "label_emb",
        "pyramid",
    },
    "EDM's": {
        "map_noise",
        "map_layer0",
        "map_layer1",
        "map_label",
        "map_augment",
        "enc",
        "dec",
        "out_norm",
        "out_conv",
    },
    "diffusers'": {
        "conv_in",
        "time_embedding",
        "class_embedding",
        "down_blocks",
        "mid_block",
        "up_blocks",
        "conv_norm_out",
        "conv_out",
    },
}
"""The first words of the names of tensors, by whose U-Nets they are."""


def few(names: Iterable[str]) -> str:
    """Return the first few of some names, and the number of the others."""
    listed = list(names)
    shown = [name if len(name) <= _MOST_CHARACTERS else name[:_MOST_CHARACTERS] + "…" for name in listed]
    more = f" and {len(listed) - _MOST_NAMED} more" if len(listed) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more


def whose(names: Collection[str]) -> str:
    """Return whose names most of these are: "OpenAI's", "EDM's" or "diffusers'"; empty if they are "
    "nobody's."""
    words = [{*name.split(".")[:4]} for name in names]
    counts = {owner: sum(bool(each & first) for each in words) for owner, first in _FIRST_WORDS.items()}
    nearest = max(counts, key=lambda owner: counts[owner])
    return nearest if 2 * counts[nearest] > len(words) else ""


def unlike(missing: Sequence[str], left: Sequence[str]) -> str:
    """Return how names differ from those of a network, such as "lacks a, b and 3 more, and has c"."""
    parts = [f"lacks {few(missing)}"] if missing else []
    parts += [f"has {few(left)}"] if left else []
    return ", and ".join(parts)


def differences(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Return how tensors differ from those of a network in names, shapes or kinds of numbers; empty if "
    "not."""
    parts = []
    if names := unlike([name for name in wanted if name not in found], [n for n in found if n not in wanted]):
        parts.append("it " + names)
    both = [name for name in wanted if name in found]
    if shapes := [name for name in both if wanted[name].shape != found[name].shape]:
        name = shapes[0]
        others = f", and {len(shapes) - 1} more have other shapes" if len(shapes) > 1 else ""
        parts.append(
            f"{name} is {tuple(found[name].shape)} there and {tuple(wanted[name].shape)} here{others}"
        )
    if kinds := [name for name in both if _kind(wanted[name]) != _kind(found[name])]:
        parts.append(f"{kinds[0]} is {_type(found[kinds[0]])} there and {_type(wanted[kinds[0]])} here")
    if parts and (owner := whose(found)) != whose(wanted) and owner:
        parts.append(f"its names are {owner}")
    return "; ".join(parts)


def _kind(tensor: Tensor) -> str:
    return "complex" if tensor.is_complex() else "real" if tensor.is_floating_point() else "whole"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

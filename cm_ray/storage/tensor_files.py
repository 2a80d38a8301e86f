"""Reads files of named tensors: safetensors and PyTorch's own, from anywhere, without running code in "
"them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from cm_ray.errors import UserError
from cm_ray.storage.file_kinds import Kind, kind_of

Tensors = dict[str, Tensor]
_MOST_SHARED = 8
"""The largest total of a file's tensors, in sizes of the file: several names may share one tensor."""
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")
_AGAIN = "restore it, or download it again"


def read_safetensors(file: Path, *, check: bool = True) -> tuple[Tensors, dict[str, str]]:
    """Return the tensors of a .safetensors file by name, and its metadata.

    check: refuse tensors that are not finite; to be left out only where another process has checked the same
    tensors. Raises UserError, with the name of the file, when there is none, or it is cut off or damaged.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: restore it.")
    if (kind := kind_of(file)) != "safetensors":
        raise UserError(f"{file} is a file of PyTorch ({kind}) called .safetensors: give it the ending .pt.")
    tensors, metadata = _open_safetensors(file)
    if check:
        check_finite(tensors, file)
    return tensors, metadata


def read_tensor_file(file: Path) -> tuple[Any, dict[str, str]]:
    """Return the content of a file of any kind and name: tensors in nested groups; and its metadata.

    Only tensors, numbers, texts and groups of them are read, and no code is run. Raises UserError, which says
    what the file is and what to do, when it holds anything else, is cut off, or claims more than its size.
    """
    kind: Kind = kind_of(file)
    if kind == "safetensors":
        return _open_safetensors(file)
    return _open_torch(file), {}


def check_finite(tensors: Mapping[str, Tensor], source: Path | str, advice: str = _AGAIN) -> None:
    """Raise UserError, with the first name and the number of values, when tensors are not finite.

    One pass over the memory. source: the file or folder that the tensors are from. advice: what to do.
    """
    bad = [name for name, tensor in tensors.items() if not _is_finite(tensor)]
    if not bad:
        return
    count = int((~torch.isfinite(_as_real(tensors[bad[0]]))).sum())
    values = "a value that is" if count == 1 else f"{count} values that are"
    more = f", and {len(bad) - 1} more of its tensors have such values" if len(bad) > 1 else ""
    raise UserError(f"{bad[0]} of {source} has {values} not finite{more}; {advice}.")


def _is_finite(tensor: Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return True
    low, high = torch.aminmax(_as_real(tensor))  # both are NaN if any value is, and show infinities
    return bool(torch.isfinite(low) & torch.isfinite(high))


def _as_real(tensor: Tensor) -> Tensor:
    """Return a tensor of a type that comparisons are implemented for, in which networks can have its values.

    A value of float64 may be infinite in float32.
    """
    if tensor.is_complex():
        return torch.view_as_real(tensor)
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize in (1, 8) else tensor


def _open_safetensors(file: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            return {name: opened.get_tensor(name) for name in opened.keys()}, metadata  # noqa: SIM118
    except Exception as error:  # the reader raises exceptions of several types on invalid bytes
        raise UserError(f"{file} is damaged or cut off ({_reason(error)}): {_AGAIN}.") from error


def _open_torch(file: Path) -> Any:
    try:
        with warnings.catch_warnings(), file.open("rb") as opened:  # by a name PyTorch would guess the format
            warnings.simplefilter("ignore")
            found = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:  # as above; PyTorch's own sentences advise to run the code in the file
        if match := _GLOBAL.search(str(error)):
            raise UserError(
                f"{file} holds {match[1]} besides tensors, whose code is not run here: save its state dict "
                "alone in the code that it belongs to, as docs/models.md says."
            ) from error
        raise UserError(f"{file} is damaged, cut off, or no file of tensors: {_AGAIN}.") from error
    _check_sizes(found, file)
    return found


def _check_sizes(found: Any, file: Path) -> None:
    """Raise UserError on tensors that claim more than the file holds, or that are no plain tensors."""
    size, total = file.stat().st_size, 0
    for tensor in tensors_in(found):
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{file} holds a tensor that is sparse, quantised or empty: give plain tensors.")
        claimed = tensor.numel() * tensor.itemsize
        total += claimed
        if claimed > size or total > _MOST_SHARED * size:
            raise UserError(f"{file} has {size} bytes and claims tensors of {total} bytes or more: {_AGAIN}.")


def tensors_in(found: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested groups; a group that is reached twice counts once."""
    waiting, seen = [found], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def _reason(error: Exception) -> str:
    lines = str(error).removeprefix("Error while deserializing header: ").splitlines()
    return (lines or [type(error).__name__])[0].rstrip(".")

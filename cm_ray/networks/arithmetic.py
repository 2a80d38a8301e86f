"""The floating-point arithmetic of networks: float32, TensorFloat-32, bfloat16 or float16."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch

from cm_ray.errors import UserError, closest

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""The arithmetic of convolutions, matrix products and attention. tf32 is float32 whose products are rounded
to 10 bits, by NVIDIA GPUs from the Ampere generation on; bfloat16 and float16 are computed by autocast."""


def arithmetic(
    precision: Precision, device: torch.device, *, autocast: bool = True
) -> contextlib.AbstractContextManager[None]:
    """Return the context in which networks compute in a precision, whatever the program's switches say.

    Only convolutions, matrix products and attention are affected. On a GPU, matrix products and convolutions
    both use TensorFloat-32 for tf32, and neither does otherwise, while PyTorch's default is to use it in
    convolutions alone. Convolutions try their algorithms once for each shape, unless PyTorch is told to be
    deterministic. autocast: False for a backward pass, whose operations have their types from the forward
    pass. Raises UserError for an unknown precision, and for tf32 where there is no such arithmetic.
    """
    if precision not in get_args(Precision):
        known = list(get_args(Precision))
        raise UserError(f"There is no precision {precision!r}: {closest(str(precision), known)}")
    if precision == "tf32":
        _check_tensor_float(device)
    short = autocast and precision in ("bfloat16", "float16")
    dtype = getattr(torch, precision) if short else None
    if device.type != "cuda" and dtype is None:
        return contextlib.nullcontext()
    return _set(precision == "tf32", dtype, device)


@contextlib.contextmanager
def _set(tensor_float: bool, dtype: torch.dtype | None, device: torch.device) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_switched(tensor_float))
        if dtype is not None:
            stack.enter_context(torch.autocast(device.type, dtype=dtype))
        yield


@contextlib.contextmanager
def _switched(tensor_float: bool) -> Iterator[None]:
    """Set both switches of TensorFloat-32, and the search for algorithms, inside of this context."""
    deterministic = torch.are_deterministic_algorithms_enabled() or torch.backends.cudnn.deterministic
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tensor_float else "highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled,
            benchmark=not deterministic,
            deterministic=deterministic,
            allow_tf32=tensor_float,
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _check_tensor_float(device: torch.device) -> None:
    if device.type != "cuda":
        raise UserError(f"tf32 is arithmetic of NVIDIA GPUs, and the device is {device}; take float32.")
    if torch.cuda.get_device_capability(device) < (8, 0):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"{name} has no TF32, which NVIDIA GPUs have from Ampere on; take float32.")

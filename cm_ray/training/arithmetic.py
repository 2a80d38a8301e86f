"""Precision, compilation and device of the networks' computations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.errors import UserError

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

BACKEND = "inductor"
"""Backend of torch.compile."""


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the networks run at the recipe's precision.

    Only convolutions, matrix products and attention are affected: weights, their averages, the optimizer's
    state, the preconditioning, the solvers and the loss stay float32.
    """
    dtype = _PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Compile the networks at their first call; the names of their weights do not change.

    Random operations use PyTorch's generator, so that student and target get the same dropout mask.
    """
    check_compiler(device)
    options = {"fallback_random": True} if BACKEND == "inductor" else None
    for network in networks:
        network.compile(backend=BACKEND, options=options, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise UserError when torch.compile does not work here: it needs C++ for CPUs and Triton for GPUs."""
    from torch._inductor import cpp_builder, exc
    from torch.utils._triton import has_triton

    if device.type == "cuda":
        if not has_triton():
            raise UserError(
                f"compile needs Triton, which is not available for {torch.cuda.get_device_name(device)}; "
                "install it, or turn compile off: results are the same to rounding."
            )
        return
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            "compile needs a C++ compiler on every node, and there is none here; install g++ (or set CXX), "
            "or turn compile off: results are the same to rounding."
        ) from error


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on the device. Copies to a GPU use pinned memory and are asynchronous."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

"""The networks' arithmetic: its precision, its compilation and its device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cm_ray.errors import UserError

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

BACKEND = "inductor"
"""The compiler that torch.compile uses."""


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which the networks run at a config's precision.

    Convolutions, matrix products and attention alone are affected: weights, their averages, the optimizer's
    state, the preconditioning, the solvers and the loss stay float32.
    """
    dtype = _PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have the networks compiled when they are first called; names of weights stay what they are.

    Random operations stay PyTorch's own, so that student and target see one dropout mask. Raises UserError
    when the compiler lacks what it needs.
    """
    check_compiler(device)
    options = {"fallback_random": True} if BACKEND == "inductor" else None
    for network in networks:
        network.compile(backend=BACKEND, options=options, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Raise UserError when torch.compile cannot work here: C++ for the CPU, Triton for a GPU."""
    from torch._inductor import cpp_builder, exc
    from torch.utils._triton import has_triton

    if device.type == "cuda":
        if not has_triton():
            raise UserError(
                f"--compile needs Triton, which PyTorch lacks here for {torch.cuda.get_device_name(device)}; "
                "install it, or leave --compile out: results are the same to rounding."
            )
        return
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise UserError(
            "--compile needs a C++ compiler on every node, and there is none here; install g++ (or name one "
            "in CXX), or leave --compile out: results are the same to rounding."
        ) from error


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device. A GPU is not waited for: copies of the host's are from pinned memory."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

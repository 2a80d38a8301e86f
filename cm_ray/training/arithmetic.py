"""Compilation of networks, copies to their device, and the speed of arithmetic there."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from cm_ray.errors import UserError
from cm_ray.networks.arithmetic import Precision, arithmetic

BACKEND = "inductor"
"""Backend of torch.compile."""
_SLOWER = 1.2
"""Ratio of times from which on short arithmetic is called slower; a busy machine measures such ratios."""


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


def slow_arithmetic(precision: Precision, device: torch.device | str) -> str | None:
    """Return a warning if short arithmetic is slower than float32 on a CPU, as measured; else None.

    CPUs without instructions for bfloat16 or float16 compute them by conversions.
    """
    device = torch.device(device)
    if device.type != "cpu" or precision not in ("bfloat16", "float16"):
        return None
    plain, short = convolution_speeds(("float32", precision), device)
    if plain < _SLOWER * short:
        return None
    return (
        f"{precision} is {plain / short:.1f} times slower than float32 on this CPU ({short:.0f} against "
        f"{plain:.0f} GFLOP/s in a convolution): set precision to float32."
    )


@torch.no_grad()
def convolution_speeds(precisions: Iterable[Precision], device: torch.device) -> list[float]:
    """Return the best speed, in GFLOP/s, of a 3x3 convolution of 64 channels in each precision."""
    rows, channels, side = 8, 64, 32
    images = torch.ones(rows, channels, side, side, device=device).to(memory_format=torch.channels_last)
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, device=device)
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    operations = 2 * 9 * rows * channels**2 * side**2
    fastest = dict.fromkeys(precisions, float("inf"))
    for _ in range(4):  # in turns, so that what else the machine does slows all alike
        for precision in fastest:
            started = time.perf_counter()
            with arithmetic(precision, device):
                layer(images)
            fastest[precision] = min(fastest[precision], time.perf_counter() - started)
    return [operations / seconds / 1e9 for seconds in fastest.values()]

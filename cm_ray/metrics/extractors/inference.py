"""Checks and arithmetic that all feature networks share: supported images, and full float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cm_ray.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colours in [0, 1], by which networks' inputs are normalised."""


def check_images(
    images: Tensor, extractor: str, channels: Sequence[int], size: tuple[int, int] | None = None
) -> None:
    """Raise UserError unless `images` are uint8 (b, c, h, w) with c among `channels` and this size (h, w)."""
    fits = (
        images.dtype == torch.uint8
        and images.ndim == 4
        and images.shape[1] in channels
        and (size is None or images.shape[2:] == size)
    )
    if not fits:
        shape = ", ".join(("b", " or ".join(map(str, channels)), *(map(str, size) if size else "hw")))
        raise UserError(
            f"The extractor {extractor} needs uint8 images ({shape}), not "
            f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}; choose another extractor."
        )


@contextlib.contextmanager
def plain_float32(like: Tensor) -> Iterator[None]:
    """Compute in full float32 inside of this context: no autocast, no TensorFloat-32, no algorithm search.

    Otherwise features would differ by 1e-3 with the global settings of the program.
    """
    before = torch.get_float32_matmul_precision()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(like.device.type, enabled=False))
        if like.is_cuda:
            stack.enter_context(
                torch.backends.cudnn.flags(
                    enabled=True, benchmark=False, deterministic=True, allow_tf32=False
                )
            )
        torch.set_float32_matmul_precision("highest")
        stack.callback(torch.set_float32_matmul_precision, before)
        yield

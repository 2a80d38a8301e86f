"""The refusal of pixels that are not finite, for every function that hands out samples or edits."""

from __future__ import annotations

import torch

from cm_ray.core.types import Images
from cm_ray.errors import UserError


def finite(images: Images) -> Images:
    """Return images as they are. Raises UserError when a pixel is not a number, or infinite.

    As uint8, such pixels would be black or white, and have a score.
    """
    sound = torch.isfinite(images)
    if not bool(sound.all()):
        raise UserError(
            f"{int((~sound).sum()):,} of {images.numel():,} pixels that the model made are not finite: its "
            "weights are damaged, or its arithmetic overflows. Take another checkpoint, or precision float32."
        )
    return images

"""The numbers of images for which a network computes the same bits.

Libraries choose their kernels by the shape of a batch, so that an image that is computed alone differs, by
rounding, from the same image in a large batch. The choice hangs on the model, its device and its threads, and
is found out here by trying.
"""

from __future__ import annotations

import torch

from cm_ray.core.noise import Purpose, normal
from cm_ray.networks.model import Model


@torch.no_grad()
def equal_counts(model: Model, most: int) -> tuple[int, ...]:
    """Return numbers of images, ascending to `most`, that give each image the bits that `most` images do.

    Powers of two below `most` are tried, on noisy images of all times. Each number stands for itself alone:
    a batch between two of them is to be filled up to the next. The model stays in its device and precision,
    and is put in eval mode.
    """
    model.eval()
    device = next(model.parameters()).device
    indices = torch.arange(most, device=device)
    levels = model.spec.diffusion
    times = levels.grid(most + 1)[1:].to(device, torch.float32)
    x_t = times.reshape(-1, 1, 1, 1) * normal(0, 0, indices, Purpose.SAMPLE, model.spec.shape)
    labels = indices % model.spec.classes if model.spec.classes else None

    def computed(rows: slice) -> torch.Tensor:
        return model(x_t[rows], times[rows], None if labels is None else labels[rows])

    whole = computed(slice(None))
    powers = [2**power for power in range((most - 1).bit_length())]
    equal = [
        count
        for count in powers
        if all(torch.equal(computed(rows), whole[rows]) for rows in (slice(count), slice(most - count, None)))
    ]
    return (*equal, most)

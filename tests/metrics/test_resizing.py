"""Resizing against Pillow, clean-fid's pipeline, and TensorFlow's definition pixel by pixel."""

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.metrics.extractors.resizing import RESIZINGS, resized
from cm_ray.networks.vision import torchvision


def images(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (1, 7), (299, 299), (350, 700)])
def test_clean_is_pillows_bicubic(size):
    x = images(1, 1, *size)
    pillow = Image.fromarray(x[0, 0].numpy().astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
    expected = torch.from_numpy(np.array(pillow)).clamp(0, 255)
    torch.testing.assert_close(resized(x, 299, "clean")[0, 0], expected, atol=1e-3, rtol=0)


def test_clean_is_clean_fids():
    torchvision()
    from cleanfid.resize import build_resizer

    x = images(3, 3, 32, 32)
    theirs = np.stack([build_resizer("clean")(each.permute(1, 2, 0).numpy()) for each in x])
    expected = torch.from_numpy(theirs).permute(0, 3, 1, 2)
    torch.testing.assert_close(resized(x, 299, "clean"), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(4, 6), (13, 13), (40, 29)])
def test_legacy_is_tensorflows_definition(size):
    """The output pixel (i, j) is interpolated at (i · height / new, j · width / new)."""
    x, new = images(1, 1, *size), 13
    (height, width), pixels = size, x[0, 0].double().numpy()
    expected = np.empty((new, new))
    for i, j in np.ndindex(new, new):
        y, x_at = i * height / new, j * width / new
        top, left = int(y), int(x_at)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = pixels[top, left] + (pixels[top, right] - pixels[top, left]) * (x_at - left)
        lower = pixels[bottom, left] + (pixels[bottom, right] - pixels[bottom, left]) * (x_at - left)
        expected[i, j] = upper + (lower - upper) * (y - top)
    np.testing.assert_allclose(resized(x, new, "legacy_tensorflow")[0, 0], expected, atol=1e-2)


def test_legacy_is_the_shifted_sampling_of_the_torchscript_inception():
    """NVIDIA's translation, which clean-fid runs, samples a grid that is shifted by the same half pixels."""
    x = images(2, 3, 32, 32)
    theta = torch.eye(2, 3)
    theta[0, 2] = theta[1, 2] = 1 / 32 - 1 / 299
    grid = torch.nn.functional.affine_grid(theta.expand(2, -1, -1), [2, 3, 299, 299], align_corners=False)
    expected = torch.nn.functional.grid_sample(
        x.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(resized(x, 299, "legacy_tensorflow"), expected, atol=2e-2, rtol=0)


def test_legacy_is_not_pytorchs_bilinear():
    x = images(1, 3, 32, 32)
    pytorch = torch.nn.functional.interpolate(x.float(), (299, 299), mode="bilinear", align_corners=False)
    assert (resized(x, 299, "legacy_tensorflow") - pytorch).abs().max() > 50


@pytest.mark.parametrize("mode", RESIZINGS)
def test_images_of_the_right_size_stay_as_they_are_and_flat_ones_flat(mode):
    x = images(1, 3, 299, 299)
    torch.testing.assert_close(resized(x, 299, mode), x.float(), atol=1e-4, rtol=0)
    flat = torch.full((1, 3, 20, 500), 77, dtype=torch.uint8)
    torch.testing.assert_close(
        resized(flat, 299, mode), torch.full((1, 3, 299, 299), 77.0), atol=1e-3, rtol=0
    )

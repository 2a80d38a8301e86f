"""Affine maps of images: the wavelet's definition, exact maps of smooth images, and little aliasing."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cm_ray.core.resampling import SYM6, affine

SIZES = (24, 32)  # height and width


def a_map(linear=((1, 0), (0, 1)), shift=(0, 0)):
    """Return the inverse of a map (1, 2, 3) from its matrix and the place that the centre comes from."""
    return torch.cat([torch.tensor(linear).float(), torch.tensor(shift).float()[:, None]], 1)[None]


def rotation(angle):
    return ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle)))


def centred(h, w):
    y, x = torch.meshgrid(torch.arange(h) - (h - 1) / 2, torch.arange(w) - (w - 1) / 2, indexing="ij")
    return x, y


def near(h, w):
    """Return True for the pixels whose places any of these maps leaves inside of the image."""
    x, y = centred(h, w)
    return x**2 + y**2 < 7**2


def bump(x, y):
    """A smooth image that is far from symmetric and zero at the borders."""
    return torch.exp(-((x - 2) ** 2 + (y + 1) ** 2) / 8) + 0.5 * torch.exp(-((x + 2) ** 2 + y**2) / 5)


def test_the_filter_is_sym6():
    """Orthonormal to its even shifts, six vanishing moments, and the least asymmetric one of those."""
    taps = np.array(SYM6)
    for shift in range(6):
        product = taps[: len(taps) - 2 * shift] @ taps[2 * shift :]
        assert product == pytest.approx(float(shift == 0), abs=1e-12)
    high = taps * (-1.0) ** np.arange(12)
    for power in range(6):
        assert high @ (np.arange(12.0) - 5.5) ** power == pytest.approx(0, abs=1e-6)
    phase = np.unwrap(np.angle(np.fft.rfft(taps, 256)))[:65]
    line = np.polyval(np.polyfit(np.arange(65), phase, 1), np.arange(65))
    assert np.abs(phase - line).max() < 0.1


def test_the_identity_leaves_an_image_as_it_is():
    x = torch.randn(70, 2, 9, 13, generator=torch.Generator().manual_seed(0))  # more than one part
    torch.testing.assert_close(affine(x, a_map().expand(70, 2, 3)), x, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("linear", "shift", "within"),
    [
        (rotation(math.pi), (0, 0), 0.02),
        (rotation(math.pi / 2), (0, 0), 0.02),
        (rotation(0.5), (1.3, -0.4), 0.02),
        (rotation(-2.0), (0.25, 2.5), 0.02),
        (((1.3, 0), (0, 1 / 1.3)), (0.5, 0.5), 0.02),
        (((0.8, 0.3), (-0.1, 1.2)), (-1, 0.2), 0.02),
    ],
)
def test_smooth_images_are_mapped_exactly(linear, shift, within):
    """The pixel at u of the result is the image at the place that the inverse map gives."""
    x, y = centred(*SIZES)
    inverse = a_map(linear, shift)
    places = torch.einsum("ij,jhw->ihw", inverse[0], torch.stack([x, y, torch.ones_like(x)]))
    found = affine(bump(x, y)[None, None], inverse)[0, 0]
    assert (found - bump(*places)).abs()[near(*SIZES)].max() < within


@pytest.mark.parametrize("linear", [rotation(0.7), ((0.9, 0.2), (0.1, 1.1))])
def test_the_geometry_is_that_of_affine_grid(linear):
    """PyTorch's maps have places from -1 to 1 between the borders of the image."""
    h, w = SIZES
    x = bump(*centred(h, w))[None, None]
    shift = (1.5, -2.0)
    scale = torch.tensor([w / 2, h / 2])
    theta = torch.cat(
        [torch.tensor(linear) * scale / scale[:, None], (torch.tensor(shift) / scale)[:, None]], 1
    )
    grid = F.affine_grid(theta[None], [1, 1, h, w], align_corners=False)
    expected = F.grid_sample(x, grid, mode="bicubic", align_corners=False)
    inside = near(h, w)
    found = affine(x, a_map(linear, shift))
    torch.testing.assert_close(found[0, 0][inside], expected[0, 0][inside], rtol=0, atol=0.03)


@pytest.mark.parametrize("angle", [0.3, 1.1, 2.9])
def test_a_map_and_its_inverse_return_a_smooth_image(angle):
    x = bump(*centred(*SIZES))[None, None]
    there = affine(x, a_map(rotation(angle)))
    assert (there - x).abs().max() > 0.1
    back, inside = affine(there, a_map(rotation(-angle))), near(*SIZES)
    torch.testing.assert_close(back[0, 0][inside], x[0, 0][inside], rtol=0, atol=0.03)


def test_images_are_mirrored_at_their_borders_and_zero_beyond_the_mirror_image():
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    right = affine(x, a_map(shift=(3, 0)))
    mirrored = torch.cat([x[..., 3:], x[..., [4, 3, 2]]], -1)
    torch.testing.assert_close(right, mirrored, rtol=0, atol=1e-3)
    assert affine(x, a_map(shift=(0, -40))).abs().max() == 0


def test_what_a_smaller_image_cannot_hold_is_left_out():
    """A chequerboard at half the size is grey; plain bilinear sampling leaves black, white or stripes."""
    chequered = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    x = chequered.float()[None, None] * 2 - 1
    half = affine(x, a_map(((2.0, 0), (0, 2.0)), (0.5, 0.5)))[..., 10:-10, 10:-10]
    grid = F.affine_grid(
        torch.tensor([[[2.0, 0, 1 / 32], [0, 2, 1 / 32]]]), [1, 1, 32, 32], align_corners=False
    )
    plain = F.grid_sample(x, grid, align_corners=False)[..., 10:-10, 10:-10]
    assert half.abs().max() < 0.05 < 0.9 < plain.abs().max()

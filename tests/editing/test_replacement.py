"""Editing keeps what is known where the paper keeps it, and is the sampler it claims to be."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.times import karras_times
from cm_ray.editing.replacement import (
    LUMINANCE,
    ColourBasis,
    Identity,
    PatchBasis,
    colorization,
    inpainting,
    interpolated,
    luminance,
    patch_means,
    replacement,
    spherical,
    super_resolution,
)
from cm_ray.sampling.sampling_steps import clipped, multistep
from tests.core.gaussian import Gaussian, full, normals

DATA = Gaussian(0.3, 0.5)
TIMES = karras_times(12).tolist()
COLOUR = (5, 3, 12, 8)  # not square


def images(*shape, seed=9):
    return (0.5 * normals(seed, *shape)).clamp(-1, 1).float()


def noise_of(*shape, rows=slice(None)):
    return lambda draw: normals(draw, *shape).float()[rows]


def random_mask(*shape, share=0.5):
    return normals(77, *shape) < share - 0.5


def edited(known, times=TIMES, rows=slice(None)):
    shape = (5, *known.reference.shape[1:])
    noise = noise_of(*shape, rows=rows)
    return list(replacement(clipped(DATA.consistency()), noise, times, known.alone(), known))


# Transforms


@pytest.mark.parametrize("transform", [Identity(), ColourBasis(), *map(PatchBasis, (1, 2, 4))])
def test_transforms_are_orthogonal_and_invert(transform):
    x, other = images(*COLOUR), images(*COLOUR, seed=3)
    y = transform.forward(x)
    torch.testing.assert_close(transform.inverse(y), x, rtol=0, atol=1e-6)
    assert y.flatten(1).norm(dim=1).numpy() == pytest.approx(x.flatten(1).norm(dim=1).numpy(), rel=1e-6)
    products = (y * transform.forward(other)).flatten(1).sum(1)
    torch.testing.assert_close(products, (x * other).flatten(1).sum(1), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("transform", "shape", "groups"), [(ColourBasis(), (1, 3, 1, 1), 3), (PatchBasis(4), (1, 1, 4, 4), 16)]
)
def test_the_matrix_of_a_transform_is_orthogonal_with_the_known_direction_first(transform, shape, groups):
    columns = [transform.forward(row.reshape(shape)).flatten() for row in torch.eye(groups).double()]
    matrix = torch.stack(columns, 1)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(groups).double())
    wanted = torch.tensor(LUMINANCE if groups == 3 else (1.0,) * groups).double()
    torch.testing.assert_close(matrix[0], wanted / wanted.norm(), rtol=1e-6, atol=1e-7)


def test_the_first_column_is_the_papers():
    """Song et al. 2023, appendix D prints (0.4471, 0.8780, 0.1705)."""
    first = [float(ColourBasis().forward(row.reshape(1, 3, 1, 1))[..., 0]) for row in torch.eye(3).double()]
    assert first == pytest.approx([0.4471, 0.8780, 0.1705], abs=1e-4)


# What is kept


def test_inpainting_keeps_known_pixels_to_the_bit():
    y, mask = images(*COLOUR), random_mask(5, 1, 12, 8)
    for step in edited(inpainting(y, mask)):
        everywhere = mask.expand_as(y)
        assert torch.equal(step.x[everywhere], y[everywhere])
        assert (step.x - y)[~everywhere].abs().mean() > 0.1


def test_a_mask_of_all_ones_returns_the_input():
    y = images(*COLOUR)
    assert torch.equal(edited(inpainting(y, torch.ones(1, 1, 12, 8)))[-1].x, y)


def test_what_lies_under_the_mask_plays_no_part():
    y, mask = images(*COLOUR), random_mask(5, 1, 12, 8)
    blank = torch.where(mask, y, torch.full_like(y, 0.9))
    assert torch.equal(edited(inpainting(y, mask))[-1].x, edited(inpainting(blank, mask))[-1].x)


def test_colorization_keeps_the_luminance():
    y = images(*COLOUR)
    for step in edited(colorization(y)):
        torch.testing.assert_close(luminance(step.x), luminance(y), rtol=0, atol=1e-5)
        assert (step.x - y).abs().mean() > 0.05
    grey = luminance(y).expand(-1, 3, -1, -1)
    torch.testing.assert_close(edited(colorization(grey))[-1].x, edited(colorization(y))[-1].x)
    torch.testing.assert_close(luminance(grey), luminance(y))


@pytest.mark.parametrize(
    ("factor", "shape"), [(2, COLOUR), (4, COLOUR), (2, (5, 1, 6, 10)), (64, (5, 1, 64, 64))]
)
def test_super_resolution_keeps_the_means_of_patches(factor, shape):
    y = images(*shape)
    for step in edited(super_resolution(y, factor)):
        torch.testing.assert_close(patch_means(step.x, factor), patch_means(y, factor), rtol=0, atol=1e-5)
    known = super_resolution(y, factor).alone()
    widened = patch_means(y, factor).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    torch.testing.assert_close(known, widened, rtol=0, atol=1e-5)


def test_a_factor_of_one_knows_all():
    y = images(*COLOUR)
    assert torch.equal(edited(super_resolution(y, 1))[-1].x, y)


def test_patches_are_those_of_a_box_filter():
    y = images(2, 3, 6, 9)
    torch.testing.assert_close(patch_means(y, 3), torch.nn.functional.avg_pool2d(y, 3))


# The sampler


def test_nothing_known_from_nothing_is_multistep_sampling():
    noise, zero = noise_of(*COLOUR), torch.zeros(COLOUR)
    unknown = inpainting(zero, torch.zeros(1, 1, 1, 1))
    plain = [step.x for step in multistep(DATA.consistency(), noise, TIMES)]
    for known in (None, unknown):
        steps = list(replacement(DATA.consistency(), noise, TIMES, zero, known))
        assert len(steps) == len(plain) == len(TIMES) - 1
        assert all(torch.equal(a.x, b) for a, b in zip(steps, plain, strict=True))


def test_algorithm_4_line_by_line():
    """Against the paper's pseudocode, with its matrices made by QR decomposition."""
    y, noise, p = images(2, 1, 4, 4).double(), [normals(i, 2, 1, 4, 4) for i in range(3)], 2
    basis = np.eye(p * p)
    basis[:, 0] = 1 / p
    q = torch.from_numpy(np.linalg.qr(basis)[0])
    omega = torch.tensor([0.0, 1, 1, 1])

    def a(x):
        cut = torch.stack([x[..., i : i + p, j : j + p].flatten(1) for i in (0, 2) for j in (0, 2)], 1)
        return cut @ q

    def back(z):
        cut = (z @ q.T).reshape(2, 2, 2, p, p)
        return torch.cat([torch.cat([cut[:, i, 0], cut[:, i, 1]], 2) for i in (0, 1)], 1)[:, None]

    f, t, epsilon = DATA.consistency(), [80.0, 9.0, 0.7], 0.002
    y = back(a(y) * (1 - omega))
    x = f(y + t[0] * noise[0], full(y, t[0]))
    x = back(a(y) * (1 - omega) + a(x) * omega)
    for n in (1, 2):
        x = f(x + math.sqrt(t[n] ** 2 - epsilon**2) * noise[n], full(y, t[n]))
        x = back(a(y) * (1 - omega) + a(x) * omega)
    known = super_resolution(images(2, 1, 4, 4).double(), p)
    *_, last = replacement(f, noise.__getitem__, [epsilon, *t[::-1]], known.alone(), known)
    torch.testing.assert_close(last.x, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("times", [[0.002, 80.0], TIMES])
def test_what_is_not_known_has_the_law_of_the_data(times):
    """Pixels of this data are independent, so what is known of others changes nothing."""
    y = DATA.draw(5, 4000, 1, 2, 1)
    mask = torch.tensor([True, False]).reshape(1, 1, 2, 1)
    known = inpainting(y, mask)
    *_, last = replacement(
        DATA.consistency(), lambda i: normals(i, 4000, 1, 2, 1), times, known.alone(), known
    )
    assert DATA.p_value(last.x[:, :, 1], 0.002) > 0.01
    assert torch.equal(last.x[:, :, 0], y[:, :, 0])


@pytest.mark.parametrize(
    "make", [inpainting, lambda y, _: colorization(y), lambda y, _: super_resolution(y, 4)]
)
def test_an_edit_does_not_depend_on_the_batch_it_is_made_in(make):
    y, mask = images(*COLOUR), random_mask(5, 1, 12, 8)
    whole = edited(make(y, mask))[-1].x
    for rows in (slice(0, 1), slice(2, 5)):
        assert torch.equal(edited(make(y[rows], mask[rows]), rows=rows)[-1].x, whole[rows])


# The other applications


def test_strokes_guide_the_less_the_later_the_start():
    strokes = torch.full((400, 1, 4, 4), -0.8)
    ends = [
        list(replacement(DATA.consistency(), noise_of(400, 1, 4, 4), (0.002, *times[::-1]), strokes))[-1].x
        for times in [(0.2,), (1.0, 0.5), (80.0,)]
    ]
    means = [float(end.mean()) for end in ends]
    assert means == sorted(means)
    assert means[0] < -0.5
    assert means[2] == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("sigma", [0.003, 0.01, 0.1, 1.0, 10.0, 80.0])
def test_denoising_beats_the_noisy_images(sigma):
    clean, z = DATA.draw(1, 50, 1, 8, 8), normals(2, 50, 1, 8, 8)
    noisy = clean + sigma * z
    (step,) = replacement(DATA.consistency(), lambda draw: torch.zeros(()), (0.002, sigma), noisy)
    assert torch.equal(step.x, DATA.consistency()(noisy, full(noisy, sigma)))
    assert (step.x - clean).square().sum() < (noisy - clean).square().sum()


def test_interpolation_ends_in_the_two_samples():
    a, b = noise_of(4, 1, 8, 8), lambda draw: normals(100 + draw, 4, 1, 8, 8).float()
    zero = torch.zeros(4, 1, 8, 8)
    for alpha, end in ((0.0, a), (1.0, b)):
        noise = interpolated(a, b, torch.full((4,), alpha))
        steps = replacement(DATA.consistency(), noise, TIMES, zero)
        wanted = multistep(DATA.consistency(), end, TIMES)
        assert all(torch.equal(s.x, w.x) for s, w in zip(steps, wanted, strict=True))


@given(st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_the_path_between_normals_stays_on_their_sphere(share, seed):
    a, b = normals(seed, 1, 1, 16, 16), normals(seed + 5000, 1, 1, 16, 16)
    a, b = a / a.norm(), b / b.norm()
    between = spherical(a, b, torch.tensor([share]))
    assert float(between.norm()) == pytest.approx(1, abs=1e-9)
    angle, whole = ((x * y).sum().clamp(-1, 1).acos() for x, y in ((a, between), (a, b)))
    assert float(angle) == pytest.approx(share * float(whole), abs=1e-6)


def test_noise_between_noises_is_normal():
    share = torch.full((2000,), 0.3)
    between = spherical(normals(1, 2000, 1, 4, 4), normals(2, 2000, 1, 4, 4), share)
    assert Gaussian(0.0, 1.0).p_value(between) > 0.01


def test_images_in_one_direction_are_mixed_linearly():
    a = normals(1, 3, 1, 4, 4)
    shares = torch.tensor([0.0, 0.3, 1.0])
    torch.testing.assert_close(spherical(a, a, shares), a)
    assert torch.isfinite(spherical(a, -a, shares)).all()


# Errors


def test_what_does_not_fit_is_refused():
    y = images(2, 1, 6, 8)
    with pytest.raises(ValueError, match="three channels, not 1"):
        colorization(y)
    with pytest.raises(ValueError, match="4x4 pixels do not tile images of 8x6"):
        super_resolution(y, 4)
    with pytest.raises(ValueError, match="do not tile"):
        super_resolution(y, 0)
    with pytest.raises(ValueError, match="shapes differ"):
        inpainting(y, torch.ones(1, 1, 6, 8)).put_into(y[:1])
    with pytest.raises(ValueError, match="times must ascend"):
        next(replacement(DATA.consistency(), noise_of(2, 1, 6, 8), (5.38, 2.24), y))

"""Scalings around a network: the table, the boundary, and that all columns describe the same denoiser."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cm_ray.core.precondition import EDM, VE, VP, Boundary, Piecewise, precondition
from cm_ray.core.types import per_sample
from tests.core.gaussian import Gaussian, full, normals

TIMES = torch.tensor([0.002, 0.03, 0.5, 7.0, 80.0], dtype=torch.float64)


def expected(formula):
    return pytest.approx([formula(t) for t in TIMES.tolist()], rel=1e-12)


def loud(x, time):
    return torch.full_like(x, 1e6)


@pytest.mark.parametrize(("sigma_data", "time_scale"), [(0.5, 1.0), (0.5, 1000.0), (0.3, 1.0)])
def test_edm_is_the_column_ours(sigma_data, time_scale):
    edm, d = EDM(sigma_data, time_scale), sigma_data
    assert edm.c_skip(TIMES).tolist() == expected(lambda t: d**2 / (t**2 + d**2))
    assert edm.c_out(TIMES).tolist() == expected(lambda t: t * d / math.sqrt(d**2 + t**2))
    assert edm.c_in(TIMES).tolist() == expected(lambda t: 1 / math.sqrt(d**2 + t**2))
    assert edm.network_time(TIMES).tolist() == expected(lambda t: time_scale * math.log(t) / 4)


def test_the_network_time_is_openais_by_default():
    """250 ln t: a thousand times EDM's c_noise."""
    assert EDM().network_time(TIMES).tolist() == expected(lambda t: 1000 * 0.25 * math.log(t))


def test_vp_is_the_column_vp():
    vp = VP()
    assert (vp.beta_d, vp.beta_min, vp.steps) == (19.9, 0.1, 1000)
    assert vp.c_skip(TIMES).tolist() == expected(lambda t: 1)
    assert vp.c_out(TIMES).tolist() == expected(lambda t: -t)
    assert vp.c_in(TIMES).tolist() == expected(lambda t: 1 / math.sqrt(t**2 + 1))


@given(st.floats(1e-4, 1))
@settings(max_examples=50, deadline=None)
def test_the_vp_time_inverts_the_noise_level_of_the_sde(u):
    sigma = math.sqrt(math.expm1(19.9 * u**2 / 2 + 0.1 * u))
    time = VP().network_time(torch.tensor([sigma], dtype=torch.float64))
    assert float(time) == pytest.approx(999 * u, rel=1e-6)


def test_ve_is_the_column_ve():
    ve = VE()
    assert ve.c_skip(TIMES).tolist() == expected(lambda t: 1)
    assert ve.c_out(TIMES).tolist() == expected(lambda t: t)
    assert ve.c_in(TIMES).tolist() == expected(lambda t: 1)
    assert ve.network_time(TIMES).tolist() == expected(lambda t: math.log(t / 2))


@pytest.mark.parametrize("t_min", [0.002, 0.01])
@pytest.mark.parametrize("sigma_data", [0.5, 0.3])
def test_the_boundary_of_edm_has_the_published_coefficients(sigma_data, t_min):
    """c_skip and c_out subtract t_min, c_in and the root under c_out do not (OpenAI's code)."""
    f, d = Boundary(EDM(sigma_data), t_min), sigma_data
    assert f.c_skip(TIMES).tolist() == expected(lambda t: d**2 / ((t - t_min) ** 2 + d**2))
    assert f.c_out(TIMES).tolist() == expected(lambda t: d * (t - t_min) / math.sqrt(t**2 + d**2))
    assert f.c_in(TIMES).tolist() == expected(lambda t: 1 / math.sqrt(t**2 + d**2))
    assert f.network_time(TIMES).tolist() == expected(lambda t: 250 * math.log(t))


def test_the_boundaries_of_vp_and_ve_keep_their_inputs():
    vp, ve = Boundary(VP()), Boundary(VE())
    assert vp.c_out(TIMES).tolist() == expected(lambda t: -(t - 0.002))
    assert ve.c_out(TIMES).tolist() == expected(lambda t: t - 0.002)
    for f in (vp, ve):
        assert torch.equal(f.c_skip(TIMES), torch.ones_like(TIMES))
        assert torch.equal(f.c_in(TIMES), f.column.c_in(TIMES))
        assert torch.equal(f.network_time(TIMES), f.column.network_time(TIMES))


def test_piecewise_is_the_network_off_the_boundary():
    f, t = Piecewise(EDM()), torch.tensor([0.002, 0.0021, 80.0])
    assert f.c_skip(t).tolist() == [1, 0, 0]
    assert f.c_out(t).tolist() == [0, 1, 1]
    assert torch.equal(f.c_in(t), EDM().c_in(t))
    assert torch.equal(f.network_time(t), EDM().network_time(t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("column", [EDM, VP, VE])
@pytest.mark.parametrize("boundary", [Boundary, Piecewise])
@given(st.floats(0.01, 50), st.sampled_from([0.002, 1e-5, 1e-3, 0.01]) | st.floats(1e-5, 1))
@settings(max_examples=40, deadline=None)
def test_f_at_t_min_is_x_to_the_bit(boundary, column, dtype, sigma_data, t_min):
    f = boundary(EDM(sigma_data) if column is EDM else column(), t_min)
    x = normals(0, 4, 3, 2, 2).to(dtype)
    assert torch.equal(precondition(f, loud, x, full(x, t_min)), x)


@pytest.mark.gpu
@pytest.mark.parametrize("column", [EDM(1.3), EDM(0.5), VP(), VE()])
@pytest.mark.parametrize("boundary", [Boundary, Piecewise])
def test_f_at_t_min_is_x_to_the_bit_on_cuda(boundary, column):
    x = normals(0, 4, 3, 2, 2).float().cuda()
    assert torch.equal(precondition(boundary(column), loud, x, full(x, 0.002)), x)


@pytest.mark.parametrize("column", [EDM(), VP(), VE()])
def test_far_from_t_min_a_consistency_function_is_scaled_as_its_column(column):
    """A teacher's weights fit."""
    for name in ("c_skip", "c_out", "c_in", "network_time"):
        for t in (5.0, 80.0):
            t = torch.tensor([t], dtype=torch.float64)
            torch.testing.assert_close(
                getattr(Boundary(column), name)(t), getattr(column, name)(t), rtol=2e-3, atol=0
            )


@pytest.mark.parametrize("sigma_data", [0.5, 0.3])
def test_edm_networks_see_and_return_unit_variance(sigma_data):
    """Karras et al. 2022, appendix B.6: of data with variance sigma_data^2."""
    edm = EDM(sigma_data)
    torch.testing.assert_close(edm.c_in(TIMES) ** 2 * (sigma_data**2 + TIMES**2), torch.ones_like(TIMES))
    residual = ((1 - edm.c_skip(TIMES)) * sigma_data) ** 2 + (edm.c_skip(TIMES) * TIMES) ** 2
    torch.testing.assert_close(residual / edm.c_out(TIMES) ** 2, torch.ones_like(TIMES))


DATA = Gaussian(0.3, 0.4)


def ideal_edm(x, time):
    """What an EDM network learns: (x - c_skip x_t)/c_out, on average."""
    t = (4 * time).exp()
    x_t = x * per_sample((t**2 + 0.25).sqrt(), x)
    c_skip, c_out = 0.25 / (t**2 + 0.25), 0.5 * t / (t**2 + 0.25).sqrt()
    return (DATA.denoise(x_t, t) - per_sample(c_skip, x) * x_t) / per_sample(c_out, x)


def ideal_vp(x, time):
    """What a VP network learns: the noise, from the image x of unit variance at time 999 u of the SDE."""
    u = time / 999
    t = torch.expm1(19.9 * u**2 / 2 + 0.1 * u).sqrt()
    x_t = x * per_sample((t**2 + 1).sqrt(), x)
    return -per_sample(t, x) * DATA.score(x_t, t)


def ideal_ve(x, time):
    """What a VE network learns: the noise's opposite, t times the score."""
    t = 2 * time.exp()
    return per_sample(t, x) * DATA.score(x, t)


@pytest.mark.parametrize(
    ("column", "network"), [(EDM(0.5, 1.0), ideal_edm), (VP(), ideal_vp), (VE(), ideal_ve)]
)
def test_ideal_networks_of_all_columns_are_the_same_denoiser(column, network):
    x_t = DATA.draw(1, 5, 1, 4, 4) + per_sample(TIMES, TIMES[:, None, None, None]) * normals(2, 5, 1, 4, 4)
    answer = precondition(column, network, x_t, TIMES)
    torch.testing.assert_close(answer, DATA.denoise(x_t, TIMES), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("column", [EDM(), VP(), VE()])
def test_the_network_sees_scaled_images_and_its_own_time(column):
    seen = []

    def network(x, time):
        seen.append((x, time))
        return torch.zeros_like(x)

    x = normals(3, 5, 1, 2, 2)
    precondition(column, network, x, TIMES)
    assert torch.equal(seen[0][0], per_sample(column.c_in(TIMES), x) * x)
    assert torch.equal(seen[0][1], column.network_time(TIMES))


def test_the_answer_has_the_images_precision_whatever_the_networks():
    x = normals(4, 2, 1, 3, 3)
    for images in (x, x.float()):
        for dtype in (torch.bfloat16, torch.float64):
            answer = precondition(EDM(), lambda x, time, d=dtype: x.to(d), images, full(images, 0.7))
            assert answer.dtype == images.dtype


def test_a_network_that_changes_the_shape_is_refused():
    x = normals(5, 2, 3, 4, 4)
    for changed in (lambda x, time: x[:, :1], lambda x, time: x[:1]):
        with pytest.raises(ValueError, match="shapes differ"):
            precondition(Boundary(EDM()), changed, x, full(x, 1.0))

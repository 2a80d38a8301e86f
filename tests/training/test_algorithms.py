"""The step is that of the papers' algorithms, written out line by line."""

import dataclasses
import math

import pytest
import torch

from cm_ray.core.noise import Purpose, normal, uniform
from cm_ray.core.pairs import perturb
from cm_ray.core.schedules import Adaptive
from cm_ray.core.times import karras_times
from cm_ray.networks.model import from_uint8
from cm_ray.training.drawing import draw_step
from tests.training.engines import batches, column, draws, engine, shaken, small, teacher


def test_a_step_is_algorithm_3():
    """Against the algorithm written out line by line with autograd and torch's own RAdam."""
    config = small("paper", "no-flip")
    made = shaken(engine(config))
    reference, target = shaken(engine(config)).student, shaken(engine(config)).student
    optimizer = torch.optim.RAdam(reference.parameters(), lr=1e-3)
    scales = Adaptive(s0=2, s1=20)
    for k in range(3):
        batch = next(batches(made))
        stats = made.one_step(batch)
        n, positions = scales(k, 6), torch.arange(8)
        grid = karras_times(n)
        index = (uniform(0, k, positions, Purpose.TIMES, (1,))[:, 0].double() * (n - 1)).long()
        t, s = grid[index + 1].float(), grid[index].float()
        z = normal(0, k, positions, Purpose.NOISE, (1, 8, 8))
        x = from_uint8(batch.images)
        x_t, x_s = x + t.view(-1, 1, 1, 1) * z, x + s.view(-1, 1, 1, 1) * z
        loss = (reference(x_t, t) - target(x_s, s).detach()).square().flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mu = math.exp(2 * math.log(0.9) / n)
        with torch.no_grad():
            for old, new in zip(target.parameters(), reference.parameters(), strict=True):
                old.copy_(mu * old + (1 - mu) * new)
        assert stats.gauges == {"num_scales": n, "target_decay": pytest.approx(mu), "learning_rate": 1e-3}
        torch.testing.assert_close(stats.loss, loss.detach(), rtol=1e-5, atol=1e-7)
    for a, b in zip(made.target.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_is_algorithm_2():
    """Distillation, written out: Heun with the teacher's ODE, target average, teacher without dropout."""
    config = small("cd", "18-boundaries")
    made = shaken(engine(config))
    guide = teacher(made.spec).eval()
    reference, target = shaken(engine(config)).student, shaken(engine(config)).student
    optimizer = torch.optim.RAdam(reference.parameters(), lr=1e-3)
    for k in range(3):
        batch = next(batches(made))
        stats = made.one_step(batch)
        u, z = draws(k)
        grid = karras_times(18)
        index = (u.double() * 17).long()
        t, s = grid[index + 1].float(), grid[index].float()
        flip = uniform(0, k, torch.arange(8), Purpose.FLIP, (1,))[:, 0] < 0.5
        x = from_uint8(batch.images)
        x = torch.where(column(flip), x.flip(-1), x)
        with torch.no_grad():
            x_t = x + column(t) * z
            first = (x_t - guide(x_t, t)) / column(t)
            euler = x_t + column(s - t) * first
            second = (euler - guide(euler, s)) / column(s)
            aim = target(x_t + column(s - t) * (first + second) / 2, s)
        loss = (reference(x_t, t) - aim).square().flatten(1).mean(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(target.parameters(), reference.parameters(), strict=True):
                old.copy_(0.9 * old + 0.1 * new)
        assert stats.gauges["num_scales"] == 18
        torch.testing.assert_close(stats.loss, loss.detach(), rtol=1e-4, atol=1e-6)
    for a, b in zip(made.target.parameters(), target.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_denoiser_learns_the_clean_image_by_karras_weight():
    config = small("edm", "no-flip")
    made = shaken(engine(config))
    batch = next(batches(made))
    u, z = draws(0)
    t, _ = config.method.times(u, 0, config.steps, config.noise)
    x, sigma = from_uint8(batch.images), 0.75
    error = (made.student(x + column(t) * z, t) - x).square().flatten(1).mean(1)
    expected = ((t**2 + sigma**2) / (t * sigma) ** 2 * error).mean()
    torch.testing.assert_close(made._loss(batch, 0, 8), expected)


def with_same_times(*arguments):
    """Return the draw of a step with s = t = 1."""
    draw = draw_step(*arguments)
    t = torch.ones_like(draw.t)
    return dataclasses.replace(draw, t=t, s=t, x_t=perturb(draw.x, draw.noise, t))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("variant", ["ict", "paper", "cd"])
def test_student_and_target_see_the_same_dropout_mask(variant, device, monkeypatch):
    """With equal weights and s = t, only different masks could make the outputs differ."""
    config = small(variant, "much-dropout")
    made = shaken(engine(config, device=device))
    made.student.train()
    seen = []
    watched = [made.student] if made.target is None else [made.student, made.target]
    if made.target is not None:
        assert made.target is not made.student
    for model in watched:
        model.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    monkeypatch.setattr("cm_ray.training.engine.draw_step", with_same_times)
    made._loss(next(batches(made)), 0, 8)
    assert torch.equal(seen[0], seen[1])
    made._seed_dropout = lambda first: None
    made._loss(next(batches(made)), 0, 8)
    assert not torch.equal(seen[2], seen[3])

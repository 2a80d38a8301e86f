"""The directions of sliced score matching: signs of their own, which decide the gradient of a step."""

import dataclasses

import torch

from cm_ray.training.drawing import draw_step
from cm_ray.training.target import target_of
from tests.training.engines import IMAGES, batches, engine, shaken, small


def test_directions_are_signs_by_position_and_step():
    config, positions = small("ssm"), torch.arange(8)
    first, again, later = (draw_step(config, step, IMAGES[:8], positions) for step in (0, 0, 1))
    assert first.direction.abs().eq(1).all()
    assert abs(float(first.direction.mean())) < 0.2
    assert torch.equal(first.direction, again.direction)
    assert not torch.equal(first.direction, later.direction)
    half = draw_step(config, 0, IMAGES[4:8], positions[4:])
    assert torch.equal(half.direction, first.direction[4:])
    signs = first.noise.sign() * first.direction
    assert abs(float(signs.mean())) < 0.2, "not the signs of the noise"
    assert draw_step(small("edm"), 0, IMAGES[:8], positions).direction is None


def test_a_step_has_the_gradient_of_the_loss():
    """The gradient is compared with finite differences of the loss, in a network with attention."""
    config = small("ssm")
    made = shaken(engine(config))
    loss = made.add_gradients(next(batches(made)))
    gradients = [parameter.grad.clone() for parameter in made.student.parameters()]
    size = torch.stack([each.double().square().sum() for each in gradients]).sum()
    draw = draw_step(config, 0, IMAGES[:8], torch.arange(8))
    draw = dataclasses.replace(draw, diffusion=config.diffusion)

    def moved(length):
        with torch.no_grad():
            for parameter, gradient in zip(made.student.parameters(), gradients, strict=True):
                parameter += length * gradient
        target = target_of(made.student, draw, None, lambda: None, plain=True)
        value = config.method.loss(target, draw.x_t, draw, config.method.distance).mean()
        return float(value.detach().double())

    assert moved(0) == float(loss)
    step = 1e-3 / float(size.sqrt())
    above, below = moved(step), moved(-2 * step)
    assert abs((above - below) / (2 * step) / float(size) - 1) < 0.01

"""Shorter arithmetic and CUDA train like float32 on the CPU; tolerances that a wrong network exceeds.

Weights begin perturbed: with the zero-initialised output layer of a fresh network, gradients of all other
layers are zero, and a network that does nothing would pass.
"""

from typing import NamedTuple

import pytest
import torch

from tests.training.engines import METHODS, batches, engine, run, shaken, small, weights

TOLERANCES = {"float32": 0.01, "tf32": 0.01, "bfloat16": 0.04, "float16": 0.01}
"""The greatest `distances` allowed. On the CPU, all methods measured at most 0.024 in bfloat16 and 0.004 in
float16, while a network whose output is 1.05 times as large is 0.066 away or more. TF32, which only GPUs
have, has float16's 10 bits."""

SCALE = 256.0
"""The scale of float16's gradients. At 65536, with which a GradScaler begins, they overflow, and it skips the
first steps."""

WRONG = {
    "nothing": lambda x, output: 0 * output,
    "identity": lambda x, output: x + 0 * output,
    "5 % more": lambda x, output: 1.05 * output,
}
"""Wrong networks, as functions of the input and of the right output."""


class Trained(NamedTuple):
    """The result of a training."""

    gradient: torch.Tensor
    """The gradient of the first step, all parameters in one vector."""
    update: torch.Tensor
    """The way that three steps moved the weights. RAdam's first steps are proportional to the gradients."""


def trained(method, precision="float32", device="cpu", wrong=None):
    """Train a little from perturbed weights. wrong: what student and target return instead, of `WRONG`."""
    made = shaken(engine(small(method, precision=precision), device=device))
    made.scaler.load_state_dict(made.scaler.state_dict() | {"scale": SCALE})
    for model in (made.student, made.target):
        if wrong and model is not None:
            model.network.register_forward_hook(lambda _, inputs, output: wrong(inputs[0], output))
    before = weights(made).clone()
    assert before.all(), "every weight is perturbed"
    made.add_gradients(next(batches(made)))
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in made.student.parameters()]
    gradient = torch.cat([g.flatten() for g in gradients]) / made.scaler.get_scale()
    made.optimizer.zero_grad()
    run(made, 3)
    return Trained(gradient.cpu(), (weights(made) - before).cpu())


def distances(reference, other):
    """Return ||other - reference|| / ||reference|| of the gradient and of the update."""
    pairs = zip(reference, other, strict=True)
    return [float((b - a).norm() / a.norm()) for a, b in pairs]


def assert_trains_like(reference, other, tolerance):
    """Assert that neither the gradient nor the update is further away than the tolerance."""
    for what, distance in zip(Trained._fields, distances(reference, other), strict=True):
        assert distance <= tolerance, f"the {what} is {distance:.4f} away"


@pytest.fixture(scope="module")
def reference():
    """Return the result in float32 on the CPU, of each method once."""
    known = {}

    def of(method):
        if method not in known:
            known[method] = trained(method)
        return known[method]

    return of


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_short_arithmetic_trains_like_float32(method, precision, reference):
    short = trained(method, precision)
    assert_trains_like(reference(method), short, TOLERANCES[precision])
    assert min(distances(reference(method), short)) > 2e-4, "the arithmetic is short"


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", TOLERANCES)
def test_cuda_trains_like_the_cpu(method, precision, reference):
    assert_trains_like(reference(method), trained(method, precision, "cuda"), TOLERANCES[precision])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "precision",
    ["bfloat16", *(pytest.param(p, marks=pytest.mark.exhaustive) for p in ("float32", "float16"))],
)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_network_does_not(method, precision, wrong, reference):
    """Each of the two comparisons fails by itself, with the widest tolerance, so with the others."""
    right, other = reference(method), trained(method, precision, wrong=WRONG[wrong])
    for compared in (other._replace(update=right.update), other._replace(gradient=right.gradient)):
        with pytest.raises(AssertionError, match="away"):
            assert_trains_like(right, compared, TOLERANCES[precision])


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_network_on_cuda_does_not(method, precision, wrong, reference):
    with pytest.raises(AssertionError, match="away"):
        assert_trains_like(
            reference(method), trained(method, precision, "cuda", WRONG[wrong]), TOLERANCES[precision]
        )

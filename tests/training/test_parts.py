"""The step does not care how a global batch is split over workers and parts."""

import pytest
import torch

from cm_ray.training.batch import Batch, Share
from tests.training.engines import IMAGES, LABELS, METHODS, batches, engine, run, shaken, small, weights

FEW_METHODS = [  # of whole trainings; all methods' gradients of one step are compared
    *("ict", "pd"),
    *(
        pytest.param(method, marks=pytest.mark.exhaustive)
        for method in METHODS
        if method not in ("ict", "pd")
    ),
]


@pytest.mark.parametrize("variant", METHODS)
@pytest.mark.parametrize("recompute", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_the_gradient_in_parts_is_that_of_the_whole(variant, recompute):
    """Two workers with four parts each, with and without recomputing activations, to float32's rounding."""
    config = small(variant, batch_size=16)
    whole = shaken(engine(config))
    whole.add_gradients(next(batches(whole)))
    parted = small(variant, *["recomputed"] * recompute, batch_size=16, accumulate=4)
    shares = [shaken(engine(parted, share=Share(rank, 2))) for rank in range(2)]
    for made in shares:
        made.add_gradients(next(batches(made)))
    for parameter, a, b in zip(*(made.student.parameters() for made in [whole, *shares]), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close((a.grad + b.grad) / 2, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", FEW_METHODS)
def test_parts_of_a_batch_add_up(variant):
    one, four = (shaken(engine(small(variant, accumulate=parts))) for parts in (1, 4))
    run(one)
    run(four)
    torch.testing.assert_close(weights(one), weights(four), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", METHODS)
def test_workers_shares_are_the_global_batch(variant):
    """Gradients of two shares average to that of the whole: the same times, noise and flips."""
    config = small(variant)
    whole = shaken(engine(config))
    whole._loss(next(batches(whole)), 0, 8).backward()
    shares = [shaken(engine(config, share=Share(rank, 2))) for rank in range(2)]
    for made in shares:
        made._loss(next(batches(made)), 0, 4).backward()
    for parameter, a, b in zip(*(made.student.parameters() for made in [whole, *shares]), strict=True):
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, (a.grad + b.grad) / 2, rtol=1e-4, atol=1e-6)


def test_a_short_batch_is_refused():
    made = engine(small())
    with pytest.raises(ValueError, match="expected 8 images, got 7"):
        made.one_step(Batch(IMAGES[:7], LABELS[:7]))

"""Classes are drawn by index: with the shares asked for, the same in any batch, never one of weight 0."""

import pytest
import torch

from cm_ray.core.noise import Purpose, uniform
from cm_ray.sampling.labels import LabelDraw

INDICES = torch.arange(40_000)


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_equal_weights_draw_uniformly_to_the_bit(classes):
    draws = uniform(7, 0, INDICES, Purpose.LABELS, (1,))[:, 0].double()
    wanted = (draws * classes).long()
    for draw in (LabelDraw.balanced(classes), LabelDraw((5000,) * classes, "data")):
        assert torch.equal(draw.labels(INDICES, 7), wanted)
    gaps = LabelDraw.balanced(2 * classes, [0, 3] * classes).labels(INDICES, 7)
    assert torch.equal(gaps, 2 * wanted + 1), "the classes that occur are drawn as if there were no others"


def test_shares_are_those_of_the_weights():
    weights = (0, 178, 1, 0, 21, 0)
    counts = torch.bincount(LabelDraw(weights, "data").labels(INDICES, 1), minlength=6) / len(INDICES)
    assert counts[[0, 3, 5]].sum() == 0
    torch.testing.assert_close(counts[[1, 2, 4]], torch.tensor([0.89, 0.005, 0.105]), atol=0.006, rtol=0)


def test_label_i_depends_on_the_seed_and_i_alone():
    draw = LabelDraw((3, 1, 4), "data")
    whole = draw.labels(INDICES, 2)
    some = torch.tensor([39_999, 0, 17])
    assert torch.equal(draw.labels(some, 2), whole[some])
    assert not torch.equal(draw.labels(INDICES, 3), whole)


@pytest.mark.parametrize("weights", [(), (0, 0), (1, -1)])
def test_weights_of_nothing_are_refused(weights):
    with pytest.raises(ValueError, match="no class to draw"):
        LabelDraw(weights, "data")

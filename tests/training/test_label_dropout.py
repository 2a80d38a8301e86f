"""Label dropout: its share, its draws, and that a run resumes with it to the bit."""

import pytest
import torch

from cm_ray.training.batch import Batch
from cm_ray.training.drawing import dropped_labels
from tests.training.engines import IMAGES, LABELS, engine, run, small, weights

HALF = {"network.conditional": True, "network.label_dropout": 0.5}


def test_the_share_is_dropped_by_position_and_step():
    config = small(**{"network.conditional": True, "network.label_dropout": 0.2})
    labels, positions = torch.arange(20_000) % 10, torch.arange(20_000)
    dropped = dropped_labels(config, 3, labels, positions)
    assert float((dropped == -1).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(dropped[dropped >= 0], labels[dropped >= 0])
    assert torch.equal(dropped_labels(config, 3, labels[700:], positions[700:]), dropped[700:])
    assert not torch.equal(dropped_labels(config, 4, labels, positions), dropped)
    assert dropped_labels(small("conditional"), 3, labels, positions) is labels


def test_the_network_sees_the_dropped_labels():
    """A step whose labels are all replaced by others differs only by the ones that are not dropped."""
    config, seen = small(**HALF), []
    made = engine(config)
    made.student.network.label_emb.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    made.one_step(Batch(IMAGES[:8], LABELS[:8]))
    wanted = dropped_labels(config, 0, LABELS[:8], torch.arange(8))
    assert (wanted == -1).any()
    assert (wanted >= 0).any()
    assert all(torch.equal(labels, wanted) for labels in seen)


def test_micro_batches_drop_the_same_labels():
    whole, split = engine(small(**HALF)), engine(small(**HALF, accumulate=2))
    run(whole, 2), run(split, 2)
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-4, atol=1e-5)


def test_a_resumed_run_ends_with_the_same_bits():
    config = small(**HALF)
    whole, first, second = (engine(config) for _ in range(3))
    run(whole)
    run(first, 3)
    second.restore(first.checkpoint())
    run(second)
    assert torch.equal(weights(whole), weights(second))
    other = engine(small("conditional"))
    run(other)
    assert not torch.equal(weights(whole), weights(other))

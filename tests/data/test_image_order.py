"""The order of batches in memory is that of the streaming code, from any step on."""

import itertools

import numpy as np
import pytest
import torch

from cm_ray.data.image_set import memory_batches
from cm_ray.data.load_images import load_images
from cm_ray.data.shards.order import memory_indices


@pytest.fixture(scope="module")
def numbered():
    """100 images; image i holds i."""
    images = np.zeros((100, 4, 4, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(100)
    return load_images((images, np.arange(100) % 7))


def numbers(batch):
    images, labels = batch
    found = images[:, 0, 0, 0].long()
    assert torch.equal(found % 7, labels)
    return found.tolist()


def first(stream, count):
    return [numbers(batch) for batch in itertools.islice(stream, count)]


def test_an_epoch_is_a_permutation(numbered):
    stream = list(itertools.chain(*first(numbered.batches(seed=3, batch_size=8), 25)))
    assert stream == memory_indices(3, 100, 0, 200).tolist()
    assert sorted(stream[:100]) == sorted(stream[100:]) == list(range(100))
    assert stream[:100] != stream[100:]


@pytest.mark.parametrize("start", [1, 12, 13, 40])
def test_a_later_step_goes_on_with_the_very_next_batch(numbered, start):
    whole = first(numbered.batches(seed=3, batch_size=8), start + 20)
    assert first(numbered.batches(seed=3, batch_size=8, start_step=start), 20) == whole[start:]


def test_a_batch_may_be_larger_than_the_data(numbered):
    (batch,) = first(numbered.batches(seed=0, batch_size=250), 1)
    assert sorted(batch[:100]) == list(range(100))
    assert set(np.bincount(batch)) == {2, 3}


def test_workers_share_the_batch(numbered):
    settings = {"seed": 5, "batch_size": 9, "start_step": 7}
    whole = first(numbered.batches(**settings), 30)
    shares = [
        first(memory_batches(numbered.images, numbered.labels, rank=r, world=3, **settings), 30)
        for r in range(3)
    ]
    assert [a + b + c for a, b, c in zip(*shares, strict=True)] == whole


def test_settings_that_do_not_fit(numbered):
    with pytest.raises(ValueError, match="batch_size 0 for 1 workers, start_step 0"):
        next(numbered.batches(seed=0, batch_size=0))
    with pytest.raises(ValueError, match="start_step -1"):
        next(numbered.batches(seed=0, batch_size=1, start_step=-1))

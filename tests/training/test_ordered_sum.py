"""Gradients of any number of workers in a range are added up in one order: they are the same to the bit."""

from functools import partial

import pytest
import torch

from cm_ray.errors import SettingError
from cm_ray.recipes.sections import ClusterSettings
from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.settings.tree import from_dict, to_dict
from cm_ray.training.batch import Share
from cm_ray.training.ordered_sum import OrderedMean, TreeSum
from tests.training.engines import batches, engine, shaken, small

NUMBERS = torch.randn(12, 1000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("text", "counts"),
    [("2:8", (2, 4, 8)), ("3:12", (3, 6, 12)), ("2:12", (2, 4, 12)), ("1:6", (1, 2, 6)), ("5:35", (5, 35))],
)
def test_numbers_of_workers(text, counts):
    workers = WorkerRange.of(text)
    assert workers.counts == counts
    for count in counts:
        assert torch.tensor(workers.levels_above(count)).prod() == count
        assert torch.tensor(workers.levels_below(count)).prod() * count == workers.most
    assert from_dict(ClusterSettings, to_dict(ClusterSettings(num_workers=text))).workers == workers
    assert WorkerRange.of(8).counts == (8,)


@pytest.mark.parametrize("wrong", [0, -1, "8", "0:8", "8:2", "2:2", "2:7", "2:8:16", "2:", "a:b", 2.5, True])
def test_other_numbers_are_refused(wrong):
    with pytest.raises(SettingError, match="num_workers"):
        from_dict(ClusterSettings, {"num_workers": wrong})


def test_a_refusal_names_a_range_that_is_possible():
    with pytest.raises(SettingError, match="2:7 must end with a larger multiple of 2: try 2:6"):
        ClusterSettings(num_workers="2:7")
    with pytest.raises(SettingError, match="does not split into 8 workers"):
        small(batch_size=12, **{"cluster.num_workers": "2:8"})


def summed(arities, rows):
    tree = TreeSum(arities)
    for row in rows:
        tree.add([row.clone()])
    return tree.total()[0]


def test_a_tree_adds_neighbours_level_by_level():
    n = NUMBERS
    pairs = [n[i] + n[i + 1] for i in range(0, 12, 2)]
    threes = [(pairs[i] + pairs[i + 1]) + pairs[i + 2] for i in (0, 3)]
    assert torch.equal(summed([2, 3, 2], n), threes[0] + threes[1])
    assert torch.equal(summed([], n[:1]), n[0])
    assert not torch.equal(summed([12], n), summed([2, 3, 2], n)), "the order shows in the bits"


def test_sums_of_workers_are_the_parts_of_one_tree():
    """The range is 3:12 workers with 12 parts; the sums of 3, 6 and 12 workers are equal to the bit."""
    workers, sums = WorkerRange(3, 12), []
    for count in workers.counts:
        parts = [summed(workers.levels_below(count), rows) for rows in NUMBERS.chunk(count)]
        sums.append(summed(workers.levels_above(count), parts))
    assert torch.equal(sums[0], sums[1])
    assert torch.equal(sums[0], sums[2])


def gradients(config, workers, world):
    """Return the losses of all workers of a step, and the gradients that each has at its end, as one vector.

    The workers take turns: the first turn finds what each gives to the others.
    """
    given, losses, found = [], [], []

    def give(values, levels):
        given.append(values.clone())
        return values

    def take(values, levels):
        return summed(levels, torch.stack(given))

    for total in (give, take) if world > 1 else (take,):
        for rank in range(world):
            share = Share(rank, world, most=workers.most)
            ordered = partial(
                OrderedMean, workers=workers, accumulate=config.accumulate, share=share, total=total
            )
            made = shaken(engine(config, share=share, ordered=ordered))
            losses.append(made.add_gradients(next(batches(made))))
            found.append(torch.cat([p.grad.flatten() for p in made.student.parameters()]))
    return torch.stack(losses[-world:]), found[-world:]


@pytest.mark.parametrize("variant", ["much-dropout", "cd"])
def test_gradients_do_not_depend_on_the_number_of_workers(variant):
    config = small(variant, batch_size=16, accumulate=2)
    plain = shaken(engine(small(variant, batch_size=16, accumulate=8)))
    loss = plain.add_gradients(next(batches(plain)))
    expected = torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in plain.student.parameters()]
    )
    losses, (first, *_) = gradients(config, WorkerRange(1, 4), 4)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.mean(), loss)
    for world in (1, 2, 4):
        others, found = gradients(config, WorkerRange(1, 4), world)
        assert all(torch.equal(each, first) for each in found)
        mean = summed(WorkerRange(1, 4).levels_above(world), others) / world
        assert torch.equal(mean, summed([2, 2], losses) / 4)

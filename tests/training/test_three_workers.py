"""Three workers, without Ray: what was interrupted ends with the bits of what was not.

So it does when one worker, or three, go on in their place where the number may change.
"""

from functools import partial

import pytest
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from cm_ray.recipes.worker_range import WorkerRange
from cm_ray.training import engine as engine_module
from cm_ray.training.batch import Share
from cm_ray.training.ordered_sum import OrderedMean, total_of_workers
from tests.training.engines import engine, run, shaken, small

WORLD = 3


def work(rank, folder):
    """Train six steps on a worker, whole or from a checkpoint after three, with buckets settled or not."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    settle = engine_module.settle_buckets
    results = {}
    for settles in (True, False):
        engine_module.settle_buckets = settle if settles else lambda *_: None
        for interrupted in (False, True):
            made = parallel(rank)
            if interrupted:
                run(made, 3)
                checkpoint = made.checkpoint()
                made = parallel(rank)
                made.restore(checkpoint)
            run(made)
            results[f"{settles} {interrupted}"] = made.student.state_dict()
    results |= {
        f"{worlds}": changing(rank, worlds) for worlds in [(3, 3), (3, 1), (1, 3)] if rank < max(worlds)
    }
    if rank == 0:
        torch.save(results, f"{folder}/weights.pt")
    torch.distributed.destroy_process_group()


def parallel(rank):
    """Return an engine whose student's gradients are averaged over the workers, in small buckets."""

    def wrap(module):
        return DistributedDataParallel(module, bucket_cap_mb=0.002, gradient_as_bucket_view=True)

    made = engine(small("paper", batch_size=9), share=Share(rank, WORLD), wrap=wrap)
    return shaken(made)


def changing(rank, worlds):
    """Train with one number of workers, and from a checkpoint on with another; one of 1 or 3 at a time."""
    config = small("conditional", "clipped", "much-dropout", batch_size=12, accumulate=2)
    checkpoint = None
    for world, steps in zip(worlds, (3, 6), strict=True):
        if rank < world:
            share = Share(rank, world, most=3)
            ordered = partial(
                OrderedMean, workers=WorkerRange(1, 3), accumulate=2, share=share, total=total_of_workers
            )
            made = shaken(engine(config, share=share, ordered=ordered))
            if checkpoint is not None:
                made.restore(checkpoint)
            run(made, steps)
            state = [made.checkpoint()]
        torch.distributed.broadcast_object_list(state := [*(state if rank < world else [None])], src=0)
        checkpoint = state[0]
    return checkpoint.group("student")


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Return the weights after every training: all in one start of three processes, which import PyTorch."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.parametrize("worlds", ["(3, 1)", "(1, 3)"])
def test_another_number_of_workers_changes_no_bit(worlds, ends):
    undisturbed, changed = ends["(3, 3)"], ends[worlds]
    assert all(torch.equal(undisturbed[name], changed[name]) for name in undisturbed)


@pytest.mark.parametrize("settles", [True, False])
def test_an_interruption_changes_no_bit_if_buckets_are_settled(settles, ends):
    undisturbed, interrupted = ends[f"{settles} False"], ends[f"{settles} True"]
    same = all(torch.equal(undisturbed[name], interrupted[name]) for name in undisturbed)
    assert same == settles

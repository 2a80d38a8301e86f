"""Three workers, without Ray: what was interrupted ends with the bits of what was not."""

import pytest
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from cm_ray.training import engine as engine_module
from cm_ray.training.batch import Share
from tests.training.engines import engine, run, shaken, small

WORLD = 3


def work(rank, folder, interrupted, settles):
    """Train six steps on a worker, from a checkpoint after three of them if it was interrupted."""
    torch.set_num_threads(1)
    if not settles:
        engine_module.settle_buckets = lambda *_: None
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store-{interrupted}", rank=rank, world_size=WORLD
    )
    made = parallel(rank)
    if interrupted:
        run(made, 3)
        checkpoint = made.checkpoint()
        made = parallel(rank)
        made.restore(checkpoint)
    run(made)
    if rank == 0:
        torch.save(made.student.state_dict(), f"{folder}/weights-{interrupted}.pt")
    torch.distributed.destroy_process_group()


def parallel(rank):
    """Return an engine whose student's gradients are averaged over the workers, in small buckets."""

    def wrap(module):
        return DistributedDataParallel(module, bucket_cap_mb=0.002, gradient_as_bucket_view=True)

    made = engine(small("paper", batch_size=9), share=Share(rank, WORLD), wrap=wrap)
    return shaken(made)


def ends(folder, settles):
    """Return the weights of the undisturbed and of the interrupted training."""
    for interrupted in (False, True):
        multiprocessing.spawn(work, (str(folder), interrupted, settles), nprocs=WORLD)
    return (torch.load(folder / f"weights-{kind}.pt", weights_only=True) for kind in (False, True))


@pytest.mark.parametrize("settles", [True, False])
def test_an_interruption_changes_no_bit_if_buckets_are_settled(settles, tmp_path):
    undisturbed, interrupted = ends(tmp_path, settles)
    same = all(torch.equal(undisturbed[name], interrupted[name]) for name in undisturbed)
    assert same == settles

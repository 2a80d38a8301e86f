"""Two workers, without Ray: they skip a step together, and compile and accumulate as one worker trains."""

import dataclasses

import pytest
import torch
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from cm_ray.training import arithmetic
from cm_ray.training.batch import Share
from tests.training.engines import batches, engine, run, shaken, small, weights

WORLD = 2


def parallel(rank, config):
    """Return an engine whose student's gradients are averaged over the workers."""
    return shaken(engine(config, share=Share(rank, WORLD), wrap=DistributedDataParallel))


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Return what each worker has trained: all in one start of two processes, which import PyTorch."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(WORLD)]


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    results = {str(overflows): overflowing(rank, overflows) for overflows in (True, False)}
    results |= {"compiled": compiled(rank), "sliced": sliced(rank)}
    torch.save(results, f"{folder}/result-{rank}.pt")
    torch.distributed.destroy_process_group()


def overflowing(rank, overflows):
    """Train two float16 steps; in the first, the gradient of the second worker's images may overflow."""
    made = parallel(rank, small("paper", precision="float16"))
    made.scaler.load_state_dict(made.scaler.state_dict() | {"scale": 256.0})
    before = weights(made)
    if overflows and rank == 1:
        distance = made.distance
        made.distance = lambda a, b: distance(a, b) * float("inf")
    stream = batches(made)
    made.one_step(next(stream))
    first = {"first": weights(made), "scale": torch.tensor(made.scaler.get_scale())}
    first |= {f"first {name}": value for name, value in counted(made).items()}
    if overflows and rank == 1:
        made.distance = distance
    made.one_step(next(stream))
    return {"before": before, "second": weights(made), **first, **counted(made)}


def counted(made):
    """Return the average and the target of an engine, its steps, and those that its optimizer has taken."""
    groups = {"target": list(made.target.network.parameters()), "average": made.averages[0]}
    states = made.optimizer.state.values()
    return {
        "steps": torch.tensor(made.step),
        "taken": torch.tensor([float(state["step"]) for state in states]),
        **{name: torch.cat([p.detach().flatten() for p in group]) for name, group in groups.items()},
    }


@pytest.mark.parametrize("overflows", [True, False])
def test_workers_skip_a_step_together(overflows, workers):
    one, two = (results[str(overflows)] for results in workers)
    for name in one:
        assert torch.equal(one[name], two[name])
    assert torch.equal(one["first"], one["before"]) == overflows
    assert one["scale"] == (128 if overflows else 256)
    assert not torch.equal(one["second"], one["first"])
    assert (one["first steps"], one["steps"]) == (1, 2), "a skipped step is one that the schedules count"
    assert set(one["taken"].tolist()) == {1.0 if overflows else 2.0}, "the optimizer counts those it took"
    assert len(one["first taken"]) == (0 if overflows else len(one["taken"]))
    for name in ("target", "average"):
        assert torch.equal(one[f"first {name}"], one["before"]) == overflows, "nothing has moved to follow"
        assert not torch.equal(one[name], one[f"first {name}"])


def compiled(rank):
    """Train two steps with compiled networks and two micro-batches, and return the weights."""
    arithmetic.BACKEND = "aot_eager"
    made = parallel(rank, small("paper", compile=True, accumulate=2, steps=2))
    run(made)
    return weights(made)


def trained_alone(method):
    """Return the weights after two steps of one worker, and how far they have moved."""
    alone = shaken(engine(small(method, steps=2)))
    start = weights(alone)
    run(alone)
    return weights(alone), (weights(alone) - start).norm()


def test_compiled_workers_that_accumulate_train_as_one_worker_does(workers):
    one, two = (results["compiled"] for results in workers)
    assert torch.equal(one, two)
    alone, moved = trained_alone("paper")
    assert (one - alone).norm() < 1e-3 * moved
    half = shaken(engine(dataclasses.replace(small("paper", steps=2), batch_size=4)))
    run(half)
    assert (one - weights(half)).norm() > 1e-2 * moved, "half of the images is not enough"


def sliced(rank):
    """Train two steps whose loss has a second backward pass, and return the weights."""
    made = parallel(rank, small("ssm", steps=2))
    run(made)
    return weights(made)


def test_workers_take_a_second_backward_pass_as_one_worker_does(workers):
    one, two = (results["sliced"] for results in workers)
    assert torch.equal(one, two)
    alone, moved = trained_alone("ssm")
    assert (one - alone).norm() < 1e-3 * moved

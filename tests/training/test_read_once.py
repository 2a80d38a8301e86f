"""Three workers, without Ray: one reads the files of a run; the others get the same bits, or its error."""

import collections
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from cm_ray.cluster.training.workers import RayWorkers
from cm_ray.data.image_set import ImageSet
from cm_ray.errors import UserError
from cm_ray.networks.model import save_model
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Heun
from cm_ray.storage import tensor_files
from cm_ray.training import read_once as module
from cm_ray.training.batch import Share
from cm_ray.training.engine import Engine
from cm_ray.training.loop import TrainingLoop
from cm_ray.training.read_once import Content, needed_by_all, read_once, read_starting_models
from tests.training.engines import IMAGES, LABELS, batches, small, specification, teacher

WORLD = 3
SETTINGS = small(
    "cd",
    batch_size=9,
    **{
        "checkpoint.every": 3,
        "evaluation.extractor": "none",
        "init_from.model": "given",
        "averages.decays": (0.5, 0.9, 0.95),
    },
)
DAMAGED = "The checkpoint is cut off; restore it."
TENSORS = {
    "scalar": torch.tensor(1.5),
    "empty": torch.empty(0, 3),
    "bits": torch.tensor([True, False, True]),
    "half": torch.arange(7).to(torch.bfloat16),
    "long": torch.arange(5000, dtype=torch.int64).reshape(50, 100).t(),
    "ema1/weight": torch.ones(3),
}


class Workers(RayWorkers):
    """Workers that say to each other by PyTorch alone what Ray carries for them elsewhere."""

    def broadcast(self, value):
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self):
        torch.distributed.barrier()

    def report(self, step):
        pass

    def leaving_nodes(self):
        return frozenset()


class Opened:
    """The JSON and tensor files that this process opens, and how often it reads tensors from each."""

    def __init__(self):
        self.names, self.read = set(), collections.Counter()
        sys.addaudithook(lambda event, args: self.add(*args[:2]) if event == "open" else None)
        self.safe_open = tensor_files.safe_open
        tensor_files.safe_open = self.tensors

    def tensors(self, file, *args):
        self.read[Path(file).name] += 1
        return self.safe_open(file, *args)

    def add(self, file, mode):
        path = Path(file) if isinstance(file, str | Path) else Path()
        if path.suffix in (".safetensors", ".json") and mode and "r" in mode:
            self.names.add(path.name)


def work(rank, folder):
    """Send values and errors, train a run whole, and go on with it from a checkpoint in the middle."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    module.PIECE_BYTES = 1000
    communication = Workers(Share(rank, WORLD), torch.device("cpu"))
    result = {"values": values(communication), "errors": errors(communication)}
    run = RunDirectory(Path(folder) / ("run" if rank == 0 else f"empty-{rank}"))
    run.root.mkdir(exist_ok=True)
    train(run, communication)
    if rank == 0:
        shutil.move(run.checkpoints / "step-00000006", Path(folder) / "undisturbed")
        result["read"] = {"left": sorted(path.name for path in run.checkpoints.iterdir())}
    torch.distributed.barrier()
    opened = Opened()
    engine = train(run, communication)
    result["opened"] = sorted(opened.names)
    result["tensors"] = dict(opened.read)
    result["averages"] = len(engine.averages)
    result["weights"] = engine.averaged_weights()
    torch.save(result, f"{folder}/result-{rank}.pt")
    torch.distributed.destroy_process_group()


def values(communication):
    def read():
        if communication.rank > 0:
            raise AssertionError("another worker than rank 0 reads")
        return Content({"step": 3}, TENSORS)

    content = read_once(read, communication, needed_by_all)
    return [content.facts, dict(content.tensors)]


def errors(communication):
    def fail(error):
        raise error

    said = []
    for error in (UserError(DAMAGED), OSError(5, "Input/output error")):
        with pytest.raises((UserError, OSError, RuntimeError)) as raised:
            read_once(lambda error=error: fail(error), communication)
        said.append([type(raised.value).__name__, str(raised.value)])
    return said


def train(run, communication):
    """Train to the end, from the last checkpoint if there is one; return the engine."""
    share = Share(communication.rank, communication.world)
    first, initial = read_starting_models(SETTINGS, run, communication)
    options = {"wrap": DistributedDataParallel, "teacher": first, "initial": initial}
    engine = Engine(SETTINGS, specification(SETTINGS), share=share, **options)
    loop = TrainingLoop(
        recipe=SETTINGS,
        run=run,
        engine=engine,
        batches=lambda step: batches(engine),
        data=ImageSet(IMAGES, LABELS, tuple("0123456789"), "fingerprint", "images"),
        communication=communication,
    )
    for _ in loop.steps():
        pass
    return engine


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Return the folder, and what each worker has seen: all in one start of three processes."""
    folder = tmp_path_factory.mktemp("workers")
    spec = specification(SETTINGS)
    model = teacher(spec)
    denoiser = dataclasses.replace(model.spec, sampler=Heun(steps=18))
    save_model(folder / "run" / "teacher", denoiser, model.network.state_dict())
    torch.manual_seed(1)
    weights = {
        name: value + 0.1 * torch.randn_like(value)
        for name, value in Engine(SETTINGS, spec, teacher=model).student.network.state_dict().items()
    }
    save_model(folder / "run" / "initial", spec, weights)
    multiprocessing.spawn(work, (str(folder),), nprocs=WORLD)
    return folder, [torch.load(folder / f"result-{r}.pt", weights_only=True) for r in range(WORLD)]


def test_others_get_the_same_bits_and_only_what_they_need(workers):
    for rank, result in enumerate(workers[1]):
        facts, tensors = result["values"]
        assert facts == {"step": 3}
        assert set(tensors) == set(TENSORS) - ({"ema1/weight"} if rank else set())
        for name, tensor in tensors.items():
            assert tensor.dtype == TENSORS[name].dtype
            assert torch.equal(tensor, TENSORS[name]), name


def test_an_error_of_the_reader_is_raised_by_all(workers):
    for rank, result in enumerate(workers[1]):
        user, other = result["errors"]
        assert user == ["UserError", DAMAGED]
        assert "Input/output error" in other[1]
        assert other[0] == ("RuntimeError" if rank else "OSError")


def test_one_worker_reads_each_file_once(workers):
    assert [result["opened"] for result in workers[1][1:]] == [[], []], "the others open none"
    first, *others = (result["tensors"] for result in workers[1])
    assert first == {"weights.safetensors": 2, "state.safetensors": 1}, "the teacher's and the initial ones"
    assert others == [{}, {}]


def test_a_run_that_goes_on_ends_with_the_same_bits(workers):
    folder, results = workers
    assert results[0]["read"] == {"left": ["step-00000003"]}
    undisturbed = load_file(folder / "undisturbed" / "state.safetensors")
    resumed = load_file(folder / "run" / "checkpoints" / "step-00000006" / "state.safetensors")
    assert set(undisturbed) == set(resumed)
    assert all(torch.equal(undisturbed[name], resumed[name]) for name in undisturbed)
    assert [result["averages"] for result in results] == [3, 1, 1]
    for result in results[1:]:
        for name, weights in result["weights"].items():
            assert torch.equal(weights, results[0]["weights"][name])
    rows = [json.loads(row) for row in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 3, 6]

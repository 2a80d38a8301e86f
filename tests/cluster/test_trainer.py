"""Through Ray Train: one and two workers train the same model; bad ends are one sentence."""

import itertools

import pytest
import torch

from cm_ray import recipes
from cm_ray.cluster.data.stream import rebatched
from cm_ray.cluster.runtime.nodes import node_resources
from cm_ray.cluster.runtime.plan import plan_workers
from cm_ray.cluster.training import fit as fits
from cm_ray.cluster.training.fit import fit
from cm_ray.cluster.training.prepare import prepare_shards
from cm_ray.cluster.training.workers import TrainingTask
from cm_ray.data.shards.order import read_unit, stream_units
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.own_code import allow
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Progressive
from cm_ray.settings.tree import override
from cm_ray.storage.files import remove
from cm_ray.training.batch import Batch
from cm_ray.training.engine import Engine
from cm_ray.training.specification import model_spec
from cm_ray.training.starting_models import prepare_teachers
from tests.cluster.teaching import NETWORK, save_teacher

pytestmark = pytest.mark.ray

SMALL = NETWORK | {
    "steps": 20,
    "batch_size": 32,
    "log_every": 10,
    "checkpoint.every": 10,
    "evaluation.every": 10,
    "evaluation.extractor": "none",
    "evaluation.grid": 3,
    "cluster.threads": 1,
    "cluster.max_failures": 1,
}


def trained(folder, recipe="ict_digits", small=SMALL, **changes):
    config = override(recipes.named(recipe), small | {k.replace("__", "."): v for k, v in changes.items()})
    shards, manifest = prepare_shards(config.data)
    spec = model_spec(config, manifest)
    run = RunDirectory(folder)
    run.root.mkdir(exist_ok=True)
    prepare_teachers(config, spec, run)
    task = TrainingTask(
        config=config,
        spec=spec,
        plan=plan_workers(config.cluster, node_resources()),
        run=run,
        shards=shards,
    )
    fit(task)
    return run


@pytest.mark.parametrize(
    "recipe",
    ["pd_digits", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ict_digits", "cd_digits"))],
)
def test_one_and_two_workers_agree_and_leave_a_whole_run_directory(recipe, ray_cluster, tmp_path):
    distilled = recipe != "ict_digits"
    changes = {"teacher__model": save_teacher(tmp_path / "teacher")} if distilled else {}
    runs = [trained(tmp_path / str(n), recipe, cluster__num_workers=n, **changes) for n in (1, 2)]
    one, two = (CheckpointStore(run.checkpoints, 2).load(20) for run in runs)
    for name, tensor in one.tensors.items():
        torch.testing.assert_close(two.tensors[name], tensor, rtol=1e-3, atol=2e-5)
    for a, b in zip(*(run.read_metrics() for run in runs), strict=True):
        assert a["step"] == b["step"]
        if "loss" in a:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
            assert a["num_scales"] == b["num_scales"]
            assert a["images_per_s"] > 0
    rows = [(row["step"], "scores" in row) for row in runs[0].read_metrics()]
    assert rows == [(1, False), (10, False), (10, True), (20, False), (20, True)]
    names = ["step-00000010.png", "step-00000020.png"]
    assert sorted(path.name for path in runs[0].samples.glob("*.png")) == names
    if recipe == "pd_digits":
        for run in runs:
            kept = {folder.name: load_model(folder).spec.sampler for folder in run.rounds.iterdir()}
            assert kept == {str(n): Progressive(n) for n in (16, 8, 4, 2, 1)}


STREAMED = {
    "data__cache": "stream",
    "batch_size": 512,
    "steps": 8,
    "checkpoint__every": 4,
    "evaluation__every": 4,
}
"""Three steps of an epoch of the digits, of which 261 are left out: the eighth is in the third epoch."""


def in_this_process(config, manifest, shards, world):
    """Train on the rows of the computed order, read without Ray, in one engine; return all state."""

    def rows(rank):
        share = config.batch_size // world
        units = stream_units(manifest, seed=config.seed, rank=rank, world=world, batch_per_worker=share)
        read = (map(torch.from_numpy, read_unit(shards, unit, manifest.shape)) for unit in units)
        return rebatched((Batch(images, labels.long()) for images, labels in read), share)

    made = Engine(config, model_spec(config, manifest))
    for parts in itertools.islice(zip(*map(rows, range(world)), strict=True), config.steps):
        images, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("images", "labels"))
        made.one_step(Batch(images, labels))
    return made.checkpoint().tensors


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_streamed_training_is_that_of_the_same_batches_in_memory(world, ray_cluster, tmp_path):
    """One worker to the bit, from the first step and from a checkpoint within an epoch; two to rounding."""
    changes = STREAMED | {"cluster__num_workers": world}
    run = trained(tmp_path / "run", **changes)
    config = override(recipes.ict_digits(), SMALL | {k.replace("__", "."): v for k, v in changes.items()})
    shards, manifest = prepare_shards(config.data)
    alone = override(config, {"cluster.num_workers": 1})
    expected = in_this_process(alone, manifest, shards, world)
    store = CheckpointStore(run.checkpoints, 2)
    for resumed in (False, True):
        if resumed:
            remove(store.state_file(8).parent)
            trained(run.root, **changes)
        found = store.load(8).tensors
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            if world == 1:
                assert torch.equal(found[name], tensor), name
            else:
                torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        ("HungryNetwork", "Steps on 32 images at a time need more memory than there is; raise accumulate, "),
        pytest.param("HungrySamples", "samples at a time need .*; lower batch_size", marks=pytest.mark.slow),
    ],
)
def test_a_worker_without_memory_says_what_to_change_and_is_not_tried_again(
    network, sentence, ray_cluster, tmp_path, monkeypatch
):
    """The network asks for an exbibyte in the worker; other failures are tried again three times."""
    path, attempts = f"tests.hungry:{network}", []
    allow(path)
    others = {name: value for name, value in SMALL.items() if not name.startswith("network.")}
    own = {"network": "custom", "network.path": path, "cluster.max_failures": 3}
    monkeypatch.setattr(
        fits, "_attempt", lambda task, real=fits._attempt: attempts.append(task) or real(task)
    )
    with pytest.raises(UserError, match=sentence):
        trained(tmp_path / "hungry", small=others | own)
    assert len(attempts) == 1


def test_a_loss_that_is_not_finite_is_told_once(ray_cluster, tmp_path):
    with pytest.raises(UserError, match=r"not finite after step|The loss is (nan|inf) at step \d+"):
        trained(tmp_path / "nan", optimizer__learning_rate=1e30, log_every=1)

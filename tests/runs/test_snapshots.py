"""Snapshots of averages of a real small training: what is kept, what resuming leaves, and reconstruction."""

import hashlib
import time

import pytest
import torch

from cm_ray.core.averages import PowerEMA
from cm_ray.core.ema import update_average
from cm_ray.data.load_images import load_images
from cm_ray.errors import UserError
from cm_ray.networks.model import Model
from cm_ray.runs.checkpoint import CheckpointStore
from cm_ray.runs.directory import RunDirectory
from cm_ray.runs.snapshots import KeptAverages, SnapshotStore, kept_steps
from cm_ray.settings.tree import override
from cm_ray.training.communication import SingleWorker
from cm_ray.training.engine import Engine
from cm_ray.training.loop import TrainingLoop
from cm_ray.training.snapshots import disk_use
from tests.training.engines import batches, small, specification, teacher

KIND = PowerEMA(lengths=(0.05, 0.1), snapshots=8)
LONG = 160
THIRD = (0.03, 0.07, 0.16)
"""Lengths that are tracked directly beside those that are kept."""


def config(*changes, **values):
    return small(
        *changes,
        averages=KIND,
        **{"checkpoint.every": 3, "evaluation.every": 0, "evaluation.extractor": "none"} | values,
    )


def loop(folder, recipe, made=None):
    made = made or Engine(recipe, specification(recipe), teacher=teacher(specification(recipe)))
    images = load_images("digits")
    return TrainingLoop(
        recipe=recipe,
        run=RunDirectory(folder),
        engine=made,
        batches=lambda step: batches(made),
        data=images,
        communication=SingleWorker(),
    )


def trained(folder, recipe, stop=None):
    """Train to the end, or leave the loop after some steps as a killed process would."""
    one = loop(folder, recipe)
    for stats in one.steps():
        if stats.step == stop:
            break
    return one


def contents(run):
    """The digest of every file of averages that a run keeps, by its name."""
    files = [*run.snapshots.iterdir(), *run.checkpoints.rglob("*.safetensors")]
    return {file.relative_to(run.root): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_resumed_run_has_the_same_snapshots(stop, tmp_path):
    recipe = config(steps=9)
    whole = trained(tmp_path / "whole", recipe).run
    assert list(SnapshotStore(whole.snapshots).files()) == sorted(recipe.snapshot_steps) == [2, *range(3, 10)]
    trained(tmp_path / "killed", recipe, stop)
    killed = trained(tmp_path / "killed", recipe).run
    assert contents(killed) == contents(whole)


def test_leftovers_of_killed_processes_go(tmp_path):
    recipe = config(steps=9)
    run = trained(tmp_path, recipe, 4).run
    late, part = run.snapshots / "step-00000009.safetensors", run.snapshots / ".step-00000009.x.part"
    for file in (late, part):
        file.write_bytes(b"of steps that are repeated")
    trained(tmp_path, recipe, 4)
    assert not late.exists()
    assert not part.exists()


def test_a_checkpoint_comes_after_the_snapshots_before_it(tmp_path, monkeypatch):
    """A run that goes on from a checkpoint has all snapshots, however slow the disk is."""
    seen, write, save = [], SnapshotStore._write, CheckpointStore.save

    def slow(store, snapshot):
        time.sleep(0.05)
        write(store, snapshot)

    def watched(store, checkpoint):
        run = RunDirectory(tmp_path)
        seen.append((checkpoint.step, list(SnapshotStore(run.snapshots).files())[-1]))
        save(store, checkpoint)

    monkeypatch.setattr(SnapshotStore, "_write", slow)
    monkeypatch.setattr(CheckpointStore, "save", watched)
    trained(tmp_path, config(steps=6))
    assert seen == [(3, 3), (6, 6)]


def test_the_disk_space_is_told_and_taken(tmp_path):
    recipe = config(steps=9)
    run = trained(tmp_path, recipe).run
    taken = sum(file.stat().st_size for file in run.snapshots.iterdir())
    parameters = sum(p.numel() for p in Model(specification(recipe)).parameters())
    assert 0 < taken - KIND.snapshot_bytes(parameters, 9) < 8 * 40_000, "apart from the names of tensors"
    told = disk_use(override(recipe, {"steps": 10_000, "averages.snapshots": 3200}), specification(recipe))
    assert told.startswith(f"3200 snapshots of 2 averages will take {3200 * 8 * parameters / 2**30:.2f} GiB")
    assert disk_use(small(), specification(recipe)) is None


def test_constant_averages_keep_no_snapshots(tmp_path):
    recipe = small(**{"steps": 3, "evaluation.every": 0, "evaluation.extractor": "none"})
    run = trained(tmp_path, recipe).run
    assert not run.snapshots.exists()
    with pytest.raises(UserError, match="averages constant, whose decays are fixed; train with averages"):
        KeptAverages.of(run, recipe, 3)


def test_a_full_disk_is_told_before_the_next_checkpoint(tmp_path):
    recipe = config(steps=9)
    (tmp_path / "snapshots").write_text("not a folder")
    with pytest.raises(FileExistsError):
        trained(tmp_path, recipe)
    assert not (tmp_path / "checkpoints").exists()


def test_rounds_of_progressive_distillation_begin_anew(tmp_path):
    """Snapshots of the last round remain; its averages are of its own steps, and no earlier round's."""
    recipe = config("pd", steps=12)
    one = trained(tmp_path, recipe)
    assert one.engine.round_starts == [0, 6, 12]
    assert list(SnapshotStore(one.run.snapshots).files()) == [7, 8, 9, 10, 11, 12]
    kept = KeptAverages.of(one.run, recipe, 12)
    assert kept.averaged == 6
    assert {profile.steps for profile in kept.sources} == {1, 2, 3, 4, 5, 6}
    for index, length in enumerate(KIND.lengths):
        assert equal(kept.weights(length), one.engine.averaged_weights(index))


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run of 160 steps, and averages of third lengths of the same weights, which are tracked beside it."""
    fast = {"optimizer.beta2": 0.99, "optimizer.learning_rate": 2e-3}
    recipe = config(**{"steps": LONG, "checkpoint.every": 120, "averages.snapshots": 16} | fast)
    one = loop(tmp_path_factory.mktemp("long"), recipe)
    beside = PowerEMA(lengths=THIRD)
    averages = [[p.clone() for p in one.engine._parameters()] for _ in THIRD]
    tracked = {}
    for stats in one.steps():
        for average, decay in zip(averages, beside.decays_at(stats.step - 1), strict=True):
            update_average(average, one.engine._parameters(), decay)
        if stats.step in (120, LONG):
            tracked[stats.step] = [named(one.engine, average) for average in averages]
    return one, recipe, tracked


def named(made, average):
    names = [name for name, _ in made.student.network.named_parameters()]
    return {name: tensor.clone() for name, tensor in zip(names, average, strict=True)}


def vector(weights):
    return torch.cat([weights[name].double().flatten() for name in sorted(weights)])


@pytest.mark.parametrize("step", [120, LONG])
def test_reconstructed_averages_are_those_tracked_directly(long_run, step):
    """The error is below 1 %, and below a tenth of the distance to what is kept; amid the training, too."""
    one, recipe, tracked = long_run
    kept = KeptAverages.of(one.run, recipe, step)
    snapshots = [vector(kept.weights(length)) for length in KIND.lengths]
    for length, direct in zip(THIRD, map(vector, tracked[step]), strict=True):
        made = vector(kept.weights(length))
        difference = float((made - direct).norm())
        assert difference < 0.01 * float(direct.norm())
        assert difference < 0.1 * min(float((snapshot - direct).norm()) for snapshot in snapshots)


def test_a_checkpoint_between_snapshots_counts(long_run):
    """Step 120 is both; of the checkpoints that are kept, step 120 and the last one are there."""
    one, recipe, _ = long_run
    assert kept_steps(one.run, recipe) == list(range(10, 161, 10))
    made = loop(one.run.root, recipe).engine
    state = one.run.checkpoints / "step-00000120" / "state.safetensors"
    (one.run.snapshots / "step-00000120.safetensors").rename(one.run.root / "aside")
    try:
        kept = KeptAverages.of(one.run, recipe, 120)
        assert {source.file for source in kept.sources.values()} >= {state}
        assert max(profile.steps for profile in kept.sources) == 120
        made.restore(CheckpointStore(one.run.checkpoints, 2).load(120))
        assert equal(kept.weights(0.05), made.averaged_weights(0))
    finally:
        (one.run.root / "aside").rename(one.run.snapshots / "step-00000120.safetensors")


def test_what_cannot_be_had_is_refused(long_run):
    one, recipe, _ = long_run
    kept = KeptAverages.of(one.run, recipe, LONG)
    with pytest.raises(UserError, match=r"length 0\.005 cannot be made .* differs by \d+%; choose a length"):
        kept.weights(0.005)
    with pytest.raises(UserError, match="has kept no averages of step 7; choose one of 10, 20, 30, 40"):
        KeptAverages.of(one.run, recipe, 7)


def test_a_damaged_snapshot_is_named_and_can_be_left_out(long_run):
    one, recipe, tracked = long_run
    file = one.run.snapshots / "step-00000100.safetensors"
    before = file.read_bytes()
    try:
        file.write_bytes(before[:1000])
        with pytest.raises(UserError, match=r"step-00000100\.safetensors is damaged .*; remove it to go on"):
            KeptAverages.of(one.run, recipe, LONG).weights(0.07)
        file.unlink()
        made = vector(KeptAverages.of(one.run, recipe, LONG).weights(0.07))
        direct = vector(tracked[LONG][1])
        assert float((made - direct).norm() / direct.norm()) < 0.01
    finally:
        file.write_bytes(before)

"""Every job that samples on a pool ends with the same bytes when actors are killed while it works."""

import contextlib
import json
import os
import signal
from functools import partial

import numpy as np
import pytest
from PIL import Image

import cm_ray as cm
from cm_ray.cluster.editing import edit_files
from cm_ray.cluster.evaluation import evaluate
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.pool.supervisor import Supervisor
from cm_ray.cluster.training import run as training
from cm_ray.command_line.settings.edit import Editing
from cm_ray.command_line.settings.score import Evaluation
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.settings.tree import override
from tests.api.conftest import TINY

MODULES = (edit_files, evaluate, training)
"""The modules whose jobs use a pool."""
CHANGES = {**TINY, "steps": 2, "evaluation.extractor": "digits", "evaluation.samples": 40}
MEASURING = {
    "data": "digits",
    "extractor": "digits",
    "batch_size": 4,
    "tracking_uri": "none",
    "actors": ActorSettings(count=2, cpus_each=0.5),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of a tiny model of digits, trained here."""
    place = tmp_path_factory.mktemp("runs") / "digits"
    return cm.train("ict_digits", out=place, changes=CHANGES, quiet=True)


@pytest.fixture(scope="module")
def pool(ray_cluster):
    """Actors for all jobs: starting them takes seconds."""
    with SamplerPool(partial(open_extractor, "digits"), Actors(count=2, cpus=0.5)) as warm:
        yield warm


def scores(run, folder):
    settings = Evaluation(
        source=str(run.directory.root),
        run_dir=str(folder),
        samples=60,
        samplers=("one-step",),
        grid=2,
        **MEASURING,
    )
    evaluate.evaluate(settings)
    return (folder / "scores.json").read_bytes()


def edits(run, folder):
    images = folder / "images"
    images.mkdir(parents=True)
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{index}.png")
    settings = Editing(
        task="upscale",
        model=str(run.directory.root),
        image=str(images),
        out=folder / "edits",
        nfe=2,
        label=3,
        samples=2,
        batch_size=2,
        actors=MEASURING["actors"],
    )
    return {path.name: path.read_bytes() for path in edit_files.edit(settings)}


def last_samples(run, folder):
    """The end of a training alone: the run has its last checkpoint, but no result."""
    result = run.directory.result_file
    result.unlink(missing_ok=True)
    recipe = override(run.directory.config(), {"evaluation.batch_size": 4, "cluster.threads": 1})
    training.train(recipe)
    found = json.loads(result.read_text())
    del found["timings"]
    return found, {path.name: path.read_bytes() for path in run.directory.samples.glob("final-*")}


JOBS = [scores, edits, last_samples]
"""The search for time points has a test of its own beside its other tests."""


@pytest.fixture
def kills(ray_cluster, monkeypatch, pool):
    """Let jobs take the warm actors; `kills()` lets both of them be killed after the second result."""
    finished, kills = Supervisor.finished, []

    def disturbed(self, submit, tasks):
        for number, (index, result) in enumerate(finished(self, submit, tasks)):
            if kills == [] and number == 1:
                for actor in self.actors:
                    kills.append(ray_cluster.get(actor.__ray_call__.remote(lambda self: os.getpid())))
                    os.kill(kills[-1], signal.SIGKILL)
            yield index, result

    for module in MODULES:
        monkeypatch.setattr(module, "SamplerPool", lambda opener, actors: contextlib.nullcontext(pool))

    def start():
        kills.clear()
        monkeypatch.setattr(Supervisor, "finished", disturbed)

    yield start
    assert len(kills) == 2, "the job had actors to kill"


@pytest.mark.ray
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.__name__)
def test_kills_of_all_actors_change_no_byte(job, run, kills, trains_here, tmp_path):
    undisturbed = job(run, tmp_path / "undisturbed")
    kills()
    assert job(run, tmp_path / "disturbed") == undisturbed

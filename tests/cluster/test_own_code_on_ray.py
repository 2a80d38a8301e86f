"""Processes of the cluster import the code of one's own that the command has named, and no other."""

import json

import pytest

import cm_ray as cm
from cm_ray.cluster.paper_table import Table, Training, make_table, recipes_of
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.sweeps.sweep_trial import Trials, run_trial
from cm_ray.cluster.training.workers import TrainingTask, work
from cm_ray.command_line import main
from cm_ray.drawing.requests import Request
from cm_ray.errors import UserError
from cm_ray.evaluation.from_settings import extractor_opener
from cm_ray.own_code import _named, allow, carried, forgotten_afterwards
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import OneStep
from cm_ray.settings.tree import to_dict
from cm_ray.sweeps.space import NUMBER, Categorical, Space
from tests.api.conftest import TINY
from tests.planted import NET as PLANTED
from tests.planted import forget, plant, planted_model, planted_run
from tests.results import result

pytestmark = pytest.mark.ray
NET, PIXELS = "tests.networks.custom_networks:TinyNetwork", "tests.networks.custom_networks:Pixels"
REFUSED = "names code that is not cm_ray's"


@pytest.fixture
def run(tmp_path):
    """A stranger's run, whose model and extractor are code of its own."""
    return planted_run(tmp_path / "run", network=NET, extractor=PIXELS)


def test_actors_import_what_the_command_names(ray_cluster, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["score", "run", "--samples", "16", "--tracking-uri", "none"]
    assert main.run(words) == 2
    assert f"run/model/model.json {REFUSED}, {NET}" in capsys.readouterr().err
    assert main.run([*words, "--own-code", NET]) == 2
    assert f"run/config.json {REFUSED}, {PIXELS}" in capsys.readouterr().err
    assert main.run([*words, "--own-code", PIXELS, NET]) == 0, capsys.readouterr().err
    assert "four pixels" in (next((tmp_path / "runs").glob("*/scores.json"))).read_text()


def test_an_actor_imports_nothing_that_it_was_not_told(ray_cluster, run):
    """The actor itself refuses, where a model comes to it past the driver's check."""
    opener = extractor_opener(run.config().evaluation)
    request = Request(count=2, seed=0, sampler=OneStep())
    with SamplerPool(opener, Actors(count=1, cpus=0.5)) as pool:
        with pytest.raises(UserError, match=REFUSED):
            pool.put(run.model)
        allow(NET)
        model = pool.put(run.model)
        with pytest.raises(UserError, match=f"model.json {REFUSED}, {NET}"):
            pool.generate(model, request, frozenset(["images"]))
    with SamplerPool(opener, Actors(count=1, cpus=0.5)) as pool:
        assert pool.generate(model, request, frozenset(["images"])).images.shape == (2, 1, 8, 8)
        with pytest.raises(UserError, match=f"config.json {REFUSED}, {PIXELS}"):
            pool.generate(model, request, frozenset(["features"]))


def test_a_training_takes_its_names_to_its_workers(ray_cluster, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "ict_digits", "--config", "run/config.json", "--run-dir", "new", "--steps=2"]
    words += ["--batch-size=16", "--evaluation.samples=9", "--evaluation.grid=2", "--tracking.uri=none"]
    words += ["--cluster.cpus-per-worker=0.5"]
    assert main.run([*words, "--own-code", NET]) == 2
    assert f"run/config.json {REFUSED}, {PIXELS}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert main.run([*words, "--own-code", NET, "--evaluation.extractor", PIXELS]) == 0
    assert main.run(words) == 2, "the same run again has to be named again"


@pytest.mark.parametrize(
    ("recipe", "option"), [("cd_digits", "--teacher.model"), ("ect_digits", "--init-from.model")]
)
def test_a_training_does_not_import_what_its_beginning_names(
    recipe, option, ray_cluster, tmp_path, monkeypatch, capsys
):
    """The folder that a stranger's teacher lies in is the current one, and holds its code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    trace = plant(tmp_path)
    forget(trace)
    planted_model(tmp_path / "theirs")
    assert main.run(["train", recipe, option, "theirs", "--run-dir", "new", "--tracking.uri", "none"]) == 2
    said = capsys.readouterr().err
    assert f"theirs/model.json {REFUSED}, {PLANTED}, and it was not imported" in said
    assert not trace.exists()


def test_workers_and_trials_know_the_names_of_their_driver(run, tmp_path):
    allow(NET)
    task = TrainingTask(config=run.config(), spec=None, plan=None, run=run, shards=tmp_path)
    trials = Trials(space=None, folder=tmp_path, seeds=1, changes={}, cwd=tmp_path)
    for start in (lambda: work({"task": task}), lambda: run_trial({NUMBER: 0}, trials=trials)):
        with forgotten_afterwards():
            _named.clear()
            with pytest.raises((RuntimeError, AttributeError)):
                start()  # it comes no further than to the things that are None here
            assert set(carried()) == {NET}


@pytest.mark.parametrize("trained", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_sweep_takes_its_names_to_its_trials(trained, ray_cluster, run, tmp_path):
    changes = {name: value for name, value in TINY.items() if "network" not in name}
    changes |= {"steps": 2, "evaluation.samplers": ("one-step",), "evaluation.every": 2, "run_dir": ""}
    base = cm.override(run.config(), changes)
    space = Space(question="Which?", base=base, space={"distance": Categorical(["l2"])}, sampler="grid")
    options = {"out": tmp_path / "swept", "tracking_uri": "none", "scheduler": "none"}
    with pytest.raises(UserError, match=REFUSED):
        cm.cluster.sweep(space, **options)
    assert not (tmp_path / "swept" / "sweep.json").exists()
    if trained:
        done = cm.cluster.sweep(space, own_code=[NET, PIXELS], **options)
        assert "1 finished" in (done.root / "report.md").read_text()


def test_a_table_refuses_a_model_that_was_put_into_it(ray_cluster, tmp_path):
    changes = {**TINY, "cluster.threads": 1, "evaluation.samples": 9}
    table = Table(folder=tmp_path, data="digits", changes=changes, methods=("edm",), tracking_uri="none")
    config = cm.override(recipes_of(table)[Training("edm", 0)], {"tracking.uri": "none"})
    planted = RunDirectory(tmp_path / "edm")
    planted_model(planted.model, NET)
    planted.config_file.write_text(json.dumps(to_dict(config)))
    planted.result_file.write_text(json.dumps(result()))
    with pytest.raises(UserError, match=f"model.json {REFUSED}, {NET}"):
        make_table(table)

"""The search for time points on Ray: who samples, who dies, and interruptions change nothing of it."""

import csv
import dataclasses
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cm_ray.cluster import point_search
from cm_ray.cluster.generate import SamplerPool
from cm_ray.cluster.point_plan import TimePointSearch
from cm_ray.cluster.point_scores import Kept, resampled_means
from cm_ray.cluster.time_points import find_time_points
from cm_ray.config import (
    ActorsConfig,
    DataConfig,
    DiffusionConfig,
    EvaluationConfig,
    NetworkConfig,
    TrainConfig,
)
from cm_ray.core.times import karras_times
from cm_ray.errors import UserError
from cm_ray.files import read_json
from cm_ray.metrics.score import Score
from cm_ray.networks.model import Model, ModelSpec, load_model, sampling_of, save_model
from cm_ray.run_directory import RunDirectory
from cm_ray.search.openai_indices import read_ts
from cm_ray.tracking.registry import model_digest, register_model
from cm_ray.tracking.store import default_uri, open_client

ROOT = Path(__file__).parents[2]
ONE, TWO = ActorsConfig(count=1, cpus_each=0.5), ActorsConfig(count=2, cpus_each=0.5)


def make_run(folder, diffusion=None):
    """Make the run directory of a tiny model with random weights, of digits."""
    network = NetworkConfig(
        channels=8, channel_mult=(1,), blocks=1, norm_groups=4, head_channels=8, attention_resolutions=()
    )
    diffusion = diffusion or DiffusionConfig()
    run = RunDirectory(folder)
    run.root.mkdir(parents=True)
    run.claim(
        TrainConfig(
            network=network,
            diffusion=diffusion,
            data=DataConfig(path="digits"),
            evaluation=EvaluationConfig(extractor="digits"),
        )
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        spec = ModelSpec(network=network, diffusion=diffusion, shape=(1, 8, 8))
        model = Model(spec)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    save_model(run.model, spec, model.network.state_dict())
    return run


def search(run, name="search", **changes):
    settings = {
        "steps": 3,
        "grid": 10,
        "budget": 320,
        "first": 80,
        "batch_size": 40,
        "actors": TWO,
        "tracking_uri": "none",
        "run_dir": str(run.root.with_name(name)),
    }
    return TimePointSearch(model=str(run.root), **(settings | changes))


def result(directory):
    return read_json(directory.result_file)


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "tiny")


@pytest.fixture
def requests_made(monkeypatch):
    """Every request that is sampled, not remembered."""
    made, generate_all = [], SamplerPool.generate_all

    def counted(self, model, requests, wanted, progress=None):
        for place, gathered in generate_all(self, model, requests, wanted, progress):
            if "features" in wanted:
                made.append((requests[place].sampling.text, requests[place].first, requests[place].seed))
            yield place, gathered

    monkeypatch.setattr(SamplerPool, "generate_all", counted)
    return made


@pytest.mark.ray
def test_the_points_are_the_best_of_all_that_was_evaluated(ray_cluster, run, requests_made):
    found = find_time_points(search(run, spend="fixed", method="exhaustive", steps=2, sweeps=0))
    rows = result(found)["evaluated"]
    times = karras_times(10)
    assert [row["points"] for row in rows] == [[i] for i in range(1, 9)]
    assert all(row["taus"] == pytest.approx([float(times[row["points"][0]])]) for row in rows)
    best = min(rows, key=lambda row: row["value"])
    one, two = result(found)["chosen"]
    assert two["taus"] == best["taus"]
    assert read_ts(two["ts"], 10) == tuple(best["points"])
    assert one["taus"] == []
    assert Score.from_row(two["score"]).name == "FD-digits-320"
    assert two["score"]["key"]["seed"] == 3  # not the noise that it was chosen on
    assert two["score"]["error"] > 0
    assert two["karras_taus"] == list(sampling_of(load_model(run.model).spec, "multistep@2.52").taus)
    assert len(requests_made) == len(set(requests_made))

    table = (found.root / "time_points.md").read_text()
    assert f"`{two['ts']}`" in table
    with (found.root / "time_points.csv").open() as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [row["value"] for row in rows]
    assert (found.root / "time_points.png").stat().st_size > 10_000
    assert {path.name for path in found.samples.iterdir()} == {"1-evaluations.png", "2-evaluations.png"}
    assert not (found.root / "work").exists()


@pytest.mark.ray
@pytest.mark.parametrize("samples", [1000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_adaptive_searches_find_the_minimum_of_the_exhaustive_curve(ray_cluster, run, samples):
    two = {"steps": 2, "sweeps": 0, "update": False, "batch_size": 250}
    whole = find_time_points(
        search(run, "whole", spend="fixed", method="exhaustive", budget=samples, seed=100, **two)
    )
    curve = {row["points"][0]: row for row in result(whole)["evaluated"]}
    lowest = min(curve.values(), key=lambda row: row["value"])
    for spend in ("smooth", "raced"):
        found = result(find_time_points(search(run, spend, spend=spend, **two)))["placed"][0]
        regret = curve[found["best"]]["value"] - lowest["value"]
        assert regret <= lowest["error"]
        assert found["spent"] < found["fixed"]


@pytest.mark.ray
def test_the_model_samples_by_its_points_from_then_on(ray_cluster, run, capsys, monkeypatch):
    before = model_digest(run.model)
    found = find_time_points(search(run))
    taus = [tuple(one["taus"]) for one in result(found)["chosen"]]
    spec = load_model(run.model).spec
    assert spec.time_points == tuple(taus[1:])
    assert [sampling_of(spec, steps=k).taus for k in (1, 2, 3)] == taus
    assert model_digest(run.model) != before

    monkeypatch.chdir(run.root)
    for out, how in [
        ("a", ["--steps", "3"]),
        ("b", ["--ts", result(found)["chosen"][2]["ts"], "--steps", "10"]),
    ]:
        monkeypatch.setattr(sys, "argv", ["sample.py", str(run.root), "--samples", "4", "--out", out, *how])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "jobs" / "sample.py"), run_name="__main__")
        assert ended.value.code == 0
    a, b = (np.load(run.root / f"{out}.npz")["arr_0"] for out in "ab")
    assert np.array_equal(a, b)


@pytest.mark.ray
def test_one_actor_finds_what_two_find(ray_cluster, run):
    one = find_time_points(search(run, "one", actors=ONE, update=False))
    two = find_time_points(search(run, "two", update=False))
    assert result(one) == result(two)
    assert result(one)["samples"]["spent"] < result(one)["samples"]["fixed_size_ternary"]


@pytest.mark.ray
@pytest.mark.parametrize("spend", ["smooth", "raced"])
def test_an_interrupted_search_goes_on_and_repeats_nothing(
    ray_cluster, run, requests_made, monkeypatch, spend
):
    whole = find_time_points(search(run, "whole", spend=spend, update=False))
    wanted = set(requests_made)
    del requests_made[:]

    generate_all = SamplerPool.generate_all

    def interrupted(self, *arguments):
        for one in generate_all(self, *arguments):
            if len(requests_made) in (3, 6):
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patch:
        patch.setattr(SamplerPool, "generate_all", interrupted)
        with pytest.raises(KeyboardInterrupt):
            find_time_points(search(run, "parts", spend=spend, update=False))
        begun = len(requests_made)
    assert begun == 3
    parts = find_time_points(search(run, "parts", spend=spend, update=False))
    assert result(parts) == result(whole)
    repeated = len(requests_made) - len(set(requests_made))
    assert repeated <= 1  # the one under way
    assert set(requests_made) == wanted


@pytest.mark.ray
def test_an_actor_that_is_killed_changes_no_bit_of_the_answer(ray_cluster, run, monkeypatch):
    calm = find_time_points(search(run, "calm", update=False))
    pids, init, tell = [], SamplerPool.__init__, point_search.Search._measured

    def remember(self, *arguments):
        init(self, *arguments)
        pids.extend(
            ray_cluster.get([actor.__ray_call__.remote(lambda self: os.getpid()) for actor in self.actors])
        )

    def kill(self, measurement):
        if len(self.evaluated) == 4:
            os.kill(pids[0], signal.SIGKILL)
        tell(self, measurement)

    monkeypatch.setattr(SamplerPool, "__init__", remember)
    monkeypatch.setattr(point_search.Search, "_measured", kill)
    killed = find_time_points(search(run, "killed", update=False))
    assert len(pids) == 2
    assert result(killed) == result(calm)


@pytest.mark.ray
def test_a_registered_model_becomes_a_new_version(ray_cluster, run, tmp_path):
    uri = default_uri(tmp_path)
    client = open_client(uri)
    mlflow_run = client.create_run(
        client.create_experiment("x", artifact_location=str(tmp_path / "artifacts"))
    )
    register_model(client, "tiny", run.model, run_id=mlflow_run.info.run_id, score=None, lineage={})
    settings = dataclasses.replace(
        search(run, data="digits", extractor="digits", tracking_uri=uri, steps=2),
        model="models:/tiny@champion",
    )
    found = find_time_points(settings)
    champion = client.get_model_version_by_alias("tiny", "champion")
    assert champion.version in (2, "2")
    taus = result(found)["chosen"][1]["taus"]
    assert champion.tags["time_points"] == f"[[{taus[0]}]]"
    find_time_points(settings)  # again: nothing is searched, nothing registered twice
    assert len(client.search_model_versions("name = 'tiny'")) == 2

    told = client.search_runs([client.get_experiment_by_name("cm_ray").experiment_id])[0]
    assert told.info.status == "FINISHED"
    assert told.data.metrics["samples/spent"] == result(found)["samples"]["spent"]
    assert told.data.metrics["FD-digits-320/2-evaluations"] == result(found)["chosen"][1]["score"]["value"]
    assert {file.path for file in client.list_artifacts(told.info.run_id)} >= {
        "result.json",
        "time_points.png",
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"steps": 1}, "has no time points to search"),
        ({"first": 400}, "ends within its budget"),
        ({"data": "nowhere"}, "no data set and no path"),
        ({"extractor": "nothing"}, "no extractor 'nothing'"),
        ({"extractor": "cifar-resnet20", "weights": "/nowhere"}, "SHA-256"),
    ],
)
def test_settings_that_are_refused(run, changes, sentence, request):
    if changes.get("data"):
        request.getfixturevalue("ray_cluster")
    with pytest.raises(UserError, match=sentence):
        find_time_points(search(run, **changes))


def test_a_diffusion_model_has_no_time_points(tmp_path):
    run = make_run(tmp_path / "edm", DiffusionConfig(boundary="none"))
    with pytest.raises(UserError, match="is a diffusion model"):
        find_time_points(search(run))


@pytest.mark.ray
def test_searches_that_do_not_fit(ray_cluster, run, tmp_path):
    with pytest.raises(UserError, match="no room for 2 points"):
        find_time_points(search(run, grid=3))
    with pytest.raises(UserError, match=r"other settings \(grid\)"):
        find_time_points(search(run, grid=12))
    with pytest.raises(UserError, match="no data set and no path"):
        find_time_points(search(run, "other", data="nowhere"))


def test_samples_of_points_follow_each_other():
    a, b = Kept((3,), 0, 10, (Path("a"),)), Kept((3,), 10, 5, (Path("b"),))
    assert a + b == Kept((3,), 0, 15, (Path("a"), Path("b")))
    for wrong in (Kept((4,), 10, 5, ()), Kept((3,), 11, 5, ())):
        with pytest.raises(ValueError, match="do not follow"):
            a + wrong


def test_replicates_resample_the_same_samples_for_all():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500))
    difference = resampled_means(a) - resampled_means(b)
    np.testing.assert_allclose(difference, resampled_means(a - b), atol=1e-12)
    assert np.std(difference, ddof=1) == pytest.approx(np.std(a - b, ddof=1) / 500**0.5, rel=0.2)


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(run):
    """SIGKILL of the driver at any time, with a Ray of its own, until a call ends by itself."""
    calm = find_time_points(search(run, "calm", update=False))
    command = [sys.executable, str(ROOT / "jobs" / "time_points.py"), str(run.root), "--steps", "3"]
    command += ["--grid", "10", "--budget", "320", "--first", "80", "--batch-size", "40", "--no-update"]
    command += ["--tracking-uri", "none", "--run-dir", str(run.root.with_name("killed"))]
    command += ["--actors.count", "2", "--actors.cpus-each", "0.5"]
    for attempt in range(20):
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        try:
            code = process.wait(timeout=15 + 2 * attempt)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(1)
            continue
        assert code == 0
        break
    assert result(RunDirectory(run.root.with_name("killed"))) == result(calm)

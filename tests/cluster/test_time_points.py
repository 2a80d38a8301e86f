"""The search for time points on Ray: who samples, who dies, and interruptions change nothing of it."""

import contextlib
import csv
import dataclasses
import math
import os
import runpy
import signal
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from cm_ray.cluster.pool.cache import ResultCache
from cm_ray.cluster.pool.pool import SamplerPool
from cm_ray.cluster.pool.sizing import Actors
from cm_ray.cluster.time_points import find as module
from cm_ray.cluster.time_points import point_search
from cm_ray.cluster.time_points.find import find_time_points
from cm_ray.cluster.time_points.point_scores import OUTPUTS, PointSamples, resampled_means
from cm_ray.command_line.settings.time_points import TimePointSearch
from cm_ray.core.diffusion import Diffusion
from cm_ray.core.methods import ConsistencyTraining, Denoising
from cm_ray.core.precondition import Linear
from cm_ray.core.times import karras_times
from cm_ray.core.two_times import MeanFlow
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.requests import Request, sample_units
from cm_ray.errors import UserError
from cm_ray.metrics.estimate import infinitesimal_jackknife
from cm_ray.metrics.extractors.digits_classifier import load_digits_images
from cm_ray.metrics.extractors.registry import open_extractor
from cm_ray.metrics.frechet import FrechetReference, frechet_influence
from cm_ray.metrics.score import Score
from cm_ray.metrics.statistics import FeatureStatistics
from cm_ray.networks.architectures import ADM
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, ModelSpec, save_model
from cm_ray.recipes.measuring import ActorSettings
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import DataSettings, EvaluationSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Jumps
from cm_ray.sampling.text import text_of
from cm_ray.storage.files import read_json, write_json
from cm_ray.time_points.openai_indices import read_ts
from cm_ray.tracking.registry import Registration, model_digest, register_model
from cm_ray.tracking.store import default_uri, open_client
from tests.cluster import processes
from tests.tracking import tracked_runs
from tests.waiting import wait_for

ONE, TWO = ActorSettings(count=1, cpus_each=0.5), ActorSettings(count=2, cpus_each=0.5)


def make_run(folder, diffusion=None):
    """Make the run directory of a tiny model with random weights, of digits."""
    network = ADM(
        channels=8, channel_mult=(1,), blocks=1, norm_groups=4, head_channels=8, attention_resolutions=()
    )
    diffusion = diffusion or Diffusion()
    run = RunDirectory(folder)
    run.root.mkdir(parents=True)
    run.claim(
        Recipe(
            network=network,
            method=_method_of(diffusion),
            column=diffusion.column,
            data=DataSettings(path="digits"),
            evaluation=EvaluationSettings(extractor="digits", samplers=("own",)),
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


def _method_of(diffusion):
    if diffusion.two_times:
        return MeanFlow()
    return Denoising() if diffusion.denoiser else ConsistencyTraining()


def search(run, name="search", **changes):
    settings = {
        "nfe": 3,
        "boundaries": 10,
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


@pytest.fixture(scope="module")
def pool(ray_cluster):
    with SamplerPool(partial(open_extractor, "digits"), Actors(count=2, cpus=0.5)) as warm:
        yield warm


@pytest.fixture
def warm(pool, monkeypatch):
    """Let searches take actors that are there already: starting them takes seconds."""
    monkeypatch.setattr(point_search, "SamplerPool", lambda opener, actors: contextlib.nullcontext(pool))


@pytest.fixture
def requests_made(monkeypatch):
    """Every request that is sampled, not remembered."""
    made, generate_all = [], SamplerPool.generate_all

    def counted(self, model, requests, wanted, progress=None):
        for place, result in generate_all(self, model, requests, wanted, progress):
            if "features" in wanted:
                made.append((text_of(requests[place].sampler), requests[place].first, requests[place].seed))
            yield place, result

    monkeypatch.setattr(SamplerPool, "generate_all", counted)
    return made


@pytest.mark.ray
def test_the_points_are_the_best_of_all_that_was_evaluated(warm, run, requests_made):
    found = find_time_points(search(run, spend="fixed", method="exhaustive", nfe=2, passes=0))
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
    assert two["default_taus"] == list(sampler_of(load_model(run.model).spec, "multistep@2.52").taus)
    gap = two["over_default"]
    assert gap["mean"] == pytest.approx(two["score"]["value"] - two["default_value"])
    assert 0 < gap["error"] < 2 * two["score"]["error"]
    assert two["kept"] == (two["default_taus"] if gap["mean"] > 0 else two["taus"])
    assert (one["over_default"]["mean"], one["over_fewer"], one["kept"]) == (0, None, [])
    lowest = min(two["default_value"], two["score"]["value"])
    assert two["over_fewer"]["mean"] == pytest.approx(lowest - one["score"]["value"])
    assert len(requests_made) == len(set(requests_made))

    table = (found.root / "time_points.md").read_text()
    assert f"`{two['ts']}`" in table
    with (found.root / "time_points.csv").open() as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == [row["value"] for row in rows]
    assert (found.root / "time_points.png").stat().st_size > 10_000
    assert {path.name for path in found.samples.iterdir()} == {"1-evaluations.png", "2-evaluations.png"}
    assert not (found.root / "search-work").exists()


@pytest.mark.ray
def test_points_of_two_times_are_where_jumps_end(warm, tmp_path, requests_made):
    run = make_run(tmp_path / "jumping", Diffusion(column=Linear(), boundary="two-times"))
    found = find_time_points(search(run, spend="fixed", method="exhaustive", nfe=2, passes=0, budget=80))
    two = result(found)["chosen"][1]
    assert {text.split("@")[0] for text, _, _ in requests_made} == {"one-step", "jumps"}
    assert two["default_taus"] == [0.976]
    assert two["score"]["key"]["sampler"] == f"jumps@{two['taus'][0]!r}"
    assert sampler_of(load_model(run.model).spec, steps=2) == Jumps(taus=tuple(two["kept"]))


def exhaustive_curve(run, samples):
    """Every candidate's score, and each sample's influence on it, without Ray and without a search."""
    model, extractor = load_model(run.model), open_extractor("digits")
    reference = FrechetReference.of(FeatureStatistics.of(extractor.features(load_digits_images()[0])))
    times, curve = karras_times(10), {}
    for i in range(1, 9):
        sampler = sampler_of(model.spec, taus=(float(times[i]),))
        request = Request(count=samples, seed=100, sampler=sampler, unit=250)
        features = torch.cat([extractor.features(images) for images in sample_units(model, request)])
        curve[i] = frechet_influence(features, reference)
    return curve


@pytest.mark.ray
@pytest.mark.parametrize("samples", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_adaptive_searches_find_the_minimum_of_the_exhaustive_curve(warm, run, samples):
    curve = exhaustive_curve(run, samples)
    lowest, its_influence = min(curve.values(), key=lambda scored: scored[0])
    as_good = {
        i
        for i, (value, influence) in curve.items()
        if value - lowest <= 2 * (infinitesimal_jackknife(influence - its_influence) if value > lowest else 0)
    }
    assert len(as_good) < 3, "the curve tells candidates apart"
    for spend in ("smooth", "raced"):
        settings = search(run, spend, spend=spend, nfe=2, passes=0, update=False, batch_size=80)
        (placed,) = result(find_time_points(settings))["placed"]
        assert placed["best"] in as_good
        assert placed["spent"] < placed["fixed"]


@pytest.mark.ray
def test_the_model_samples_by_its_points_from_then_on(warm, run, capsys, monkeypatch):
    before = model_digest(run.model)
    found = find_time_points(search(run))
    taus = [tuple(one["kept"]) for one in result(found)["chosen"]]
    spec = load_model(run.model).spec
    assert spec.time_points == tuple(taus[1:])
    assert [sampler_of(spec, steps=k).taus for k in (1, 2, 3)] == taus
    assert model_digest(run.model) != before

    monkeypatch.chdir(run.root)
    for out, how in [
        ("a", ["--nfe", "3"]),
        ("b", ["--taus", *map(str, taus[2])]),
        ("c", ["--ts", result(found)["chosen"][2]["ts"], "--boundaries", "10"]),
    ]:
        monkeypatch.setattr(sys, "argv", ["sample.py", str(run.root), "--samples", "4", "--out", out, *how])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(processes.ROOT / "jobs" / "sample.py"), run_name="__main__")
        assert ended.value.code == 0
    a, b, c = (np.load(run.root / f"{out}.npz")["arr_0"] for out in "abc")
    assert np.array_equal(a, b)
    assert np.array_equal(a, c) == (taus[2] == tuple(result(found)["chosen"][2]["taus"]))


@pytest.mark.ray
def test_one_actor_finds_what_two_find(ray_cluster, run):
    one = find_time_points(search(run, "one", actors=ONE, update=False))
    two = find_time_points(search(run, "two", update=False))
    assert result(one) == result(two)
    assert result(one)["samples"]["spent"] < result(one)["samples"]["fixed_size_ternary"]


@pytest.mark.ray
@pytest.mark.parametrize("spend", ["smooth", "raced"])
def test_an_interrupted_search_goes_on_and_repeats_nothing(warm, run, requests_made, monkeypatch, spend):
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
    pids, init, tell = [], SamplerPool.__init__, point_search.Search._record_score

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
    monkeypatch.setattr(point_search.Search, "_record_score", kill)
    killed = find_time_points(search(run, "killed", update=False))
    assert len(pids) == 2
    assert result(killed) == result(calm)


@pytest.mark.ray
def test_a_registered_model_becomes_a_new_version(warm, run, tmp_path):
    uri = default_uri(tmp_path)
    client = open_client(uri)
    mlflow_run = client.create_run(
        client.create_experiment("x", artifact_location=str(tmp_path / "artifacts"))
    )
    register_model(client, Registration(name="tiny", model=run.model, run_id=mlflow_run.info.run_id))
    settings = dataclasses.replace(
        search(run, data="digits", extractor="digits", tracking_uri=uri, nfe=2),
        model="models:/tiny@champion",
    )
    found = find_time_points(settings)
    champion = client.get_model_version_by_alias("tiny", "champion")
    assert champion.version in (2, "2")
    taus = result(found)["chosen"][1]["kept"]
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
        ({"nfe": 1}, "has no time points to search"),
        ({"first": 400}, "must be 1 to its budget"),
        pytest.param({"data": "nowhere"}, "no data set and no path", marks=pytest.mark.ray),
        ({"extractor": "nothing"}, "no extractor 'nothing'"),
        ({"extractor": "cifar-resnet20", "weights": "/nowhere"}, "SHA-256"),
        ({"batch_size": -1}, "--batch-size must be at least 0, not -1"),
        ({"budget": 1}, "--budget must be at least 2, not 1"),
        ({"boundaries": -1}, "--boundaries must be at least 0, not -1"),
        ({"boundaries": 3}, "no room for 2 points between its ends; set boundaries to 4"),
        ({"passes": -1}, "--passes must be at least 0, not -1"),
        ({"seed": -2}, "--seed must be at least 0, not -2"),
        ({"probes": -1}, "--probes must be at least 0, not -1"),
        ({"first": 1}, "--first must be at least 2"),
        ({"tolerance": math.nan}, "--tolerance must be a number of 0 or more, not nan"),
        ({"tolerance": -0.1}, "--tolerance must be a number of 0 or more, not -0.1"),
        ({"zone": math.inf}, "--zone must be a number of 0 or more, not inf"),
        ({"tracking_uri": "mlflow.db"}, "'mlflow.db' is not the address of an MLflow store"),
    ],
)
def test_settings_that_are_refused(run, changes, sentence, request):
    if changes.get("data"):
        request.getfixturevalue("ray_cluster")
    with pytest.raises(UserError, match=sentence):
        find_time_points(search(run, **changes))
    left = run.root.with_name("search")
    assert {path.name for path in left.glob("*")} <= {".lock"}, "and the directory is anyone's"


def test_a_diffusion_model_has_no_time_points(tmp_path):
    run = make_run(tmp_path / "edm", Diffusion(boundary="none"))
    with pytest.raises(UserError, match="is a diffusion model"):
        find_time_points(search(run))


def test_samples_of_points_follow_each_other():
    a, b = PointSamples((3,), 0, 10, (Path("a"),)), PointSamples((3,), 10, 5, (Path("b"),))
    assert a + b == PointSamples((3,), 0, 15, (Path("a"), Path("b")))
    for wrong in (PointSamples((4,), 10, 5, ()), PointSamples((3,), 11, 5, ())):
        with pytest.raises(ValueError, match="do not follow"):
            a + wrong


def test_replicates_resample_the_same_samples_for_all():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 500))
    difference = resampled_means(a) - resampled_means(b)
    np.testing.assert_allclose(difference, resampled_means(a - b), atol=1e-12)
    assert np.std(difference, ddof=1) == pytest.approx(np.std(a - b, ddof=1) / 500**0.5, rel=0.2)


@pytest.fixture
def no_samples(monkeypatch):
    """Search nothing: tell the method's number of candidates at once, and finish, or stop there."""
    asked = []

    def stages(self, scores):
        name, probes = self.plan.settings.method, self.probes
        asked.append(probes)
        raise KeyboardInterrupt(f"{name} by {probes}")

    monkeypatch.setattr(point_search.Search, "_stages", stages)
    monkeypatch.setattr(point_search, "SamplerPool", lambda *_: contextlib.nullcontext(MagicMock()))
    monkeypatch.setattr(point_search, "reference_set", MagicMock())
    return asked


@pytest.mark.ray
def test_candidates_at_once_stay_what_they_were(ray_cluster, run, no_samples):
    sections = {"spend": "fixed", "method": "sections"}
    for name, changes in [("a", {}), ("a", {"actors": ONE}), ("b", {"actors": ONE}), ("c", {"probes": 5})]:
        with pytest.raises(KeyboardInterrupt):
            find_time_points(search(run, name, **sections, **changes))
    assert no_samples == [2, 2, 1, 5]
    with pytest.raises(UserError, match=r"other settings \(probes\)"):
        find_time_points(search(run, "c", **sections, probes=4))


@pytest.mark.ray
def test_a_finished_search_of_other_images_or_settings_is_not_shown(ray_cluster, run, tmp_path, monkeypatch):
    def conclude(self):
        write_json(self.run.result_file, {"samples": {}, "chosen": []})

    def save(seed):
        images = np.random.default_rng(seed).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / "images.npz", images)

    monkeypatch.setattr(point_search.Search, "conclude", conclude)
    settings = search(run, data=str(tmp_path / "images.npz"), update=False)
    for seed in (0, 0):  # the same images in a file that has changed
        save(seed)
        find_time_points(settings)
    save(1)
    with pytest.raises(UserError, match=r"images has other images than at the start of the search in"):
        find_time_points(settings)
    with pytest.raises(UserError, match=r"other settings \(boundaries\); repeat its settings to resume"):
        find_time_points(dataclasses.replace(settings, boundaries=12))


@pytest.mark.parametrize("owner", ["config.json", "source.json", "cells", "tracking.json", "result.json"])
def test_the_directory_of_another_job_is_left_alone(run, owner, monkeypatch):
    monkeypatch.setattr(module, "RunGroup", lambda *_, **__: pytest.fail("MLflow is told of it"))
    other = run.root.with_name("other")
    write_json(other / owner, {})
    with pytest.raises(UserError, match=r"other belongs to .*; choose another directory"):
        find_time_points(search(run, "other"))
    assert {path.name for path in other.iterdir()} == {owner, ".lock"}
    with pytest.raises(UserError, match="tiny belongs to a training run; choose"):
        find_time_points(search(run, run_dir=str(run.root)))
    assert not run.search_file.exists()


def test_a_search_knows_its_directory_and_training_refuses_it(run):
    searched = RunDirectory(run.root.with_name("searched"))
    write_json(searched.search_file, {})
    searched.check_owner(searched.search_file)
    run.check_same(run.config())
    with pytest.raises(UserError, match="searched belongs to a search for time points"):
        searched.claim(run.config())
    assert not searched.config_file.exists()


@pytest.mark.parametrize(
    ("given", "variable", "asked"),
    [
        ("none", "sqlite:////runs/mlflow.db", ""),
        ("", "sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
        ("http://here:1", "sqlite:////runs/mlflow.db", "http://here:1"),
        ("", "", ""),
    ],
)
def test_where_registered_models_are_looked_up(run, monkeypatch, given, variable, asked):
    def locate(name, uri):
        raise UserError(f"{name} at {uri!r}")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
    monkeypatch.setattr(module, "locate_model", locate)
    with pytest.raises(UserError, match=f"^models:/tiny/1 at '{asked}'$"):
        find_time_points(dataclasses.replace(search(run, tracking_uri=given), model="models:/tiny/1"))


def test_searches_of_different_models_go_into_different_directories(run, monkeypatch, tmp_path):
    def stop(self):
        raise UserError(f"into {self.root.name}")

    def locate(name, uri):
        return run.model

    monkeypatch.setattr(RunDirectory, "locked", stop)
    monkeypatch.setattr(module, "locate_model", locate)
    for model, name in [
        ("models:/A/3", "A-3"),
        ("models:/B/3", "B-3"),
        ("runs/demo.v2", "demo.v2"),
        (str(run.model), "tiny"),
    ]:
        with pytest.raises(UserError, match=f"^into time_points-{name}$"):
            find_time_points(dataclasses.replace(search(run, run_dir=""), model=model))


@pytest.mark.parametrize("registered", ["models:/tiny@champion", "as a run"])
def test_what_is_registered_is_left_alone_when_nothing_is_tracked(run, registered, monkeypatch, capsys):
    found = RunDirectory(run.root.with_name("search"))
    chosen = [
        {"taus": [], "kept": []},
        {"taus": [2.0], "kept": [2.5]},
        {"taus": [3.0, 1.0], "kept": [3.0, 1.0]},
    ]
    row = tracked_runs.score(1.0).to_row()
    chosen = [{"nfe": 1 + count, "score": row, **one} for count, one in enumerate(chosen)]
    write_json(found.result_file, {"samples": {}, "chosen": chosen})
    published = []
    monkeypatch.setattr(
        module, "publish_time_points", lambda *what, **how: published.append((what, how)) or MagicMock()
    )
    told = SimpleNamespace(version={"name": "tiny"}, run_id="abc", uri="sqlite:////theirs.db")
    monkeypatch.setattr(module, "registered_as", lambda folder: told)
    settings, target = search(run), run.model
    if registered != "as a run":
        settings, target = dataclasses.replace(settings, model=registered), found.model
    before = load_model(run.model).spec.time_points
    module._update(settings, run.model, found, "before", "")
    assert not published
    assert load_model(target).spec.time_points == ((2.5,), (3.0, 1.0)), "what is kept, not what was found"
    assert target == run.model or load_model(run.model).spec.time_points == before
    name = "tiny" if registered == "as a run" else registered
    said = capsys.readouterr().err
    assert f"tracking_uri is none: the registered model {name} was not changed; {target} has" in said
    module._update(dataclasses.replace(settings, tracking_uri=told.uri), run.model, found, "before", "")
    ((what, how),) = published
    assert what == (target, name)
    assert how["tracking_uri"] == told.uri


def test_what_other_devices_made_is_not_remembered(run, tmp_path):
    request = Request(count=9, seed=0, sampler=sampler_of(load_model(run.model).spec))
    model, extractor = MagicMock(digest="d"), open_extractor("digits")
    files = {
        ResultCache(SimpleNamespace(kind=kind), model, extractor, OUTPUTS, tmp_path).file(request)
        for kind in ("cpu-1", "cpu-2", "cuda-1", "cpu-1")
    }
    assert len(files) == 3


@pytest.mark.slow
def test_a_search_that_is_killed_goes_on(run):
    """SIGKILL of the driver, with a Ray of its own, whenever it has remembered more; then to the end."""
    calm = find_time_points(search(run, "calm", update=False))
    folder = run.root.with_name("killed")
    options = [
        "--nfe",
        3,
        "--boundaries",
        10,
        "--budget",
        320,
        "--first",
        80,
        "--batch-size",
        40,
        "--no-update",
    ]
    options += ["--tracking-uri", "none", "--actors.count", 2, "--actors.cpus-each", 0.5]
    command = processes.job("time_points.py", run.root, *options, "--run-dir", folder)

    def remembered():
        return len(list(folder.rglob("*.safetensors")))

    for _ in range(3):
        more = remembered() + 1
        with processes.started(command) as process:
            wait_for(lambda more=more: remembered() >= more, f"{more} parts of the search", process)
            family = processes.descendants(process.pid)
            process.kill()
            process.wait()
            processes.reap(family)
    processes.run(command)
    assert result(RunDirectory(folder)) == result(calm)

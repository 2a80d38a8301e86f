"""Registered models: versions, the champion, loading, serving and fetching."""

import json
import urllib.error
import urllib.request
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tracked_runs import score, tiny_model, tiny_spec

from cm_ray.core.diffusion import Diffusion
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import Model, to_uint8
from cm_ray.recipes.recipe import Recipe
from cm_ray.runs.directory import RunDirectory
from cm_ray.sampling.samplers import Heun
from cm_ray.settings.tree import override
from cm_ray.tracking.fetch import fetch_model
from cm_ray.tracking.registry import save_pyfunc
from cm_ray.tracking.store import open_client
from cm_ray.tracking.tracker import open_tracker
from cm_ray.training.starting_models import prepare_teachers, read_teacher
from tests.waiting import LIMIT_S


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def register(run, its_score):
    return open_tracker(run.config(), run, strict=True).register(its_score)


def champion(tmp_path):
    client = open_client(f"sqlite:///{tmp_path}/runs/mlflow.db")
    return client.get_model_version_by_alias("tiny", "champion")


def expected(model, indices, sampler="", **settings):
    images = model.sample(torch.tensor(indices), sampler=sampler_of(model.spec, sampler), **settings)
    return to_uint8(images).permute(0, 2, 3, 1).numpy()


def test_the_alias_moves_to_the_best_of_one_key_only(make_run, tmp_path):
    steps = [
        ("first", score(5.0), True, "it is the first"),
        ("worse", score(6.0), False, "no better, FD-digits-1797/one-step is 6 against 5"),
        ("equal", score(5.0), False, "no better"),
        ("other", score(1.0, seed=1), False, r"do not compare (seed is 1 and 0)"),
        ("none", None, False, "version 5 has no score"),
        ("better", score(4.0), True, "is the new champion: FD-digits-1797/one-step is 4 against 5"),
    ]
    for version, (name, its_score, wins, reason) in enumerate(steps, start=1):
        registered = register(make_run(name, rows=1), its_score)
        assert (registered.version, registered.champion) == (str(version), wins)
        assert reason in registered.reason
    assert str(champion(tmp_path).version) == "6"


def test_a_version_says_where_it_comes_from(make_run, tmp_path):
    run = make_run(rows=1)
    register(run, score(5.0, sampler="multistep@0.8", nfe=2))
    version = champion(tmp_path)
    assert version.run_id == json.loads(run.tracking_file.read_text())["run_id"]
    assert version.tags["score.name"] == "FD-digits-1797/multistep@0.8"
    assert version.tags["score.value"] == "5"
    assert json.loads(version.tags["score"])["key"]["sampler"] == "multistep@0.8"
    assert version.tags["data.fingerprint"] == "abc"


def test_registering_twice_makes_one_version(make_run, tmp_path):
    run = make_run(rows=1)
    first = register(run, score(5.0))
    assert register(run, score(5.0)) == first
    state = json.loads(run.tracking_file.read_text())
    run.tracking_file.write_text(json.dumps({**state, "version": {}}))  # killed before it was remembered
    again = register(run, score(5.0))
    assert (again.version, again.champion) == ("1", True)
    assert len(open_client(state["uri"]).search_model_versions("name = 'tiny'")) == 1


def test_a_run_without_a_model_is_refused(make_run):
    run = make_run(rows=1)
    (run.model / "model.json").unlink()
    with pytest.raises(UserError, match="has no model to register"):
        register(run, None)


def test_a_fetched_model_is_the_registered_one(make_run, tmp_path):
    run = make_run(rows=1)
    register(run, None)
    folder = fetch_model("models:/tiny@champion")  # the default store is that beside the default runs
    assert folder == fetch_model("models:/tiny/1", f"sqlite:///{tmp_path}/runs/mlflow.db")
    assert folder.is_relative_to(tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]
    one_step = sampler_of(tiny_model().spec)
    indices = torch.arange(3)
    assert torch.equal(
        load_model(folder).sample(indices, seed=1, sampler=one_step),
        tiny_model().sample(indices, seed=1, sampler=one_step),
    )
    (folder / "weights.safetensors").write_bytes(b"spoilt")
    assert torch.equal(
        load_model(fetch_model("models:/tiny/1")).sample(indices, seed=1, sampler=one_step),
        tiny_model().sample(indices, seed=1, sampler=one_step),
    )


def test_what_cannot_be_fetched_is_said(make_run, tmp_path):
    with pytest.raises(UserError, match=r"There is no MLflow store at .*mlflow\.db"):
        fetch_model("models:/tiny/1")
    assert not (tmp_path / "runs").exists()  # MLflow would have made a store
    register(make_run(rows=1), None)
    for missing in ("models:/tiny@best", "models:/tiny/7", "models:/nobody@champion", "models:/nobody/1"):
        with pytest.raises(UserError, match=f"has no model {missing}"):
            fetch_model(missing)
    for malformed in ("tiny", "models:/tiny", "runs:/tiny/1", "models:/tiny/latest"):
        with pytest.raises(UserError, match="give models:/NAME@champion"):
            fetch_model(malformed)
    for weights in (tmp_path / "runs" / "mlartifacts").rglob("weights.safetensors"):
        weights.write_bytes(b"other")
    with pytest.raises(UserError, match="other content than was registered"):
        fetch_model("models:/tiny/1")


def test_a_registered_model_can_be_a_teacher(make_run, tmp_path):
    diffusion = Diffusion(boundary="none")
    denoiser = Model(replace(tiny_spec(), diffusion=diffusion, sampler=Heun(steps=18), time_points=()))
    register(make_run(rows=1, model=denoiser), None)
    for uri in ("", "none", f"sqlite:///{tmp_path}/runs/mlflow.db"):
        settings = {"teacher.model": "models:/tiny@champion", "tracking.uri": uri, "method": "cd"}
        config = override(Recipe(network=tiny_spec().network), settings)
        run = RunDirectory(tmp_path / f"student-{len(uri)}")
        prepare_teachers(config, tiny_spec(), run)
        for name, weights in read_teacher(config, run).network.state_dict().items():
            assert torch.equal(weights, denoiser.network.state_dict()[name])


@pytest.fixture
def pyfunc(tmp_path):
    """Return a function that saves a model as MLflow keeps it, and loads it."""
    import mlflow

    from cm_ray.networks.model import save_model

    def load(model):
        save_model(tmp_path / "plain", model.spec, model.network.state_dict())
        save_pyfunc(tmp_path / "plain", tmp_path / "saved")
        return mlflow.pyfunc.load_model(str(tmp_path / "saved"))

    return load


def test_pyfunc_samples_are_the_models_bit_for_bit(pyfunc, tmp_path):
    loaded, model = pyfunc(tiny_model()), tiny_model()
    table = pd.DataFrame({"index": [0, 7, 2**31]})
    one, two = loaded.predict(table), loaded.predict(table, params={"seed": 3, "steps": 2})
    assert (one.shape, one.dtype) == ((3, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(one, expected(model, [0, 7, 2**31], seed=0))
    np.testing.assert_array_equal(two, expected(model, [0, 7, 2**31], seed=3, sampler="multistep@0.8"))
    assert len(loaded.predict(pd.DataFrame({"index": np.array([], dtype=np.int64)}))) == 0
    pickles = [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".pkl", ".pickle", ".pt")]
    assert pickles == []


def test_pyfunc_labels_are_given_or_drawn(pyfunc):
    loaded, model = pyfunc(tiny_model(conditional=True)), tiny_model(conditional=True)
    table = pd.DataFrame({"index": [0, 1, 2]})
    drawn, given = loaded.predict(table), loaded.predict(table, params={"label": "c"})
    np.testing.assert_array_equal(drawn, expected(model, [0, 1, 2], seed=0))
    np.testing.assert_array_equal(given, expected(model, [0, 1, 2], seed=0, labels=torch.full((3,), 2)))
    assert (drawn != given).any()
    each = loaded.predict(table.assign(label=["c", "a", ""]))
    own = model.sample_labels(torch.arange(3), 0)[2]
    np.testing.assert_array_equal(each, expected(model, [0, 1, 2], seed=0, labels=torch.tensor([2, 0, own])))
    numbered = loaded.predict(table.assign(label=["2", "2", "2"]))
    np.testing.assert_array_equal(numbered, given)
    with pytest.raises(UserError, match=r"no class 'C': did you mean 'c'\?"):
        loaded.predict(table, params={"label": "C"})


@pytest.mark.parametrize(
    ("index", "params", "sentence"),
    [
        (0, {"steps": 1001}, "steps must be 0 to 1000, not 1001"),
        (0, {"steps": -1}, "steps must be 0 to 1000, not -1"),
        (0, {"seed": -1}, "seed must be at least 0"),
        (0, {"label": "a"}, "trained without classes; leave label out"),
        (-1, {}, "index must be in"),
        (2**32, {}, "index must be in"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(pyfunc, index, params, sentence):
    with pytest.raises(UserError, match=sentence):
        pyfunc(tiny_model()).predict(pd.DataFrame({"index": [index]}), params=params)


def test_a_champion_is_served_over_http(served_champion):
    folder, address = served_champion

    def ask(params):
        body = {"dataframe_split": {"columns": ["index"], "data": [[0], [5]]}, "params": params}
        request = urllib.request.Request(
            f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.load(response)

    answer = np.array(ask({"seed": 3, "steps": 2})["predictions"], dtype=np.uint8)
    np.testing.assert_array_equal(answer, expected(tiny_model(), [0, 5], seed=3, sampler="multistep@0.8"))
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask({"steps": 1001})
    assert refused.value.code == 400
    said = json.load(refused.value)
    assert "steps must be 0 to 1000, not 1001." in said["message"]
    assert "stack_trace" not in said
    assert not list(folder.glob("mlruns"))

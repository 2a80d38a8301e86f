"""New time points of a registered model: a version of its own, found again, champion where its source was."""

import json
from dataclasses import replace

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from tracked_runs import free_port, score, tiny_model

from cm_ray.core.precondition import EDM
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import save_model, to_uint8
from cm_ray.sampling.samplers import Multistep
from cm_ray.storage.files import write_json
from cm_ray.tracking.fetch import fetch_model
from cm_ray.tracking.publish_time_points import publish_time_points
from cm_ray.tracking.registry import CONTENT_TAG, model_digest
from cm_ray.tracking.store import open_client
from cm_ray.tracking.tracker import open_tracker, resend
from tests.results import result

POINTS = ((1.5,), (9.0, 0.7))


@pytest.fixture(autouse=True)
def own_runs(tmp_path, monkeypatch):
    """The default store is the one of these runs."""
    monkeypatch.setenv("CM_RAY_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def searched(tmp_path):
    """Return a function that writes a model with other time points, as a search leaves it."""

    def write(points=POINTS, name="searched", seed=0, **changes):
        model = tiny_model(seed)
        spec = replace(model.spec, time_points=points, **changes)
        save_model(tmp_path / name, spec, model.network.state_dict())
        return tmp_path / name

    return write


def register(run, its_score=None):
    return open_tracker(run.config(), run, strict=True).register(its_score)


def store(tmp_path):
    return open_client(f"sqlite:///{tmp_path}/runs/mlflow.db")


def version(tmp_path, number):
    return store(tmp_path).get_model_version("tiny", number)


def count(tmp_path):
    return len(store(tmp_path).search_model_versions("name = 'tiny'"))


def champion(tmp_path):
    return str(store(tmp_path).get_model_version_by_alias("tiny", "champion").version)


def test_the_champion_hands_over_with_all_that_is_known_of_it(make_run, searched, tmp_path):
    register(make_run(rows=1), score(5.0))
    old, folder = version(tmp_path, "1"), searched()
    published = publish_time_points(folder, "models:/tiny@champion", tags={"time_points.run": "abc", "n": 3})
    assert (published.uri, published.champion) == ("models:/tiny/2", True)
    assert published.reason == ("tiny version 2 is the new champion: it is version 1 with new time points.")
    assert champion(tmp_path) == "2"
    new = version(tmp_path, "2")
    assert new.run_id == old.run_id
    assert json.loads(new.tags["time_points"]) == [[1.5], [9.0, 0.7]]
    assert new.tags[CONTENT_TAG] == model_digest(folder) != old.tags[CONTENT_TAG]
    added = {"time_points", "time_points.of", "time_points.run", "n", CONTENT_TAG}
    assert {name: value for name, value in new.tags.items() if name not in added} == {
        name: value for name, value in old.tags.items() if name != CONTENT_TAG
    }
    assert [new.tags[name] for name in ("time_points.of", "time_points.run", "n")] == ["1", "abc", "3"]
    assert new.tags["score"]
    assert version(tmp_path, "1").tags == old.tags


def test_what_is_fetched_and_served_has_the_new_time_points(make_run, searched, tmp_path, monkeypatch):
    register(make_run(rows=1))
    publish_time_points(searched(), "models:/tiny/1")
    fetched = load_model(fetch_model("models:/tiny@champion"))
    assert fetched.spec.time_points == POINTS
    assert load_model(fetch_model("models:/tiny/1")).spec.time_points == ((0.8,),)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs/mlflow.db")
    loaded = mlflow.pyfunc.load_model("models:/tiny@champion")
    table, indices = pd.DataFrame({"index": [0, 7]}), torch.tensor([0, 7])
    for steps, text in ((2, "multistep@1.5"), (3, "multistep@9.0,0.7"), (0, "one-step")):
        images = tiny_model().sample(indices, seed=3, sampler=sampler_of(fetched.spec, text))
        wanted = to_uint8(images).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(loaded.predict(table, params={"seed": 3, "steps": steps}), wanted)


def test_publishing_again_finds_the_version(make_run, searched, tmp_path):
    run = make_run(rows=1)
    before = model_digest(run.model)
    register(run, score(5.0))
    first = publish_time_points(searched(), "models:/tiny@champion")
    told = replace(first, reason="tiny version 2 is the champion already.")
    for source in ("models:/tiny@champion", "models:/tiny/1", "models:/tiny/2", "tiny"):
        assert publish_time_points(searched(), source, before=before) == told
    assert count(tmp_path) == 2
    assert version(tmp_path, "2").tags["time_points.of"] == "1"


def test_a_kill_before_the_alias_moved_is_made_good(make_run, searched, tmp_path):
    register(make_run(rows=1))
    publish_time_points(searched(), "models:/tiny/1")
    store(tmp_path).set_registered_model_alias("tiny", "champion", "1")
    assert publish_time_points(searched(), "models:/tiny@champion").champion
    assert (champion(tmp_path), count(tmp_path)) == ("2", 2)


def test_another_champion_stays(make_run, searched, tmp_path):
    register(make_run("one", rows=1), score(5.0))
    register(make_run("two", rows=1, model=tiny_model(1)), score(4.0))
    published = publish_time_points(searched(), "models:/tiny/1")
    assert (published.version, published.champion) == ("3", False)
    assert published.reason == ("tiny version 2 stays champion: version 3 is version 1 with new time points.")
    assert publish_time_points(searched(), "models:/tiny/3").reason == (
        "tiny version 2 stays champion: version 3 has these time points already."
    )
    store(tmp_path).delete_registered_model_alias("tiny", "champion")
    assert publish_time_points(searched(), "models:/tiny/1").reason.startswith("tiny has no champion: ")
    assert count(tmp_path) == 3


def test_a_second_search_goes_on_from_the_first(make_run, searched, tmp_path):
    register(make_run(rows=1), score(5.0))
    publish_time_points(searched(), "models:/tiny/1", tags={"time_points.run": "first", "note": "kept"})
    again = publish_time_points(searched(((2.5,),), "again"), "models:/tiny@champion")
    assert (again.version, again.champion) == ("3", True)
    tags = version(tmp_path, "3").tags
    assert (tags["time_points"], tags["time_points.of"], tags["note"]) == ("[[2.5]]", "2", "kept")
    assert "time_points.run" not in tags
    back = publish_time_points(searched(((0.8,),), "back"), "models:/tiny@champion")
    assert (back.version, back.champion) == ("1", True)
    assert "time_points.of" not in version(tmp_path, "1").tags


def test_a_run_that_was_trained_is_found_by_what_it_was(make_run, searched, tmp_path):
    one, two = make_run("one", rows=1), make_run("two", rows=1)
    for run in (one, two):
        register(run, score(5.0))  # to the bit the same model
    run_id = json.loads(two.tracking_file.read_text())["run_id"]
    before = model_digest(one.model)
    of_two = publish_time_points(searched(), "tiny", before=before, run_id=run_id)
    of_any = publish_time_points(searched(), "tiny", before=before)
    assert [(found.version, found.champion) for found in (of_two, of_any)] == [("3", False), ("4", True)]
    assert [version(tmp_path, number).tags["time_points.of"] for number in ("3", "4")] == ["2", "1"]
    assert publish_time_points(searched(), "tiny", before=before, run_id=run_id).version == "3"
    assert publish_time_points(searched(), "tiny", before=before).version == "4"


@pytest.mark.parametrize("remembered", [True, False])
def test_the_run_repeated_afterwards_leaves_all_as_it_is(make_run, searched, tmp_path, remembered):
    run = make_run(rows=1)
    write_json(run.result_file, result(score(5.0).to_row()))
    resend(run)
    before = model_digest(run.model)
    searched(name=f"runs/{run.root.name}/model")  # model.json is written anew in place
    publish_time_points(run.model, "tiny", before=before)
    if not remembered:
        told = json.loads(run.tracking_file.read_text())
        write_json(run.tracking_file, {**told, "version": {}})
    again = resend(run)
    assert (again.version, again.champion) == ("2", True)
    assert again.reason == "tiny version 2 is the champion already."
    register(make_run("better", rows=1, model=tiny_model(1)), score(4.0))
    assert resend(run).version == "2"
    assert (champion(tmp_path), count(tmp_path)) == ("3", 3)


@pytest.mark.parametrize("remembered", [True, False])
def test_the_run_with_its_old_folder_does_not_take_the_alias_back(make_run, searched, tmp_path, remembered):
    run = make_run(rows=1)
    register(run, score(5.0))
    publish_time_points(searched(), "models:/tiny@champion")
    if not remembered:
        told = json.loads(run.tracking_file.read_text())
        write_json(run.tracking_file, {**told, "version": {}})
    assert register(run, score(5.0)).version == "1"
    assert (champion(tmp_path), count(tmp_path)) == ("2", 2)


def test_a_run_repeated_before_its_points_are_published(make_run, searched, tmp_path):
    run = make_run(rows=1)
    register(run, score(5.0))
    before = model_digest(run.model)
    searched(name=f"runs/{run.root.name}/model")
    assert not register(run, score(5.0)).champion  # the same score, so the first stays
    published = publish_time_points(run.model, "tiny", before=before, tags={"time_points.run": "abc"})
    assert (published.version, published.champion, count(tmp_path)) == ("2", True, 2)
    tags = version(tmp_path, "2").tags
    assert (tags["time_points.of"], tags["time_points.run"]) == ("1", "abc")
    assert json.loads(tags["time_points"]) == [[1.5], [9.0, 0.7]]


def test_the_sampler_may_change_but_the_network_may_not(make_run, searched, tmp_path):
    register(make_run(rows=1))
    other = tiny_model().spec.diffusion
    for odd in (
        searched(name="weights", seed=1),
        searched(name="spec", diffusion=replace(other, column=EDM(sigma_data=0.7))),
    ):
        with pytest.raises(UserError, match=r"another network than models:/tiny/1; give the version that"):
            publish_time_points(odd, "models:/tiny@champion")
    assert count(tmp_path) == 1
    assert publish_time_points(searched(sampler=Multistep((2.0,))), "models:/tiny/1").version == "2"


def test_what_cannot_be_published_is_said(make_run, searched, tmp_path):
    folder = searched()
    with pytest.raises(UserError, match=r"There is no MLflow store at .*mlflow\.db"):
        publish_time_points(folder, "models:/tiny/1")
    assert not (tmp_path / "runs").exists()
    register(make_run(rows=1))
    store(tmp_path).create_registered_model("other")
    store(tmp_path).create_model_version("other", "/nowhere")
    cases = [
        (folder, "models:/tiny@best", "", "has no model models:/tiny@best; look at its Models page"),
        (folder, "models:/tiny/7", "", "has no model models:/tiny/7"),
        (folder, "models:/nobody/1", "", "has no model models:/nobody/1"),
        (folder, "models:/other/1", "", "models:/other/1 was not registered by cm_ray; give"),
        (folder, "tiny", "", "'tiny' is not the address of a model; give models:/NAME@champion"),
        (folder, "models:/tiny", "x", "'models:/tiny' is not the address of a model"),
        (folder, "tiny", "x", "has no version of 'tiny' with the model before the search; register"),
        (folder, "nobody", "x", "has no version of 'nobody'"),
        (folder, "a'b", "x", "may contain only letters, digits"),
        (searched((), "none"), "models:/tiny/1", "", "has no time points in its model.json; search"),
        (tmp_path, "models:/tiny/1", "", "has no model to register"),
    ]
    for model, source, before, sentence in cases:
        with pytest.raises(UserError, match=sentence) as raised:
            publish_time_points(model, source, before=before)
        assert "\n" not in str(raised.value)
    assert (champion(tmp_path), count(tmp_path)) == ("1", 1)


def test_a_store_that_is_away_is_said(searched):
    uri = f"http://127.0.0.1:{free_port()}"
    for source, before in (("models:/tiny/1", ""), ("tiny", "x")):
        with pytest.raises(UserError, match=f"at {uri} .it does not answer.; try again later"):
            publish_time_points(searched(), source, before=before, tracking_uri=uri)

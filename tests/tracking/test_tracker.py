"""The tracker against a local store and a real server that is away at first."""

import json
import math
import os
from pathlib import Path

import pytest
from tracked_runs import free_port, log, score, with_tracking

from cm_ray.errors import UserError
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import TrackingSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.settings.tree import flatten, override
from cm_ray.storage.files import write_json
from cm_ray.tracking.fetch import fetch_model
from cm_ray.tracking.mlflow_tracker import MlflowTracker
from cm_ray.tracking.sent_state import SentState
from cm_ray.tracking.store import open_client
from cm_ray.tracking.tracker import NullTracker, open_tracker, resend
from tests.results import result


def told(run):
    return json.loads(run.tracking_file.read_text())


def history(run, name):
    """(step, value) of a metric on the server, in order of steps; repetitions show."""
    state = told(run)
    found = open_client(state["uri"]).get_metric_history(state["run_id"], name)
    return sorted((metric.step, metric.value) for metric in found)


def expected(steps):
    return [(step, 1 / (step + 1)) for step in range(steps)]


def tracked(run):
    return open_tracker(run.config(), run, strict=True)


def only_run(run, experiment="cm_ray"):
    client = open_client(told(run)["uri"])
    (found,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, found


def test_everything_of_a_run_is_told(make_run, tmp_path, capsys):
    run = make_run()
    (tmp_path / "runs" / "mlflow.db").unlink()  # from nothing
    before = dict(os.environ)
    tracker = tracked(run)
    tracker.sync()
    log(run, 5, scores=[score(7.5).to_row(), score(3.5, sampler="multistep@0.8", nfe=2).to_row()])
    write_json(run.result_file, result())
    tracker.finish("FINISHED")
    client, found = only_run(run)
    assert (found.info.run_name, found.info.status) == ("one", "FINISHED")
    assert found.data.params == {path: str(value) for path, value in flatten(run.config()).items()}
    assert found.data.tags["data.fingerprint"] == "abc"
    assert history(run, "loss") == expected(6)
    assert history(run, "FD-digits-1797/one-step") == [(5, 7.5)]
    assert history(run, "FD-digits-1797/multistep_0.8") == [(5, 3.5)]
    names = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert names == {"config.json", "images", "lineage.json", "result.json"}
    assert Path(found.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "runs")
    assert {path.name for path in tmp_path.iterdir()} <= {"runs", "cache"}
    assert capsys.readouterr() == ("", "")
    assert dict(os.environ) == before


def test_paths_that_are_not_utf_8(make_run):
    run = make_run()
    path = "/data/caf\udce9"
    run.claim(override(run.config(), {"data.path": path}))
    write_json(run.lineage_file, {"data.fingerprint": "a", "command": f"cm-ray train --data {path}"})
    tracked(run).sync()
    _, found = only_run(run)
    assert found.data.params["data.path"] == r"/data/caf\xe9"
    assert found.data.tags["mlflow.source.name"] == r"cm-ray train --data /data/caf\xe9"


def test_a_resumed_run_goes_on_in_the_same_mlflow_run(make_run):
    run = make_run()
    tracked(run).sync()
    run.forget_metrics_after(2)  # killed after step 4, resumed from the checkpoint of step 2
    for step in range(3, 8):
        log(run, step)
    tracker = tracked(run)
    tracker.sync()
    assert only_run(run)[1].info.status == "RUNNING"
    tracker.finish("FAILED")
    assert only_run(run)[1].info.status == "FAILED"
    assert history(run, "loss") == expected(8)


def test_rows_of_one_step_may_arrive_apart(make_run):
    run = make_run(rows=3)
    tracker = tracked(run)
    tracker.sync()
    run.append_metrics({"step": 2, "seconds": 9.0, "scores": [score(1.0).to_row()]})
    tracker.sync()
    assert history(run, "loss") == expected(3)
    assert history(run, "seconds") == [(0, 0), (1, 0.25), (2, 0.5)]
    assert history(run, "FD-digits-1797/one-step") == [(2, 1.0)]


def test_a_kill_between_telling_and_remembering_repeats_nothing(make_run):
    run = make_run(rows=1500)
    before = SentState.fresh(f"sqlite:///{run.root.parent}/mlflow.db")
    before.write(run.tracking_file)
    tracked(run).sync()
    before.started_ms = told(run)["started_ms"]
    before.write(run.tracking_file)  # made on the server, not remembered here
    tracked(run).sync()
    only_run(run)
    assert history(run, "loss") == expected(1500)


def test_a_run_that_was_deleted_there_is_told_anew(make_run):
    run = make_run()
    tracked(run).sync()
    first = told(run)["run_id"]
    open_client(told(run)["uri"]).delete_run(first)
    tracked(run).sync()
    assert told(run)["run_id"] != first
    assert history(run, "loss") == expected(5)


def test_numbers_that_are_not_finite_and_values_that_are_no_numbers(make_run):
    run = make_run(rows=0)
    run.append_metrics({"step": 0, "loss": float("nan"), "note": "text", "flag": True, "odd (name)": 1})
    run.append_metrics({"step": 1, "loss": float("inf"), "time": 1e9})
    tracked(run).sync()
    (_, not_a_number), (_, infinite) = history(run, "loss")
    assert math.isnan(not_a_number)
    assert infinite > 1e300
    assert history(run, "odd _name_") == [(0, 1.0)]
    assert set(only_run(run)[1].data.metrics) == {"loss", "odd _name_"}


def test_a_server_that_is_away_never_hurts_and_is_told_later(
    make_run, start_server, tmp_path, capsys, monkeypatch
):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    run = make_run(uri=uri)
    tracker = open_tracker(run.config(), run)
    asked, client = [], tracker.remote.client
    monkeypatch.setattr(tracker.remote, "client", lambda: asked.append(1) or client())
    monkeypatch.setattr(tracker.remote, "due", lambda: not asked)  # less than 5 s pass
    for step in range(5, 20):
        tracker.sync()
        log(run, step, extra=float("nan"))
    assert len(asked) == 1
    tracker.finish("FINISHED")
    assert tracker.register(score(2.0)) is None
    assert len(asked) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"at {uri} (it does not answer); training goes on" in said.err
    assert f"cm-ray track {run.root}" in said.err
    with pytest.raises(UserError, match=f"Could not send .* to {uri}"):
        resend(run)
    with pytest.raises(UserError, match="Could not fetch"):
        fetch_model("models:/tiny@champion", uri)

    store = f"sqlite:///{tmp_path}/server.db"
    folders = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "kept")]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    start_server("server", *folders, *options, url=f"{uri}/health")
    write_json(run.result_file, result(score(2.0).to_row()))
    registered = resend(run)
    assert (registered.uri, registered.champion) == ("models:/tiny/1", True)
    assert resend(run).uri == "models:/tiny/1"
    _, found = only_run(run)
    assert found.info.status == "FINISHED"
    assert history(run, "loss") == expected(20)
    assert len(history(run, "extra")) == 15
    folder = fetch_model("models:/tiny@champion", uri)
    assert (folder / "weights.safetensors").read_bytes() == (run.model / "weights.safetensors").read_bytes()
    with pytest.raises(UserError, match="has no model models:/tiny@other"):
        fetch_model("models:/tiny@other", uri)


def test_attempts_wait_longer_and_longer(make_run, monkeypatch):
    run = make_run(uri=f"http://127.0.0.1:{free_port()}")
    tracker = open_tracker(run.config(), run)
    assert isinstance(tracker, MlflowTracker)
    clock, attempts = [1000.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr(tracker, "_send_all", lambda: attempts.append(clock[0]) or 1 / 0)
    for _ in range(700):
        tracker.sync()
        clock[0] += 1
    assert [attempt - 1000 for attempt in attempts] == [0, 5, 15, 35, 75, 155, 315, 615]


def test_each_outage_is_said_once(make_run, monkeypatch, capsys):
    run = make_run(rows=1)
    tracker = open_tracker(run.config(), run)
    for _ in range(2):
        with monkeypatch.context() as outage:
            outage.setattr(tracker, "_send_all", lambda: 1 / 0)
            tracker.finish("FAILED")
            tracker.finish("FAILED")
        assert capsys.readouterr().err.count("Could not reach MLflow") == 1
        tracker.finish("FAILED")
    assert history(run, "loss") == expected(1)


def test_resend_of_a_run_that_did_not_finish(make_run):
    run = make_run()
    assert resend(run) is None
    assert only_run(run)[1].info.status == "FAILED"
    with run.locked(), pytest.raises(UserError, match="Another process is working"):
        resend(run)


def test_untracked_runs(make_run, tmp_path):
    run = make_run()
    with_tracking(run, uri="none")
    tracker = open_tracker(run.config(), run)
    assert isinstance(tracker, NullTracker)
    tracker.sync()
    assert tracker.register(score(1.0)) is None
    tracker.finish("FINISHED")
    assert not run.tracking_file.exists()
    with pytest.raises(UserError, match=r"its tracking\.uri is none"):
        resend(run)
    with pytest.raises(UserError, match="is not a run directory"):
        resend(RunDirectory(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"uri": "localhost:5000"}, {"uri": "file:///x"}, {"uri": "http://a:b@c"}, {"model_name": "a/b"}],
)
def test_settings_that_mlflow_does_not_take(changes, tmp_path):
    config = Recipe(tracking=TrackingSettings(**changes))
    with pytest.raises(UserError, match=r"is not the address of|contains a password|letters, digits"):
        open_tracker(config, RunDirectory(tmp_path / "runs" / "x"))


def test_a_deleted_experiment_is_said(make_run):
    run = make_run()
    tracked(run).sync()
    client = open_client(told(run)["uri"])
    client.delete_experiment(client.get_experiment_by_name("cm_ray").experiment_id)
    run.tracking_file.unlink()
    with pytest.raises(UserError, match="experiment 'cm_ray' was deleted there"):
        tracked(run).sync()

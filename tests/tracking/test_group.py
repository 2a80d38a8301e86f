"""A folder of runs is one MLflow run, and its runs are shown under it."""

import json
import shutil

import pytest
from mlflow import MlflowClient
from tracked_runs import free_port, png, with_tracking

from cm_ray.errors import UserError
from cm_ray.tracking import RunGroup, open_tracker
from cm_ray.tracking.sent_state import SentState
from cm_ray.tracking.store import open_client


@pytest.fixture
def folder(tmp_path, empty_store):
    """A folder beside a store without runs."""
    (tmp_path / "runs").mkdir()
    shutil.copyfile(empty_store, tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs" / "table"


@pytest.fixture
def sent(monkeypatch):
    """Names of the files that are sent."""
    names, log_artifact = [], MlflowClient.log_artifact

    def watched(self, run_id, local_path, artifact_path=None):
        names.append(local_path.rpartition("/")[2])
        log_artifact(self, run_id, local_path, artifact_path)

    monkeypatch.setattr(MlflowClient, "log_artifact", watched)
    return names


def make_group(folder, uri=""):
    return RunGroup(folder, name="table", uri=uri, experiment="cm_ray")


def runs_of(group, where=""):
    client = open_client(group.uri)
    experiment = client.get_experiment_by_name("cm_ray").experiment_id
    return client.search_runs([experiment], filter_string=where)


def only_run(group):
    (found,) = runs_of(group)
    return found


def artifacts(group):
    client = open_client(group.uri)
    return {item.path for item in client.list_artifacts(only_run(group).info.run_id)}


def test_a_description_with_pictures(folder):
    group = make_group(folder)
    folder.mkdir(parents=True)
    (folder / "panel 1.png").write_bytes(png(8))
    (folder / "report.md").write_text("more")
    group.log(files=[folder / "report.md", folder / "panel 1.png"], note="**Which?** " + 9000 * "x")
    group.log(metrics={"trials": 2.0})
    found = only_run(group)
    note = found.data.tags["mlflow.note.content"]
    assert note.startswith("**Which?** xxx")
    assert note.endswith(f"x\n\n![panel 1](get-artifact?path=panel+1.png&run_uuid={found.info.run_id})")
    assert len(note) == 8000
    assert artifacts(group) == {"panel 1.png", "report.md"}


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_a_group_that_is_stopped_is_killed(folder, error, status):
    def stop():
        raise error

    group = make_group(folder)
    with pytest.raises(error), group.closed():
        stop()
    assert only_run(group).info.status == status


def shown_under(group, run_id):
    return [found.info.run_name for found in runs_of(group, f"tags.`mlflow.parentRunId` = '{run_id}'")]


def tell(run):
    open_tracker(run.config(), run, strict=True).finish("FINISHED")


def test_a_group_tells_what_it_is_given(folder, tmp_path, capsys):
    group = make_group(folder)
    group.log(params={"methods": ("ct", "cd")}, metrics={"best (FD)": 7.5})
    (folder / "figures").mkdir()
    for file in (folder / "table.md", folder / "figures" / "curves.png", tmp_path / "search.json"):
        file.write_text("content")
    names = ["table.md", "figures/curves.png", "../../search.json", "never-made.md"]
    group.log(files=[folder / name for name in names[:2]] + [tmp_path / "search.json", folder / names[3]])
    assert only_run(group).info.status == "RUNNING"
    group.finish("FINISHED")
    found = only_run(group)
    assert (found.info.run_id, found.info.run_name) == (group.run_id, "table")
    assert found.info.status == "FINISHED"
    assert found.data.params == {"methods": "('ct', 'cd')"}
    assert found.data.metrics == {"best _FD_": 7.5}
    assert artifacts(group) == {"table.md", "figures", "search.json"}
    assert group.uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert capsys.readouterr() == ("", "")


def test_runs_are_shown_under_their_group(make_run, tmp_path):
    run, other = make_run("one"), make_run("two")
    group = make_group(tmp_path / "runs" / "table")
    with_tracking(run, parent_run=group.run_id, uri=group.uri)
    tell(run)
    tell(other)
    assert shown_under(group, group.run_id) == ["one"]


def test_a_run_that_was_told_before_moves_under_its_group(make_run, tmp_path):
    run = make_run()
    tell(run)
    group = make_group(tmp_path / "runs" / "table")
    for parent in ("another", group.run_id):
        with_tracking(run, parent_run=parent)
        tell(run)
        assert shown_under(group, parent) == ["one"]
    with_tracking(run, parent_run="")  # repeated alone: it stays where it is
    tell(run)
    assert shown_under(group, group.run_id) == ["one"]
    assert len(runs_of(group)) == 2


def test_the_folder_finds_its_run_again(folder, sent):
    first = make_group(folder)
    file = folder / "table.md"
    first.log(params={"steps": 8})
    file.write_text("one row")
    first.log(metrics={"fd": 3.0}, files=[file])
    first.finish("FAILED")
    again = make_group(folder)
    assert again.run_id == first.run_id
    assert only_run(again).info.status == "RUNNING"
    again.log(params={"steps": 8, "seed": 1}, metrics={"fd": 3.0}, files=[file])
    assert sent == ["table.md"]
    file.write_text("two rows, now")
    again.log(files=[file])
    again.finish("FINISHED")
    assert sent == ["table.md", "table.md"]
    found = only_run(again)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"steps": "8", "seed": "1"}
    assert len(open_client(again.uri).get_metric_history(found.info.run_id, "fd")) == 1


def test_a_kill_before_the_run_is_remembered_makes_no_second_one(folder):
    chosen = SentState.fresh(make_group(folder).uri)
    chosen.write(folder / "tracking.json")
    first = make_group(folder).run_id
    chosen.write(folder / "tracking.json")  # made on the server, not remembered here
    again = make_group(folder)
    assert again.run_id == first
    assert only_run(again).info.run_id == first


def test_parameters_keep_their_first_value_and_metrics_show_their_last_finite_one(folder, capsys):
    group = make_group(folder)
    for steps, fd in ((8, 3.0), (9, 2.0), (10, float("nan")), (11, float("inf"))):
        group.log(params={"steps": steps}, metrics={"fd": fd})
    again = make_group(folder)
    again.log(params={"steps": 12})
    assert only_run(again).data.params == {"steps": "8"}
    assert only_run(again).data.metrics == {"fd": 2.0}
    assert capsys.readouterr().err == ""


def test_a_run_that_was_deleted_there_is_made_anew(folder, sent):
    group = make_group(folder)
    group.log(params={"steps": 8}, metrics={"fd": 3.0})
    (folder / "table.md").write_text("a row")
    group.log(files=[folder / "table.md"])
    first = group.run_id
    open_client(group.uri).delete_run(first)
    again = make_group(folder)
    assert again.run_id not in ("", first)
    again.log(files=[folder / "table.md"])
    assert sent == ["table.md", "table.md"]


def test_a_run_that_is_deleted_meanwhile_is_said_once_and_told_everything_anew(folder, capsys):
    group = make_group(folder)
    group.log(params={"steps": 8}, metrics={"fd": 3.0})
    first = group.run_id
    open_client(group.uri).delete_run(first)
    group.log(metrics={"fd": 2.0})
    assert capsys.readouterr().err.count("\n") == 1
    group.finish("FINISHED")
    found = only_run(group)
    assert found.info.run_id == group.run_id != first
    assert (found.data.params, found.data.metrics) == ({"steps": "8"}, {"fd": 2.0})


def test_a_server_that_is_away_never_hurts_and_is_told_later(
    folder, start_server, empty_store, tmp_path, capsys
):
    port = free_port()
    group = make_group(folder, uri=f"http://127.0.0.1:{port}")
    assert group.run_id == ""
    for fd in (3.0, 2.0):
        group.log(params={"steps": 8}, metrics={"fd": fd}, files=[folder / "table.md"])
        assert group.run_id == ""
    (folder / "table.md").write_text("a row")
    group.finish("FAILED", patience_s=0)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert f"at {group.uri} (it does not answer); the work in {folder} goes on" in said.err

    store = f"sqlite:///{shutil.copyfile(empty_store, tmp_path / 'server.db')}"
    folders = ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "kept")]
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    start_server("server", *folders, *options, url=f"{group.uri}/health")
    group.finish("FINISHED")
    found = only_run(group)
    assert found.info.run_id == group.run_id == make_group(folder, uri=group.uri).run_id
    assert (found.info.status, found.data.params) == ("FINISHED", {"steps": "8"})
    assert found.data.metrics == {"fd": 2.0}
    assert artifacts(group) == {"table.md"}


def test_a_run_that_is_known_stays_known_while_the_server_is_away(folder, monkeypatch):
    """So that what is trained meanwhile is shown under it later."""
    first = make_group(folder).run_id
    monkeypatch.setattr(MlflowClient, "get_run", lambda *_: 1 / 0)
    again = make_group(folder)
    assert again.run_id == first != ""


def test_nobody_is_told_where_that_is_asked_for(tmp_path):
    group = make_group(tmp_path / "table", uri="none")
    group.log(params={"steps": 8}, metrics={"fd": 1.0}, files=[tmp_path / "x"])
    group.finish("FINISHED")
    assert (group.run_id, group.uri) == ("", "none")
    assert not any(tmp_path.iterdir())


def test_an_address_that_mlflow_does_not_take_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not the address of an MLflow store"):
        make_group(tmp_path / "table", uri="localhost:5000")


def test_a_deleted_experiment_is_said(folder, capsys):
    group = make_group(folder)
    assert group.run_id
    client = open_client(group.uri)
    client.delete_experiment(client.get_experiment_by_name("cm_ray").experiment_id)
    (folder / "tracking.json").unlink()
    assert make_group(folder).run_id == ""
    assert "experiment 'cm_ray' was deleted there" in capsys.readouterr().err
    assert json.loads((folder / "tracking.json").read_text())["run_id"] == ""

"""MLflow's pages show a run: pictures by steps, the data set, final scores, a card, the machine."""

import json
import re
from pathlib import Path

import pytest
from tracked_runs import finish, log, png, score

from cm_ray.evaluation.card import Card
from cm_ray.tracking import machine
from cm_ray.tracking.sent_state import SentState
from cm_ray.tracking.status import status_of
from cm_ray.tracking.store import open_client
from cm_ray.tracking.tracker import open_tracker


def tracked(run):
    return open_tracker(run.config(), run, strict=True)


def seen(run):
    """Return the client of a run's store, and the MLflow run."""
    state = json.loads(run.tracking_file.read_text())
    client = open_client(state["uri"])
    return client, client.get_run(state["run_id"])


def images(run):
    client, found = seen(run)
    names = [Path(item.path).name for item in client.list_artifacts(found.info.run_id, "images")]
    series = [name.split("+") for name in names if name.endswith(".png")]
    return sorted((key, int(step)) for key, _, step, *_ in series)


def test_final_scores_end_the_curves_of_the_training(make_run):
    run = make_run()
    log(run, 8, scores=[score(0.94).to_row()])
    tracked(run).sync()
    finish(run, score(0.795), score(0.6, sampler="multistep@0.8", nfe=2), clipped_noise=7.95)
    tracked(run).finish("FINISHED")
    client, found = seen(run)
    history = client.get_metric_history(found.info.run_id, "FD-digits-1797/one-step")
    in_time = sorted(history, key=lambda metric: metric.timestamp)
    assert [(metric.step, metric.value) for metric in in_time] == [(8, 0.94), (8, 0.795)]
    assert found.data.metrics["FD-digits-1797/one-step"] == 0.795
    assert found.data.metrics["FD-digits-1797/multistep_0.8"] == 0.6
    assert found.data.metrics["share_of_noise"] == pytest.approx(0.1)


def test_grids_are_images_with_steps_and_none_twice(make_run):
    run = make_run()
    (run.samples / "step-00000002.png").write_bytes(png(8, 1))
    tracked(run).sync()
    finish(run, score(1.0))
    tracked(run).sync()
    expected = [("final-one-step", run.config().steps), ("samples", 2), ("samples", 4)]
    assert images(run) == expected
    state = json.loads(run.tracking_file.read_text())
    run.tracking_file.write_text(json.dumps({**state, "pictures": {}}))  # killed before it was remembered
    tracked(run).sync()
    assert images(run) == expected


def test_the_page_says_who_started_what_on_which_images(make_run, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ada")
    run = make_run(rows=1)
    tracked(run).sync()
    client, found = seen(run)
    tags = {name: value for name, value in found.data.tags.items() if name != "mlflow.loggedImages"}
    assert tags.pop("cm_ray.key")
    assert tags == {
        "data.fingerprint": "abc",
        "mlflow.runName": "one",
        "mlflow.source.git.commit": "def",
        "mlflow.source.name": "cm-ray train ict --data /data/photos",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": "ada",
    }
    (given,) = found.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("photos", "abc")
    assert json.loads(given.dataset.profile)["num_rows"] == "1797"
    experiment = client.get_experiment(found.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_older_experiment_is_shown_under_model_training(make_run):
    run = make_run(rows=1)
    client = open_client(f"sqlite:///{run.root.parent}/mlflow.db")
    made = client.create_experiment("cm_ray", artifact_location=(run.root.parent / "kept").as_uri())
    tracked(run).sync()
    assert client.get_experiment(made).tags["mlflow.experimentKind"] == "custom_model_development"


def test_run_model_and_version_have_a_card(make_run):
    run = make_run(rows=1)
    finish(run, score(2.5), clipped_noise=25.0)
    registered = tracked(run).register(score(2.5))
    client, found = seen(run)
    note = found.data.tags["mlflow.note.content"]
    assert "consistency model; 8x8, grey; no classes" in note
    assert "Trained on 1797 images of `/data/photos`" in note
    assert "| FD-digits-1797 | `one-step` | 1 | 2.5 | 10.0% |" in note
    assert f"cm-ray sample {run.root} --samples 25" in note
    (path,) = re.findall(r"!\[final-one-step\]\(get-artifact\?path=([^&]*)&run_uuid=\w+\)", note)
    kept = client.list_artifacts(found.info.run_id, "samples")
    assert [item.path for item in kept] == [path.replace("%2F", "/")]
    version = client.get_model_version("tiny", registered.version)
    assert "cm-ray sample models:/tiny/1 " in version.description
    model = client.get_registered_model("tiny")
    assert model.description.startswith("`models:/tiny@champion`:")
    assert "cm-ray sample models:/tiny@champion" in model.description


def test_a_description_by_a_person_stays(make_run):
    first, second = make_run("first", rows=1), make_run("second", rows=1)
    finish(first, score(2.5))
    tracked(first).register(score(2.5))
    client, _ = seen(first)
    client.update_registered_model("tiny", "My digits.")
    finish(second, score(1.5))
    assert tracked(second).register(score(1.5)).champion
    assert client.get_registered_model("tiny").description == "My digits."


def test_the_logged_model_is_linked_to_run_and_version(make_run):
    run = make_run(rows=1)
    finish(run, score(2.5), clipped_noise=25.0)
    tracked(run).register(score(2.5))
    client, found = seen(run)
    (output,) = found.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.source_run_id, str(logged.status)) == (found.info.run_id, "READY")
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "tiny", "version": "1"}]
    assert client.get_model_version("tiny", "1").source == logged.artifact_location
    run.tracking_file.write_text(json.dumps({**json.loads(run.tracking_file.read_text()), "version": {}}))
    tracked(run).register(score(2.5))  # after a kill before it was remembered
    assert len(client.search_logged_models([found.info.experiment_id])) == 1
    assert {metric.key: metric.value for metric in logged.metrics}["FD-digits-1797/one-step"] == 2.5
    assert len(client.get_metric_history(found.info.run_id, "share_of_noise")) == 1


def test_a_first_version_that_is_no_better_than_noise_is_no_champion(make_run):
    noise, better, worse = (make_run(name, rows=1) for name in ("noise", "better", "worse"))
    finish(noise, score(9.0), clipped_noise=9.0)
    registered = tracked(noise).register(score(9.0))
    assert not registered.champion
    assert "there is no champion, as version 1 is no better than clipped noise" in registered.reason
    assert not seen(noise)[0].get_registered_model("tiny").aliases
    finish(better, score(8.9), clipped_noise=9.0)
    assert tracked(better).register(score(8.9)).champion
    finish(worse, score(9.1), clipped_noise=9.0)
    assert "version 2 stays champion" in tracked(worse).register(score(9.1)).reason


def test_the_use_of_the_machine_is_shown(make_run, monkeypatch):
    monkeypatch.setattr(machine, "EVERY_S", 0.0)
    run = make_run(rows=1)
    tracker = tracked(run)
    tracker.sync()
    tracker.sync()
    metrics = seen(run)[1].data.metrics
    assert 0 < metrics["system/system_memory_usage_percentage"] <= 100
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100


def test_samples_of_the_machine_are_not_too_many(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    use, counts = machine.MachineUse(), []
    for _ in range(25):
        counts.append(len(use.values(0)) > 0)
        clock[0] += 1
    assert [second for second, sampled in enumerate(counts) if sampled] == [10, 20]


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (KeyboardInterrupt(), "KILLED"), (GeneratorExit(), "KILLED"), (OSError(), "FAILED")],
)
def test_a_run_that_is_stopped_is_killed_and_has_not_failed(error, status):
    assert status_of(error) == status


def test_a_card_of_a_run_without_scores(make_run):
    run = make_run(rows=1)
    finish(run)
    text = Card.of_run(run).markdown("runs/one")
    assert "No scores of it are known here." in text
    assert "| score |" not in text


def test_the_state_of_what_was_sent_survives(make_run):
    run = make_run(rows=1)
    state = SentState.fresh("sqlite:///x")
    state.pictures["samples/a.png"] = "1-2"
    state.write(run.tracking_file)
    assert SentState.read(run.tracking_file, "sqlite:///x").pictures == {"samples/a.png": "1-2"}

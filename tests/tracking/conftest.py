"""A finished run without training (a tiny model, a few rows of a log, a picture), and real servers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_runs import log, tiny_model

from cm_ray.networks.model import save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import TrackingSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import write_json
from cm_ray.tracking.store import calling_mlflow, open_client
from tests.waiting import LIMIT_S, wait_for_server

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Nothing may land in the working directory, and nothing of the user's is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CM_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """An MLflow store without runs: making one takes seconds, so the tests copy it."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    with calling_mlflow(5):
        open_client(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def make_run(tmp_path, empty_store):
    """Make the run directory of a run called `name`, with a log of `rows` rows and a model."""

    def make(name="one", rows=5, uri="", model_name="tiny", model=None):
        config = Recipe(name=name, tracking=TrackingSettings(uri=uri, model_name=model_name))
        run = RunDirectory(tmp_path / "runs" / name)
        run.root.mkdir(parents=True)
        if not (store := tmp_path / "runs" / "mlflow.db").exists():
            shutil.copyfile(empty_store, store)
        run.claim(config)
        write_json(run.lineage_file, {"data.fingerprint": "abc", "git_revision": "def"})
        for step in range(rows):
            log(run, step)
        run.samples.mkdir()
        (run.samples / "step-4.png").write_bytes(b"a picture")
        model = model or tiny_model()
        save_model(run.model, model.spec, model.network.state_dict())
        return run

    return make


@pytest.fixture
def start_server(tmp_path):
    """Start an `mlflow` command that serves, wait until `url` answers, and stop it at the end."""
    started = []

    def start(*arguments, url, **environment):
        inherited = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
        log_file = (tmp_path / f"server-{len(started)}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            env={**inherited, **environment},
            cwd=tmp_path,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append((process, log_file))
        wait_for_server(url, process, Path(log_file.name))

    yield start
    for process, log_file in started:
        os.killpg(process.pid, 15)
        process.wait(timeout=LIMIT_S)
        log_file.close()

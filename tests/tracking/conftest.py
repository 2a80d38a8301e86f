"""A finished run without training (a tiny model, a few rows of a log, a picture), and real servers."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tracked_runs import LINEAGE, free_port, log, png, tiny_model

from cm_ray.networks.model import save_model
from cm_ray.recipes.recipe import Recipe
from cm_ray.recipes.sections import TrackingSettings
from cm_ray.runs.directory import RunDirectory
from cm_ray.storage.files import write_json
from cm_ray.tracking.store import calling_mlflow, open_client
from cm_ray.tracking.tracker import open_tracker
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

    def make(name="one", **settings):
        return finished_run(tmp_path / "runs" / name, empty_store, **settings)

    return make


def finished_run(folder, empty_store, rows=5, uri="", model_name="tiny", model=None):
    """Make a run directory beside a store, which is a copy of the empty one unless there is one."""
    run = RunDirectory(folder)
    run.root.mkdir(parents=True)
    if not (store := folder.with_name("mlflow.db")).exists():
        shutil.copyfile(empty_store, store)
    run.claim(Recipe(name=folder.name, tracking=TrackingSettings(uri=uri, model_name=model_name)))
    write_json(run.lineage_file, LINEAGE)
    for step in range(rows):
        log(run, step)
    run.samples.mkdir()
    (run.samples / "step-00000004.png").write_bytes(png(8))
    model = model or tiny_model()
    save_model(run.model, model.spec, model.network.state_dict())
    return run


@pytest.fixture
def start_server(tmp_path):
    """Start an `mlflow` command that serves, wait until `url` answers, and stop it at the end."""
    with contextlib.ExitStack() as started:
        yield lambda *arguments, **more: started.enter_context(server(tmp_path, *arguments, **more))


@contextlib.contextmanager
def server(folder, *arguments, url, **environment):
    """Run an `mlflow` command in a folder for as long as the block, from when `url` answers."""
    inherited = {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    inherited["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # six processes that no test asks anything
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    log_file = folder / "server.log"
    with log_file.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *arguments],
            env={**inherited, **environment},
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for_server(url, process, log_file)
        yield
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=LIMIT_S)


@pytest.fixture(scope="session")
def served_champion(tmp_path_factory, empty_store):
    """The folder of a registered model, and the address at which MLflow serves it: a start takes seconds."""
    folder = tmp_path_factory.mktemp("served")
    run = finished_run(folder / "runs" / "one", empty_store, rows=1)
    open_tracker(run.config(), run, strict=True).register(None)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with server(
        folder,
        *("models", "serve", "-m", "models:/tiny@champion", "--env-manager", "local"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        url=f"{address}/ping",
        MLFLOW_TRACKING_URI=f"sqlite:///{folder}/runs/mlflow.db",
    ):
        yield folder, address

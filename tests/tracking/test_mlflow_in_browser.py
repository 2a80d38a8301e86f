"""MLflow's own pages in a real browser show what a run has sent: figures, pictures and links."""

import json
import os

import pytest
from conftest import finished_run, server
from tracked_runs import finish, free_port, log, png, score

from cm_ray.tracking.tracker import open_tracker
from tests.absent import installed
from tests.browsers import chromium
from tests.waiting import LIMIT_S

sync_api = installed("playwright.sync_api", reason="pip install playwright to drive a browser")
WAIT_MS = 1000 * LIMIT_S


@pytest.fixture(scope="module")
def site(tmp_path_factory, empty_store):
    """The address of MLflow's server with a finished and registered run, and the id of the run."""
    folder = tmp_path_factory.mktemp("site")
    run = finished_run(folder / "runs" / "one", empty_store)
    log(run, 8, scores=[score(0.94).to_row()])
    (run.samples / "step-00000002.png").write_bytes(png(30, 200))
    finish(run, score(0.795), clipped_noise=7.95)
    tracker = open_tracker(run.config(), run, strict=True)
    tracker.register(score(0.795))
    tracker.finish("FINISHED")
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = f"sqlite:///{run.root.parent}/mlflow.db"
    address = f"http://127.0.0.1:{port}"
    with server(folder, "server", "--backend-store-uri", store, *options, url=f"{address}/health"):
        yield address, json.loads(run.tracking_file.read_text())["run_id"]


@pytest.fixture(scope="module")
def page(site):
    with chromium(sync_api) as browser:
        opened = browser.new_page(viewport={"width": 1300, "height": 1500})
        opened.set_default_timeout(WAIT_MS)
        yield opened


def shown(page, address, *texts):
    """Open a page and wait until it shows all texts; keep a picture of it if the environment asks for one."""
    page.goto(address)
    for text in texts:
        page.get_by_text(text).first.wait_for()
    if folder := os.environ.get("CM_RAY_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/mlflow-{len(address)}.png")


def test_the_page_of_a_run(page, site):
    address, run_id = site
    shown(
        page,
        f"{address}/#/experiments/1/runs/{run_id}",
        "consistency model; 8x8, grey; no classes",
        "0.795",  # the metric is the final score, not 0.94 of the last checkpoint
        "10.0%",
        "photos (abc)",
        "tiny",
        "share_of_noise",
    )
    assert page.get_by_text("0.94", exact=True).count() == 0


def test_grids_of_samples_are_pictures_by_steps(page, site):
    address, run_id = site
    shown(page, f"{address}/#/experiments/1/runs/{run_id}/model-metrics", "loss", "final-one-step")
    page.get_by_text("samples", exact=True).first.wait_for()
    page.get_by_role("slider").first.wait_for()


def test_the_page_of_a_version_shows_the_card_with_its_grid(page, site):
    address, _ = site
    shown(page, f"{address}/#/models/tiny/versions/1", "cm-ray sample models:/tiny/1", "champion")
    grid = page.locator("img[src*='final-one-step']")
    sync_api.expect(grid).to_have_js_property("naturalWidth", 16, timeout=WAIT_MS)

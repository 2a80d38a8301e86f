"""The page in a real browser: load, sample, paint a mask, get the edited picture."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import grid_picture
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import to_uint8
from tests.absent import installed
from tests.browsers import chromium
from tests.cluster.tiny import NETWORK, make_tiny_run
from tests.waiting import LIMIT_S, wait_for_server

installed("gradio", reason="the page is an extra: pip install 'cm_ray[app]'")
sync_api = installed("playwright.sync_api", reason="pip install playwright to drive a browser")
ROOT = Path(__file__).parents[2]
WAIT_MS = 1000 * LIMIT_S


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    network = replace(NETWORK, conditional=True)
    return make_tiny_run(tmp_path_factory.mktemp("runs") / "run", network=network, time_points=((2.0,),))


@pytest.fixture(scope="module")
def address(run, tmp_path_factory):
    """Start the job, and end it as a person would."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "jobs/app.py", str(run.root), "--port", str(port), "--device", "cpu"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_server(f"http://127.0.0.1:{port}/", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=LIMIT_S) == 0, log.read_text()


@pytest.fixture(scope="module")
def browser():
    with chromium(sync_api) as started:
        yield started


@pytest.fixture
def page(browser, address):
    """A page that has been loaded; it must not have asked anyone but the server for anything."""
    opened, asked = browser.new_page(viewport={"width": 1200, "height": 1100}), []
    opened.on("request", lambda request: asked.append(request.url))
    opened.set_default_timeout(WAIT_MS)
    opened.goto(address)
    opened.wait_for_selector("#sample-button")
    yield opened
    opened.close()
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def picture(page, name, text):
    """Return what is shown once the text says `text`."""
    sync_api.expect(page.locator(f"#{name}-text")).to_contain_text(text, timeout=WAIT_MS)
    source = page.locator(f"#{name}-picture img").get_attribute("src")
    if source.startswith("data:"):
        return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    return Image.open(io.BytesIO(page.request.get(source).body()))


def fill(page, name, value):
    page.locator(f"#{name} input").first.fill(str(value))


def test_sample_paint_and_edit(page, run):
    model = load_model(run.model)
    fill(page, "sample-count", 4)
    sync_api.expect(page.locator("#name")).to_contain_text(f"{run.root}")
    sync_api.expect(page.locator("#name")).to_contain_text("consistency model; 8x8, grey; 10 classes")
    page.locator("#sample-steps").get_by_label("2 steps").check()
    page.click("#sample-button")
    shown = picture(page, "sample", "multistep@2.0: step 2 of 2")
    samples = model.sample(torch.arange(4), seed=0, sampler=sampler_of(model.spec, steps=2))
    np.testing.assert_array_equal(np.asarray(shown.convert("L")), np.asarray(grid_picture(to_uint8(samples))))

    page.get_by_role("tab", name="Edit").click()
    page.click("#edit-take")
    page.wait_for_selector("#edit-canvas canvas")
    page.click("#edit-button")
    page.get_by_text("Nothing is painted over yet").first.wait_for()
    page.wait_for_timeout(2000)  # the editor fits the picture into its canvas, and says nothing of it
    box = page.locator("#edit-canvas canvas").first.bounding_box()
    x, y = box["x"] + 0.55 * box["width"], box["y"] + 0.35 * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(12):
        page.mouse.move(x, y + 8 * step)
    page.mouse.up()
    page.wait_for_timeout(500)
    fill(page, "edit-steps", 3)
    page.click("#edit-button")
    shown = picture(page, "edit", "inpaint: step 3 of 3").convert("L")
    if folder := os.environ.get("CM_RAY_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/page.png")

    factor = round(shown.height / 8)
    small = np.asarray(shown)[factor // 2 :: factor, factor // 2 :: factor]
    before, *results, given = (small[:, 9 * i : 9 * i + 8] for i in range(6))
    sample = model.sample(torch.arange(1), seed=0, sampler=sampler_of(model.spec))
    np.testing.assert_array_equal(given, to_uint8(sample)[0, 0])
    anew = (before == 128) & (given != 128)
    assert 2 <= anew.sum() <= 32, "what was painted over, and no more"
    for result in results:
        np.testing.assert_array_equal(result[~anew & (before != 128)], given[~anew & (before != 128)])
        assert (result[anew] != given[anew]).any()


def test_a_seed_of_the_gallery_is_edited(page, run):
    page.get_by_role("tab", name="Seeds").click()
    fill(page, "seeds-count", 3)
    page.click("#seeds-next")
    page.locator("#seeds-gallery").get_by_text("5 · ").first.wait_for()
    if folder := os.environ.get("CM_RAY_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/seeds.png")
    page.locator("#seeds-gallery img").nth(1).click()
    page.wait_for_selector("#edit-canvas canvas")
    page.get_by_role("radio", name="denoise").check()
    page.click("#edit-button")
    shown = picture(page, "edit", "denoise: step 1 of 1").convert("L")
    factor = round(shown.height / 8)
    given = np.asarray(shown)[factor // 2 :: factor, factor // 2 :: factor][:, -8:]
    model = load_model(run.model)
    sample = to_uint8(model.sample(torch.arange(1), seed=4, sampler=sampler_of(model.spec)))[0, 0]
    assert np.abs(given.astype(int) - sample.numpy()).max() <= 1


def test_an_uploaded_image_can_be_denoised(page, tmp_path):
    (tmp_path / "a.png").write_bytes(b"MZ, a program")
    pixels = np.random.default_rng(0).integers(0, 256, (30, 20), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    page.get_by_role("tab", name="Edit").click()
    upload = page.locator("#edit-upload input[type=file]")
    upload.set_input_files(tmp_path / "a.png")
    page.get_by_text("The file is not a readable image").first.wait_for()
    page.get_by_label("Remove this file").or_(page.get_by_label("Clear")).first.click()
    upload.set_input_files(tmp_path / "b.png")
    page.wait_for_selector("#edit-canvas canvas")
    page.get_by_role("radio", name="denoise").check()
    page.click("#edit-button")
    shown = picture(page, "edit", "denoise: step 1 of 1")
    assert shown.width > shown.height
    page.get_by_role("tab", name="Model").click()
    sync_api.expect(page.locator("#facts")).to_contain_text("8x8, grey")

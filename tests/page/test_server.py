"""The page as an application: what its requests may reach, asked as a program asks that is not the page."""

import contextlib
import http.server
import io
import json
import os
import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cm_ray.command_line.settings.app import PageSettings
from cm_ray.data.pictures.uploads import MOST_BYTES
from cm_ray.drawing.model_sampler import sampler_of
from cm_ray.drawing.pictures import grid_picture
from cm_ray.errors import UserError
from cm_ray.networks.formats.reading import load_model
from cm_ray.networks.model import to_uint8
from cm_ray.page.server import application, serve
from tests.absent import installed
from tests.cluster.tiny import NETWORK, make_tiny_run

installed("gradio", reason="the page is an extra: pip install 'cm_ray[app]'")
testclient = installed("starlette.testclient", reason="pip install starlette, which gradio brings")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return make_tiny_run(folder, network=replace(NETWORK, conditional=True), time_points=((2.0,),))


def page_of(run):
    return application(PageSettings(model=str(run.root), device="cpu", host_names=("studio.example",)))


@pytest.fixture(scope="module")
def client(run):
    """Return a client of the page; when it ends, nothing that it brought is left."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", "set by the page")
        with testclient.TestClient(page_of(run), base_url="http://localhost:7860") as opened:
            folder = Path(os.environ["GRADIO_TEMP_DIR"])
            yield opened
            assert folder.is_dir()
        assert not folder.exists()


def names(client):
    return {one["api_name"]: one["id"] for one in client.get("/config").json()["dependencies"]}


def ask(client, name, *data):
    """Ask through the queue, as the page does; return what came last: its success, and its output."""
    session = f"{name}-{len(data)}"
    body = {"data": data, "fn_index": names(client)[name], "session_hash": session}
    joined = client.post("/gradio_api/queue/join", json=body)
    assert joined.status_code == 200, joined.text
    told = client.get("/gradio_api/queue/data", params={"session_hash": session}).text
    messages = [json.loads(line[5:]) for line in told.splitlines() if line.startswith("data:")]
    (last,) = [message for message in messages if message["msg"] == "process_completed"]
    return last["success"], last["output"]


def file(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def png(seed=0, size=(8, 8)):
    pixels, stream = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def uploaded(client, data, name="a.png"):
    answer = client.post("/gradio_api/upload", files={"files": (name, data)})
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def test_the_page_and_a_sample_of_it(client, run):
    assert "<html" in client.get("/").text
    success, output = ask(client, "sample", 4, "2 steps", 3, 0, "3", "as pixels")
    assert success, output
    picture, text = output["data"]
    assert text == "`multistep@2.0`: step 2 of 2"
    shown = Image.open(io.BytesIO(client.get(f"/gradio_api/file={picture['path']}").content))
    model = load_model(run.model)
    sampler, labels = sampler_of(model.spec, steps=2), torch.full((4,), 3)
    samples = model.sample(torch.arange(4), seed=0, sampler=sampler, labels=labels)
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(grid_picture(to_uint8(samples))))


def test_seeds_are_a_gallery_and_colour_images_fit(tmp_path):
    """Of 64x64 images in colour, as of digits."""
    run = make_tiny_run(tmp_path / "colours", shape=(3, 64, 64), class_names=())
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRADIO_TEMP_DIR", "set by the page")
        with testclient.TestClient(page_of(run), base_url="http://localhost:7860") as client:
            success, output = ask(client, "seeds", 3, 2, "2 steps", 3, "drawn at random", "as pixels")
            assert success, output
            shown = output["data"][0]
            assert [each["caption"] for each in shown] == ["3", "4"]
            files = [client.get(f"/gradio_api/file={each['image']['path']}") for each in shown]
            found = [np.asarray(Image.open(io.BytesIO(file.content))) for file in files]
    model = load_model(run.model)
    for seed, picture in zip((3, 4), found, strict=True):
        sample = model.sample(torch.arange(1), seed=seed, sampler=sampler_of(model.spec, steps=2))
        expected = to_uint8(sample)[0].permute(1, 2, 0).numpy()
        assert picture.shape == (192, 192, 3)
        assert np.abs(picture[1::3, 1::3].astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:7860", "127.0.0.1:7860", "[::1]:7860", "192.0.2.7", "Studio.example:80"]
)
def test_it_answers_to_addresses_and_to_names_that_it_was_started_for(host, client):
    assert client.get("/config", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "localhost.attacker.example:7860",
        "127.0.0.1.attacker.example",
        "",
        "[::1].example",
    ],
)
def test_a_website_that_points_its_name_here_gets_nothing(host, client):
    """A browser at a website whose name was made to mean 127.0.0.1 sends that name as the host."""
    for answer in (
        client.get("/config", headers={"Host": host}),
        client.post("/gradio_api/upload", files={"files": ("a.png", png())}, headers={"Host": host}),
    ):
        assert answer.status_code == 421
        assert (
            answer.text == "This page was not started for this host name; its setting host_names can name it."
        )


def test_what_was_uploaded_is_opened(client):
    success, output = ask(client, "opened", file(uploaded(client, png())))
    assert success, output


@pytest.fixture
def private(tmp_path):
    (tmp_path / "private.png").write_bytes(png(7))
    return tmp_path / "private.png"


@pytest.mark.parametrize("stream", [False, True])
def test_no_file_of_the_servers_is_opened(stream, client, private):
    for path in (private, "/etc/hostname", "/dev/zero"):
        success, output = ask(client, "opened", file(path) | {"is_stream": stream})
        assert not success
        assert "private" not in str(output["error"]).replace(str(path), "")
        painted = {"background": file(path) | {"is_stream": stream}, "layers": [], "composite": None}
        wanted = [None, painted, "as pixels", "denoise", "3", 0, 1, 0, "", 2, 0.5]
        assert not ask(client, "edit", *wanted)[0]
    assert client.get(f"/gradio_api/file={private}").status_code == 403
    folder = Path(os.environ["GRADIO_TEMP_DIR"])
    assert not [*folder.rglob("private.png"), *folder.rglob("hostname")]


def test_nothing_is_asked_but_through_the_queue(client, private):
    for way in ("run", "api", "call"):
        answer = client.post(f"/gradio_api/{way}/opened", json={"data": [file(private)]})
        assert answer.status_code == 403
    assert client.post("/gradio_api/process_recording").status_code == 403
    assert client.app.routes[-1].app.get_blocks().api_open is False


@pytest.fixture
def elsewhere():
    """A server that counts who asks it."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.png", asked
        server.shutdown()


def test_no_address_is_fetched(client, elsewhere, monkeypatch):
    from gradio import processing_utils

    address, asked = elsewhere
    fetched = []

    async def fetch(url, *_, **__):  # Gradio itself refuses addresses of its own network
        fetched.append(url)
        raise OSError("not there")

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", fetch)
    success, output = ask(client, "opened", file(address))
    assert not success
    assert output["error"] == "Only uploaded files can be opened."
    assert client.get(f"/gradio_api/file={address}").status_code == 403
    assert client.get("/gradio_api/file=%68ttp://example.org/a.png").status_code == 403
    assert not fetched + asked


def test_no_runs_are_kept(client):
    assert client.get("/config").json()["run_history"] is False
    assert client.get("/gradio_api/runs").status_code == 404


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("sample", (65, "1 step", 3, 0, "3", "smooth"), "Take 1 to 64 images, not 65."),
        ("sample", (1, "other", None, 0, "3", "smooth"), "Write a number of steps, or choose one."),
        ("seeds", (0, 65, "1 step", 3, "3", "smooth"), "Take 1 to 64 images, not 65."),
        ("sample", (1, "1 step", 3, 0, "nine", "smooth"), "nine is not in the list of choices"),
        ("between", (0, 1, 9, 8, "3", "smooth"), "Take 1 to 64 images in total, not 9 times 8."),
        ("edit", (None, None, "smooth", "denoise", "3", 0, 1, 0, "", 2, 0.5), "There is no image yet"),
    ],
)
def test_what_is_refused_is_a_sentence(name, data, sentence, client):
    success, output = ask(client, name, *data)
    assert not success
    assert sentence in output["error"]


def test_what_is_too_large_is_refused(client):
    answer = client.post("/gradio_api/upload", content=b"x", headers={"content-length": str(2 * MOST_BYTES)})
    assert answer.status_code == 413
    success, output = ask(client, "opened", file(uploaded(client, b"MZ, a program")))
    assert not success
    assert "The file is not a readable image" in output["error"]


@contextlib.contextmanager
def taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_an_address_that_is_taken_is_a_sentence(run, capsys):
    with (
        taken() as port,
        pytest.raises(UserError, match=f"Could not listen at 127.0.0.1:{port} .*another p"),
    ):
        serve(PageSettings(model=str(run.root), port=port))
    with pytest.raises(UserError, match=r"Could not listen at 300.0.0.1:7860 .*or host"):
        serve(PageSettings(model=str(run.root), host="300.0.0.1"))
    assert "http://" not in capsys.readouterr().out
